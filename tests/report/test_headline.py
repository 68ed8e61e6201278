"""The sentence about the curve, and the interval of its ends."""

import pytest

from spikedistill.report.run.headline import sampling_interval
from spikedistill.report.run.sections.accuracy import verdict


@pytest.mark.parametrize(
    ("accuracy", "sentence"),
    [
        ([0.9], "The network runs for a single timestep: there is nothing to trade."),
        (
            [0.896, 0.9, 0.9],
            "The first timestep is as good as all 3 to within half a point: the network can answer at any k.",
        ),
        ([0.893, 0.9], "Stopping after the first of 2 timesteps costs 0.7 points of accuracy."),
        ([0.9, 0.93, 0.9], "k = 1 is as good as k = 3 to within half a point, but the timesteps between are not."),
        ([0.92, 0.91, 0.9], "More timesteps do not help: accuracy falls by 2.0 points from k = 1 to k = 3."),
        (
            [0.7, 0.86, 0.896, 0.9],
            "Stopping after the first of 4 timesteps costs 20.0 points of accuracy; from k = 3 on it costs less than half a point.",
        ),
        (
            [0.7, 0.8, 0.9],
            "Stopping after the first of 3 timesteps costs 20.0 points of accuracy, and stopping before the last still 10.0.",
        ),
        (
            [0.7, 0.92, 0.9],
            "Stopping after the first of 3 timesteps costs 20.0 points of accuracy; the last one loses 2.0 again.",
        ),
        ([0.8, 0.9], "Stopping after the first of 2 timesteps costs 10.0 points of accuracy."),
        # up and down again: k = 2 is near the end, k = 3 is not, so "from k on" starts after it
        (
            [0.7, 0.9, 0.8, 0.9, 0.9],
            "Stopping after the first of 5 timesteps costs 20.0 points of accuracy; from k = 4 on it costs less than half a point.",
        ),
    ],
)
def test_one_sentence_says_what_the_curve_shows(accuracy, sentence):
    assert verdict(accuracy) == sentence


def test_the_interval_is_wilsons():
    # p = 1/2, n = 100, z = 1.96: centre 1/2, half width sqrt(z²/400 + z⁴/40000) / (1 + z²/100) = 0.0980 · ... = 9.62 points
    assert sampling_interval(0.5, 100) == "95 % interval 40.4 to 59.6 %, from 100 samples"
    # p = 1: from n / (n + z²) = 10 / 13.8416 = 72.2 % up to 100 %
    assert sampling_interval(1.0, 10) == "95 % interval 72.2 to 100.0 %, from 10 samples"
    assert sampling_interval(0.9, 10_000).endswith("from 10,000 samples")
