"""Figures over timesteps, worked by hand and against float64 references written with loops."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from spikedistill.evaluation.calibration import calibration_error, fit_temperature, reliability
from spikedistill.evaluation.timesteps import calibrated_metrics, timestep_metrics, timestep_reliability


def logits_of(probabilities):
    """Float64 logits whose softmax is the given probabilities."""
    return torch.tensor(probabilities, dtype=torch.float64).log()


def random_logits(T=4, N=200, C=10, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, C, (N,), generator=generator)
    logits = scale * torch.randn(T, N, C, generator=generator) + 2.0 * torch.nn.functional.one_hot(target, C)
    return logits, target


def reference(z, target):
    """Every figure for logits [N, C] in plain Python, one sample and one bin at a time."""
    right, nll, confidence, entropy, brier = [], [], [], [], []
    for row, label in zip(z, target, strict=True):
        top = max(row)
        weights = [math.exp(value - top) for value in row]
        p = [weight / sum(weights) for weight in weights]
        right.append(row.index(top) == label)
        nll.append(math.log(sum(weights)) - (row[label] - top))
        confidence.append(max(p))
        entropy.append(-sum(value * math.log(value) for value in p if value > 0))
        brier.append(sum((value - (c == label)) ** 2 for c, value in enumerate(p)))
    ece = 0.0
    for m in range(1, 16):
        inside = [i for i, value in enumerate(confidence) if (m - 1) / 15 < value <= m / 15]
        if inside:
            gap = sum(right[i] for i in inside) / len(inside) - sum(confidence[i] for i in inside) / len(inside)
            ece += len(inside) / len(right) * abs(gap)
    mean = np.mean
    figures = {"accuracy": right, "nll": nll, "confidence": confidence, "entropy": entropy, "brier": brier}
    return {name: mean(values) for name, values in figures.items()} | {"ece": ece}


def assert_same_figures(entry, expected):
    assert {name: entry[name] for name in expected} == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_figures_of_two_timesteps_worked_by_hand():
    # Timestep 1 is certain to 0.8 and right, then 0.6 and wrong; timestep 2 the reverse classes, so that the mean logits of
    # sample 1 are log(.8)+log(.2) for both classes: a tie at 1/2, and of sample 2 log(.4·.1) against log(.6·.9): odds 2:27.
    logits = logits_of([[[0.8, 0.2], [0.4, 0.6]], [[0.2, 0.8], [0.1, 0.9]]])
    target = torch.tensor([0, 0])
    result = timestep_metrics(logits, target)

    first = result["single"][0]
    assert first == result["ensemble"][0]
    assert first["k"] == 1
    assert first["accuracy"] == 0.5
    assert first["nll"] == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)
    assert first["confidence"] == pytest.approx(0.7)
    assert first["brier"] == pytest.approx((2 * 0.2**2 + 2 * 0.6**2) / 2)
    assert first["ece"] == pytest.approx((abs(1 - 0.8) + abs(0 - 0.6)) / 2)

    alone = result["single"][1]
    assert (alone["k"], alone["accuracy"]) == (2, 0.0)
    assert alone["nll"] == pytest.approx(-(math.log(0.2) + math.log(0.1)) / 2)

    p, q = 1 / (1 + math.sqrt(13.5)), 1 / (1 + math.sqrt(1 / 13.5))  # the mean halves the logarithm of the odds 2:27
    together = result["ensemble"][1]
    assert together["accuracy"] == 0.5  # the tie goes to class 0, which is right
    assert together["nll"] == pytest.approx(-(math.log(0.5) + math.log(p)) / 2)
    assert together["confidence"] == pytest.approx((0.5 + q) / 2)
    assert together["brier"] == pytest.approx((2 * 0.5**2 + 2 * q**2) / 2)
    assert together["ece"] == pytest.approx((abs(1 - 0.5) + abs(0 - q)) / 2)


@settings(max_examples=25, deadline=None)
@given(
    T=st.integers(1, 5),
    N=st.integers(1, 40),
    C=st.integers(2, 12),
    scale=st.sampled_from([0.0, 0.1, 1.0, 5.0, 1e4]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 10**6),
)
def test_figures_agree_with_a_plain_python_reference(T, N, C, scale, dtype, seed):
    logits, target = random_logits(T, N, C, scale, seed)
    logits = logits.to(dtype)
    result = timestep_metrics(logits, target)
    assert (
        [entry["k"] for entry in result["ensemble"]] == [entry["k"] for entry in result["single"]] == [*range(1, T + 1)]
    )
    for k in range(1, T + 1):
        together = logits[:k].double().sum(0) / k
        assert_same_figures(result["ensemble"][k - 1], reference(together.tolist(), target.tolist()))
        assert_same_figures(result["single"][k - 1], reference(logits[k - 1].double().tolist(), target.tolist()))


def test_one_timestep_alone_is_all_of_them_together():
    result = timestep_metrics(*random_logits(T=1))
    assert result["ensemble"] == result["single"]
    assert len(result["ensemble"]) == 1


def test_all_right_and_sure_costs_nothing():
    logits = torch.full((3, 5, 4), -1e4)
    logits[:, :, 2] = 1e4
    for entry in timestep_metrics(logits, torch.full((5,), 2))["ensemble"]:
        assert entry == {
            "k": entry["k"],
            "accuracy": 1.0,
            "nll": 0.0,
            "ece": 0.0,
            "confidence": 1.0,
            "entropy": 0.0,
            "brier": 0.0,
        }
        assert math.copysign(1.0, entry["nll"]) == 1.0  # not "-0.0" in a file


def test_all_wrong_and_sure_costs_the_whole_gap():
    logits = torch.full((1, 5, 4), -1e4)
    logits[:, :, 2] = 1e4
    entry = timestep_metrics(logits, torch.zeros(5, dtype=torch.int64))["single"][0]
    assert entry == {"k": 1, "accuracy": 0.0, "nll": 2e4, "ece": 1.0, "confidence": 1.0, "entropy": 0.0, "brier": 2.0}


def test_equal_logits_are_a_guess_of_the_first_class():
    entry = timestep_metrics(torch.zeros(2, 8, 4), torch.arange(8) % 4)["ensemble"][1]
    # Class 0 is right for 2 of 8; p = 1/4 everywhere: NLL log 4, Brier (3/4)² + 3 (1/4)² = 3/4, accuracy = confidence.
    expected = {
        "accuracy": 0.25,
        "nll": math.log(4),
        "ece": 0.0,
        "confidence": 0.25,
        "entropy": math.log(4),
        "brier": 0.75,
    }
    assert_same_figures(entry, expected)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # Three equal classes: confidence 1/3 = 5/15, the upper edge of the fifth bin.
    bins = reliability(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert [entry["count"] for entry in bins] == [0] * 4 + [2] + [0] * 10
    assert bins[4] == {"count": 2, "accuracy": 0.5, "confidence": pytest.approx(1 / 3)}
    assert bins[5] == {"count": 0, "accuracy": 0.0, "confidence": 0.0}


def test_certainty_shares_the_last_bin():
    # Confidence 1 and wrong, 0.96 and right: one bin (14/15, 1] with accuracy 0.5 and confidence 0.98, error 0.48.
    # Two bins would make it (|0 - 1| + |1 - 0.96|) / 2 = 0.52, which torchmetrics gives.
    logits = torch.tensor([[200.0, 0.0], [math.log(24.0), 0.0]])
    target = torch.tensor([1, 0])
    bins = reliability(logits, target)
    assert bins[14] == {"count": 2, "accuracy": 0.5, "confidence": pytest.approx(0.98)}
    assert calibration_error(bins) == pytest.approx(0.48)
    assert float(multiclass_calibration_error(logits.softmax(-1), target, 2, n_bins=15)) == pytest.approx(0.52)


def test_calibration_error_agrees_with_torchmetrics_away_from_the_edges():
    logits, target = random_logits(T=3, N=1000)
    for z, entry in zip(logits, timestep_metrics(logits, target)["single"], strict=True):
        theirs = multiclass_calibration_error(z.softmax(-1), target, 10, n_bins=15, norm="l1")
        assert entry["ece"] == pytest.approx(float(theirs), abs=1e-6)


def test_reliability_of_every_k_sums_up_to_the_table():
    logits, target = random_logits()
    bins = timestep_reliability(logits, target)
    assert list(bins) == ["1", "2", "3", "4"]
    for entry, of_k in zip(timestep_metrics(logits, target)["ensemble"], bins.values(), strict=True):
        assert len(of_k) == 15
        assert sum(each["count"] for each in of_k) == 200
        assert sum(each["count"] * each["accuracy"] for each in of_k) / 200 == pytest.approx(entry["accuracy"])
        assert sum(each["count"] * each["confidence"] for each in of_k) / 200 == pytest.approx(entry["confidence"])
        assert calibration_error(of_k) == entry["ece"]


def test_figures_repeat_to_the_bit_on_any_number_of_threads():
    logits, target = random_logits(T=2, N=30_000)
    heldout, heldout_target = random_logits(T=2, N=20_000, seed=1)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3, 1):
            torch.set_num_threads(count)
            figures = timestep_metrics(logits, target), calibrated_metrics(logits, target, heldout, heldout_target)
            found.append(json.dumps(figures))
    finally:
        torch.set_num_threads(threads)
    assert len(set(found)) == 1


def test_figures_are_plain_numbers_and_the_logits_stay_untouched():
    logits, target = random_logits()
    logits = logits.double().requires_grad_()
    before = logits.detach().clone()
    result = timestep_metrics(logits, target)
    calibrated = calibrated_metrics(logits, target, logits, target)
    assert torch.equal(logits, before)
    for entry in (*result["ensemble"], *result["single"], *calibrated):
        assert type(entry["k"]) is int
        assert {type(value) for name, value in entry.items() if name != "k"} == {float}


@pytest.mark.parametrize("temperature", [0.05, 0.4, 1.0, 3.0, 40.0])
def test_a_known_temperature_is_recovered(temperature):
    # Labels drawn from softmax(z): the logits temperature·z are calibrated by exactly that temperature, up to sampling.
    generator = torch.Generator().manual_seed(3)
    z = 2.0 * torch.randn(40_000, 5, generator=generator, dtype=torch.float64)
    target = torch.multinomial(z.softmax(-1), 1, generator=generator).squeeze(1)
    assert fit_temperature(temperature * z, target) == pytest.approx(temperature, rel=0.03)


def test_the_temperature_is_a_minimum_of_the_cross_entropy():
    logits, target = random_logits(T=1, N=500, scale=3.0)
    z = logits[0].double()
    best = fit_temperature(z, target)

    def loss(temperature):
        return float(torch.nn.functional.cross_entropy(z / temperature, target))

    assert best > 1.2  # the case is one that needs softening
    grid = np.geomspace(best / 50, best * 50, 2001)
    assert loss(best) <= min(loss(temperature) for temperature in grid) + 1e-12
    by_hand = torch.tensor(1 / best, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(z * by_hand, target).backward()
    assert abs(float(by_hand.grad)) < 1e-9


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(1e-4, 1e4), shift=st.floats(-1e3, 1e3))
def test_the_temperature_scales_with_the_logits_and_ignores_a_shift(factor, shift):
    logits, target = random_logits(T=1, N=60, C=4, scale=4.0)
    z = logits[0].double()
    assert fit_temperature(factor * (z + shift), target) == pytest.approx(factor * fit_temperature(z, target), rel=1e-7)


def test_samples_that_are_all_right_leave_the_temperature_at_one():
    target = torch.arange(30) % 3
    for gap in (1e-3, 1.0, 1e4):
        assert fit_temperature(gap * torch.nn.functional.one_hot(target, 3).float(), target) == 1.0


def test_equal_logits_leave_the_temperature_at_one():
    assert fit_temperature(torch.full((6, 3), 7.0), torch.arange(6) % 3) == 1.0


def test_logits_worse_than_none_are_softened_until_they_say_nothing():
    logits = 5.0 * torch.nn.functional.one_hot(torch.zeros(8, dtype=torch.int64), 2)
    target = torch.ones(8, dtype=torch.int64)
    temperature = fit_temperature(logits, target)
    # Spread of (±2.5): 2.5; the soft end of the search is 100 times that.
    assert temperature == pytest.approx(250.0)
    assert float((logits / temperature).softmax(-1).max()) < 0.51


def test_calibrated_figures_use_one_temperature_per_k_fitted_on_the_held_out_samples():
    logits, target = random_logits(T=3, N=300, scale=4.0)
    heldout, heldout_target = random_logits(T=3, N=400, scale=4.0, seed=9)
    result = calibrated_metrics(logits, target, heldout, heldout_target)
    raw = timestep_metrics(logits, target)["ensemble"]
    for k, entry in enumerate(result, 1):
        temperature = fit_temperature(heldout[:k].double().mean(0), heldout_target)
        assert entry["temperature"] == pytest.approx(temperature, rel=1e-9)
        expected = reference((logits[:k].double().mean(0) / temperature).tolist(), target.tolist())
        assert expected.pop("accuracy") == pytest.approx(raw[k - 1]["accuracy"])
        assert set(entry) == {"k", "temperature", *expected}
        assert entry["k"] == k
        assert {name: entry[name] for name in expected} == pytest.approx(expected, rel=1e-8)
        assert entry["nll"] < raw[k - 1]["nll"]
    assert len({entry["temperature"] for entry in result}) == 3


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (torch.zeros(5, 3), torch.zeros(5).long(), r"expected floating-point logits \[T, N, C\].*\[5, 3\]"),
        (torch.zeros(2, 5, 3).long(), torch.zeros(5).long(), "expected floating-point logits .* got torch.int64"),
        (torch.zeros(2, 0, 3), torch.zeros(0).long(), r"not empty, got torch.float32 \[2, 0, 3\]"),
        (torch.zeros(2, 5, 3), torch.zeros(4).long(), r"expected integer target \[5\].*\[4\]"),
        (torch.zeros(2, 5, 3), torch.zeros(5), "expected integer target .* got torch.float32"),
        (torch.zeros(2, 5, 3), torch.full((5,), 3), "label 3 at place 0 of the batch is no class: expected 0 to 2"),
        (torch.zeros(2, 5, 3), torch.full((5,), -1), "label -1 at place 0 of the batch is no class: expected 0 to 2"),
        (torch.full((2, 5, 3), math.nan), torch.zeros(5).long(), "30 of 30 .* diverged"),
        (torch.full((2, 5, 3), math.inf), torch.zeros(5).long(), "30 of 30 .* diverged"),
    ],
)
def test_wrong_input_is_refused_with_what_came_and_what_was_expected(logits, target, message):
    for function in (timestep_metrics, timestep_reliability):
        with pytest.raises(ValueError, match=message):
            function(logits, target)


def test_held_out_logits_of_other_timesteps_are_refused():
    logits, target = random_logits(T=3)
    with pytest.raises(ValueError, match=r"same timesteps and classes as \[3, 200, 10\], got \[2, 200, 10\]"):
        calibrated_metrics(logits, target, logits[:2], target)


def test_top_5_by_hand():
    """Ranks of the label in three samples: fourth (three are larger), fifth by its index among equals, and sixth."""
    logits = torch.tensor(
        [
            [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        ]
    )
    found = timestep_metrics(logits[None], torch.tensor([3, 4, 5]))["ensemble"][0]
    assert found["top5_accuracy"] == pytest.approx(2 / 3)
    assert found["accuracy"] == 0.0
    later = torch.stack([logits, -logits])  # of both timesteps together all logits are 0: class 5 is the sixth
    first, second = timestep_metrics(later, torch.tensor([3, 4, 5]))["single"]
    assert second["top5_accuracy"] == pytest.approx(2 / 3), "the order turned round: the label 3 is the fourth again"
    assert first == found
    assert "top5_accuracy" not in timestep_metrics(logits[None, :, :5], torch.tensor([3, 4, 0]))["ensemble"][0]


def test_top_5_is_that_of_torch_where_no_logits_are_equal():
    logits, target = random_logits(T=3)
    logits = torch.cat([logits, logits.flip(-1) + 0.01], -1)
    for k, entry in enumerate(timestep_metrics(logits, target)["ensemble"], 1):
        best = logits[:k].double().mean(0).topk(5).indices
        assert entry["top5_accuracy"] == pytest.approx((best == target[:, None]).any(1).double().mean().item())


def test_balanced_accuracy_by_hand():
    """Of four samples of class 0 three are right, of two of class 2 one is, and class 1 has none: (3/4 + 1/2) / 2."""
    answers, target = torch.tensor([0, 0, 0, 1, 2, 0]), torch.tensor([0, 0, 0, 0, 2, 2])
    logits = torch.nn.functional.one_hot(answers, 3).float()[None]
    assert timestep_metrics(logits, target)["ensemble"][0]["balanced_accuracy"] == pytest.approx(0.625)
    counted = timestep_metrics(logits[:, :5], torch.tensor([0, 0, 0, 2, 2]))["ensemble"][0]  # 3 and 2 samples
    assert "balanced_accuracy" not in counted, "1.5 times as many samples are balanced enough"


def test_temperatures_say_nothing_about_accuracies():
    logits = torch.zeros(1, 6, 6)
    logits[0, :3, 0] = 1.0
    target = torch.tensor([0, 0, 0, 0, 1, 1])
    assert {"top5_accuracy", "balanced_accuracy"} <= timestep_metrics(logits, target)["ensemble"][0].keys()
    (entry,) = calibrated_metrics(logits, target, logits, target)
    assert entry.keys() == {"k", "temperature", "nll", "ece", "confidence", "entropy", "brier"}
