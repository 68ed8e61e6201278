"""Exits by prediction sets: worked by hand, against plain Python, and the promised coverage by simulation."""

import math

import pytest
import torch
from torch import nn

from spikedistill import LIF, UserError, temporal
from spikedistill.evaluation import AnytimeClassifier, Conformal, calibrate_conformal
from spikedistill.objectives.submodels import prefix_means

T, C = 4, 5


def drawn(N, seed, *, growth=1.5):
    """Logits `[T, N, C]` that say more about the label at every timestep, and labels."""
    dice = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (N,), generator=dice)
    return torch.randn(T, N, C, generator=dice) + growth * nn.functional.one_hot(labels, C), labels


def coverage_of(rule, logits, labels):
    """The share of samples whose label is in their set, mean exit time and mean size."""
    times = rule.exit_times(logits)
    means = prefix_means(logits.double())[times - 1, torch.arange(len(times))]
    sets = rule.sets(means, times)
    covered = sets[torch.arange(len(labels)), labels].double().mean()
    return float(covered), float(times.double().mean()), float(sets.sum(1).double().mean())


def test_by_hand():
    # One timestep, two classes; the labels have the probabilities .9 .8 .7 .6 .5 .4 .3 .2 .1. Of 9 samples the
    # ceil(10 * 0.8) = 8th smallest -log p is that of .2: a set holds the classes with a probability of .2 or more.
    p = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    logits, labels = torch.stack([p, 1 - p], -1).log()[None], torch.zeros(9, dtype=torch.int64)
    rule = calibrate_conformal(logits, labels, coverage=0.8)
    assert rule.quantiles == (pytest.approx(-math.log(0.2)),)
    probed = torch.tensor([[0.95, 0.05], [0.7, 0.3], [0.15, 0.85]], dtype=torch.float64).log()
    assert rule.sets(probed, torch.ones(3, dtype=torch.int64)).tolist() == [[True, False], [True, True], [False, True]]


def test_the_coverage_is_divided_among_the_timesteps_at_which_a_sample_may_exit():
    """19 samples and a coverage of 0.8: at one timestep the rank is 16, at two 18, at four 19."""
    logits, labels = drawn(19, 0)
    misfits = (-prefix_means(logits.double()).log_softmax(-1)[:, torch.arange(19), labels]).sort(1).values
    for stops, rank in [((4,), 16), ((2, 4), 18), ((1, 2, 3, 4), 19)]:
        rule = calibrate_conformal(logits, labels, coverage=0.8, stops=stops)
        expected = [misfits[t - 1, rank - 1].item() if t in stops else math.inf for t in range(1, 5)]
        assert rule.quantiles == pytest.approx(tuple(expected))
    assert calibrate_conformal(logits, labels, coverage=0.8, stops=[2]).quantiles[3] < math.inf, (
        "all may exit at the end"
    )
    assert calibrate_conformal(logits, labels, coverage=0.8).quantiles == rule.quantiles, "by default at every timestep"


def test_a_rank_that_is_a_whole_number_is_not_rounded_up():
    """(999 + 1) * 0.9 is 900, in floating point a part more or less."""
    logits, labels = drawn(999, 1)
    misfits = (-prefix_means(logits.double()).log_softmax(-1)[3, torch.arange(999), labels]).sort().values
    assert calibrate_conformal(logits, labels, coverage=0.9, stops=[4]).quantiles[3] == misfits[899].item()


def test_exits_are_those_of_a_loop_over_samples_and_timesteps():
    calibration, later = drawn(200, 2), drawn(60, 3)
    for max_size, stops in [(1, None), (2, (1, 3)), (4, (2,))]:
        rule = calibrate_conformal(*calibration, coverage=0.8, max_size=max_size, stops=stops)
        expected = []
        for n in range(60):
            for t in range(1, T + 1):
                mean = [sum(later[0][s, n, c].item() for s in range(t)) / t for c in range(C)]
                total = sum(math.exp(value) for value in mean)
                size = sum(-math.log(math.exp(value) / total) <= rule.quantiles[t - 1] for value in mean)
                if size <= max_size or t == T:
                    expected.append(t)
                    break
        assert rule.exit_times(later[0]).tolist() == expected
        assert len(set(expected)) > 1 or stops == (2,)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_the_label_is_in_the_set_as_often_as_promised(coverage):
    """Over 80 calibrations with 150 samples each, of which each is tried on 500 others."""
    found, times = [], []
    for seed in range(80):
        rule = calibrate_conformal(*drawn(150, 2 * seed), coverage=coverage)
        covered, mean_exit, _ = coverage_of(rule, *drawn(500, 2 * seed + 1))
        found.append(covered)
        times.append(mean_exit)
    mean, error = torch.tensor(found).mean().item(), torch.tensor(found).std().item() / math.sqrt(80)
    assert mean >= coverage - 3 * error
    assert mean < 1 - 3 * error, "a set of all classes would keep any promise"
    assert 1.2 < sum(times) / 80 < T - 0.2, "and samples do exit early"


def test_at_one_timestep_the_coverage_is_neither_less_nor_more():
    """By exchangeability it is rank / (n + 1) = ceil(100 * 0.9) / 100."""
    found = [
        coverage_of(calibrate_conformal(*drawn(99, 2 * seed), coverage=0.9, stops=[T]), *drawn(500, 2 * seed + 1))[0]
        for seed in range(120)
    ]
    error = torch.tensor(found).std().item() / math.sqrt(120)
    assert sum(found) / 120 == pytest.approx(0.9, abs=4 * error)


def test_without_the_correction_the_promise_would_be_broken():
    """Logits that say nothing: each timestep alone keeps the promise, but the exit chooses those with a small set."""
    corrected, alone = [], []
    for seed in range(25):
        calibration, later = drawn(400, 2 * seed, growth=0.0), drawn(1000, 2 * seed + 1, growth=0.0)
        corrected.append(coverage_of(calibrate_conformal(*calibration, coverage=0.5, max_size=2), *later)[0])
        limits = [calibrate_conformal(*(part[:t] if part.ndim == 3 else part for part in calibration), coverage=0.5, stops=[t])
                  .quantiles[-1] for t in range(1, T + 1)]  # fmt: skip
        alone.append(coverage_of(Conformal(tuple(limits), 0.5, max_size=2), *later)[0])
    assert sum(alone) / 25 < 0.48
    assert sum(corrected) / 25 >= 0.5


def test_a_recording_that_ends_before_it_may_exit_has_the_quantile_of_the_first_timestep_where_it_may():
    rule = calibrate_conformal(*drawn(200, 4), coverage=0.8, stops=[3, 4])
    assert rule.quantiles[:2] == (math.inf, math.inf)
    assert rule.quantiles[2] != rule.quantiles[3]
    logits, _ = drawn(6, 5)
    lengths = torch.tensor([1, 2, 4, 4, 3, 1])
    times = rule.exit_times(logits, lengths)
    assert times[[0, 1, 5]].tolist() == [1, 2, 1]
    misfit = -logits[0].double().log_softmax(-1)
    for time in (1, 2, 3):
        expected = misfit <= rule.quantiles[2]
        assert 0 < expected.sum() < expected.numel()
        assert torch.equal(rule.sets(logits[0], torch.full((6,), time)), expected)
    assert torch.equal(rule.sets(logits[0], torch.full((6,), 4)), misfit <= rule.quantiles[3])


def test_recordings_of_different_length_keep_the_promise_with_sets_that_say_something():
    found, sizes = [], []
    for seed in range(80):
        (before, known), (later, labels) = drawn(150, 2 * seed), drawn(500, 2 * seed + 1)
        ends, lengths = (
            torch.randint(1, T + 1, (n,), generator=torch.Generator().manual_seed(seed)) for n in (150, 500)
        )
        rule = calibrate_conformal(before, known, coverage=0.8, stops=[3, 4], lengths=ends)
        times = rule.exit_times(later, lengths)
        sets = rule.sets(prefix_means(later.double())[times - 1, torch.arange(500)], times)
        found.append(sets[torch.arange(500), labels].double().mean().item())
        sizes.append(sets[lengths < 3].sum(1).double().mean().item())
    error = torch.tensor(found).std().item() / math.sqrt(80)
    assert sum(found) / 80 >= 0.8 - 3 * error
    assert sum(sizes) / 80 < C - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coverage": 1.0}, "coverage is 1.0, expected a probability between 0 and 1, such as 0.9"),
        ({"coverage": 0.0}, "coverage is 0.0"),
        ({"max_size": 5}, "max_size is 5, expected fewer than the 5 classes"),
        ({"max_size": 0}, "max_size is 0"),
        ({"stops": [0]}, "stops name timestep 0, expected timesteps from 1 to 4"),
        ({"stops": [9]}, "stops name timestep 9"),
        (
            {},
            "got 30 samples, expected 39 or more for a coverage of 0.9 at 4 timesteps: give more samples, fewer stops",
        ),
        ({"stops": [4], "coverage": 0.99}, "expected 99 or more for a coverage of 0.99 at 1 timesteps"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        calibrate_conformal(*drawn(30, 0), **options)


def test_as_few_samples_as_the_message_says_are_enough():
    assert math.isfinite(calibrate_conformal(*drawn(39, 0)).quantiles[0])
    with pytest.raises(UserError, match="calibrated for 4 timesteps, got 2: calibrate one for these"):
        calibrate_conformal(*drawn(39, 0)).exit_times(torch.zeros(2, 3, C))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (((), 0.9), "got no quantile"),
        (((1.0, math.nan), 0.9), r"quantile nan, expected numbers"),
        (((1.0,), 2.0), r"coverage is 2\.0"),
        (((1.0,), 0.9, 0), "max_size is 0"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        Conformal(*values)


def test_a_rule_is_read_as_it_was_written():
    for stops in (None, [2, 4]):
        rule = calibrate_conformal(*drawn(100, 0), max_size=2, stops=stops)
        assert Conformal.from_written(rule.written()) == rule


# In a classifier


def network():
    """Its logits differ enough between samples that these exit at different timesteps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 32), LIF(), nn.Linear(32, C))
    with torch.no_grad():
        net[1].weight *= 6
        net[3].weight *= 6
    return temporal(net).eval()


def inputs_and_logits(model, N):
    x = torch.rand(N, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(x, timesteps=T)
    return x, logits, logits.mean(0).argmax(-1)


def test_a_classifier_exits_as_the_rule_says_and_its_sets_are_those_of_its_logits():
    model = network()
    x, logits, labels = inputs_and_logits(model, 300)
    classifier = AnytimeClassifier(model, "confidence", 0.9, T)
    rule = classifier.calibrate_conformal([(x[:200], labels[:200])], coverage=0.8)
    assert rule is classifier.policy
    expected = calibrate_conformal(logits[:, :200], labels[:200], coverage=0.8)
    assert rule.quantiles == pytest.approx(expected.quantiles, rel=1e-5)
    out = AnytimeClassifier(model, rule)(x[200:])
    assert torch.equal(out.exit_times, classifier(x[200:]).exit_times)
    assert (out.exit_times == rule.exit_times(logits[:, 200:])).double().mean() > 0.97, "but for rounding"
    assert len(out.exit_times.unique()) > 1
    sets = rule.sets(out.logits, out.exit_times)
    assert (sets.sum(1)[out.exit_times < T] <= 1).all()
    assert sets[torch.arange(100), labels[200:]].double().mean() > 0.7


def test_a_classifier_takes_a_rule_or_a_policy_with_its_threshold():
    model, rule = network(), calibrate_conformal(*drawn(100, 0))
    for arguments, message in [
        ((rule, 0.9), "threshold is 0.9, but a conformal rule has its own quantiles: leave it out"),
        ((rule, None, 3), "calibrated for 4 timesteps, got 3"),
        (("gap",), "policy 'gap' needs a threshold and max_timesteps: give both"),
        (("gap", [1.0, 2.0], 3), "got 2 thresholds, expected one for each of 3 timesteps"),
    ]:
        with pytest.raises(UserError, match=message):
            AnytimeClassifier(model, *arguments)
    with pytest.raises(UserError, match="exits by a conformal rule, which has no threshold: use calibrate_conformal"):
        AnytimeClassifier(model, rule).calibrate([], max_latency=2.0)


def test_a_classifier_has_a_threshold_for_each_timestep():
    model = network()
    x, _, labels = inputs_and_logits(model, 120)
    classifier = AnytimeClassifier(model, "gap", math.inf, T)
    found = classifier.calibrate_each_timestep([(x, labels)], max_error=0.1)
    assert classifier.threshold == found.thresholds
    assert len(set(found.thresholds)) == T
    out = classifier(x)
    assert out.exit_times.double().mean().item() == pytest.approx(found.mean_exit, abs=0.05)
    assert len(out.exit_times.unique()) > 1
