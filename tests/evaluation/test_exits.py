"""Exit policies on stored logits: worked by hand, against loops in plain Python, and what a calibrated threshold promises."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikedistill.evaluation import (
    POLICIES,
    calibrate_each_timestep,
    calibrate_threshold,
    exit_curve,
    exit_times,
)
from spikedistill.evaluation.exits import advance, exit_score


def logits_of(means):
    """Float64 logits `[T, N, C]` whose running means have the given probabilities as softmax."""
    means = torch.tensor(means, dtype=torch.float64).log()
    counts = torch.arange(1, len(means) + 1, dtype=torch.float64).view(-1, 1, 1)
    return (means * counts).diff(dim=0, prepend=torch.zeros_like(means[:1]))


def random_logits(T=4, N=60, C=3, seed=0):
    """Logits of which the correct class grows with time, so that waiting helps most samples."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, C, (N,), generator=generator)
    return torch.randn(T, N, C, generator=generator) + 0.7 * torch.nn.functional.one_hot(targets, C), targets


def scores_by_hand(rows, policy):
    """The scores of one sample's logits `rows[t][c]` after each timestep, and its answers, in plain Python."""
    scores, answers = [], []
    for t in range(1, len(rows) + 1):
        total = [sum(row[c] for row in rows[:t]) for c in range(len(rows[0]))]
        mean = [value / t for value in total]
        judged = total if policy == "sum_confidence" else mean
        weights = [math.exp(value - max(judged)) for value in judged]
        p = sorted((weight / sum(weights) for weight in weights), reverse=True)
        answers.append(mean.index(max(mean)))
        streak = 1
        while streak < t and answers[-1 - streak] == answers[-1]:
            streak += 1
        scores.append(
            {
                "confidence": p[0],
                "sum_confidence": p[0],
                "entropy": 1 + sum(q * math.log(q) for q in p if q > 0) / math.log(len(p)),
                "margin": p[0] - p[1],
                "gap": sorted(total)[-1] - sorted(total)[-2],
                "stability": streak,
            }[policy]
        )
    return scores, answers


def exit_by_hand(scores, threshold):
    return next((t for t, score in enumerate(scores, 1) if score >= threshold), len(scores))


def test_two_samples_worked_by_hand():
    # After timesteps 1, 2, 3 the mean logits give sample 0 the probabilities (.5, .3, .2), (.7, .2, .1), (.9, .05, .05),
    # and sample 1 (.4, .5, .1), (.6, .3, .1), (.6, .2, .2): it changes its answer once.
    logits = logits_of(
        [[[0.5, 0.3, 0.2], [0.4, 0.5, 0.1]], [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], [[0.9, 0.05, 0.05], [0.6, 0.2, 0.2]]]
    )
    assert exit_times(logits, "confidence", 0.5).tolist() == [1, 1]
    assert exit_times(logits, "confidence", 0.65).tolist() == [2, 3]
    # the sums' probabilities are the t-th powers of the means': .5 .49/.54 .729/.729250, and .5 .36/.46 .216/.232
    for threshold, times in [(0.5, [1, 1]), (0.7, [2, 2]), (0.8, [2, 3]), (0.91, [3, 3])]:
        assert exit_times(logits, "sum_confidence", threshold).tolist() == times
    # margins .2 .5 .85 and .1 .3 .4
    assert exit_times(logits, "margin", 0.25).tolist() == [2, 2]
    assert exit_times(logits, "margin", 0.35).tolist() == [2, 3]
    # the gaps of the sums are t log(p1 / p2): .511 2.505 8.671 and .223 1.386 3.296
    assert exit_times(logits, "gap", 0.3).tolist() == [1, 2]
    assert exit_times(logits, "gap", 2.0).tolist() == [2, 3]
    # 1 - H/log 3: H(.5, .3, .2) = 1.0297, H(.7, .2, .1) = 0.8018, H(.4, .5, .1) = 0.9433, H(.6, .3, .1) = 0.8979,
    # log 3 = 1.0986: scores .063 .270 and .141 .183
    assert exit_times(logits, "entropy", 0.1).tolist() == [2, 1]
    assert exit_times(logits, "entropy", 0.25).tolist() == [2, 3]
    # sample 0 never changes its mind: rows of one answer of length 1, 2, 3; sample 1: 1, 1, 2
    assert exit_times(logits, "stability", 1).tolist() == [1, 1]
    assert exit_times(logits, "stability", 2).tolist() == [2, 3]
    for policy in POLICIES:
        assert exit_times(logits, policy, math.inf).tolist() == [3, 3]


def test_a_score_that_equals_the_threshold_exits():
    logits = torch.zeros(2, 1, 4)  # uniform: confidence exactly 1/4, margin and 1 - H / log C exactly 0
    for policy, score in [
        ("confidence", 0.25),
        ("sum_confidence", 0.25),
        ("margin", 0.0),
        ("gap", 0.0),
        ("entropy", 0.0),
    ]:
        assert exit_times(logits, policy, score).tolist() == [1]
        assert exit_times(logits, policy, math.nextafter(score, 1)).tolist() == [2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(POLICIES), st.integers(1, 5), st.integers(2, 4))
def test_exit_times_are_those_of_a_loop_over_samples_and_timesteps(seed, policy, T, C):
    logits, _ = random_logits(T, 7, C, seed)
    for threshold in (1, 2, 3) if policy in ("stability", "gap") else (0.0, 0.2, 0.45, 0.6, 0.9, 1.0):
        expected = [
            exit_by_hand(scores_by_hand(logits[:, n].tolist(), policy)[0], threshold) for n in range(logits.shape[1])
        ]
        assert exit_times(logits, policy, threshold).tolist() == expected


def test_the_sum_is_as_sure_as_seenn_has_it_and_never_less_sure_than_the_mean():
    """Most samples exit at one and the same timestep under both, the others earlier under the sum."""
    logits = torch.randn(4, 500, 10, generator=torch.Generator().manual_seed(0))
    of_seenn = torch.full((500,), 4)
    for t in (3, 2, 1):  # the softmax of what the timesteps add up to
        of_seenn[logits[:t].sum(0).softmax(-1).amax(-1) > 0.6] = t
    of_sum, of_mean = exit_times(logits, "sum_confidence", 0.6), exit_times(logits, "confidence", 0.6)
    assert torch.equal(of_sum, of_seenn)
    assert (of_sum <= of_mean).all()
    assert 0.1 < (of_sum == of_mean).double().mean() < 0.9


@pytest.mark.parametrize("policy", POLICIES)
def test_scores_of_stored_logits_do_not_depend_on_the_samples_beside_them(policy):
    logits, _ = random_logits()
    whole = rows = None
    for t, step in enumerate(logits):
        if t == 2:
            rows = whole.keep(torch.tensor([5, 0]))
        whole = advance(whole, step)
        rows = advance(rows, step[[5, 0]]) if rows is not None else None
    assert torch.equal(exit_score(rows, policy), exit_score(whole, policy)[[5, 0]])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("T", [1, 2, 4])
def test_the_curve_is_what_each_threshold_gives_one_at_a_time(policy, T):
    logits, targets = random_logits(T)
    curve = exit_curve(logits, targets, policy)
    samples = [scores_by_hand(logits[:, n].tolist(), policy) for n in range(logits.shape[1])]
    assert curve.thresholds[-1] == math.inf
    assert torch.all(curve.thresholds.diff() > 0)
    for index, threshold in enumerate(curve.thresholds.tolist()):
        times = exit_times(logits, policy, threshold).tolist()
        right = [answers[t - 1] == y for (_, answers), t, y in zip(samples, times, targets.tolist(), strict=True)]
        assert curve.mean_exit[index].item() == sum(times) / len(times)
        assert curve.accuracy[index].item() == sum(right) / len(right)
        assert curve.active[index].tolist() == [sum(time >= t for time in times) / len(times) for t in range(1, T + 1)]


@pytest.mark.parametrize("policy", POLICIES)
def test_no_useful_threshold_is_missing_from_the_curve(policy):
    logits, targets = random_logits(T=3, N=12)
    curve = exit_curve(logits, targets, policy)
    decisions = {tuple(exit_times(logits, policy, threshold).tolist()) for threshold in curve.thresholds.tolist()}
    highest = 20 if policy == "gap" else 1
    grid = range(1, 9) if policy == "stability" else torch.linspace(0, highest, 2001).tolist()
    assert {tuple(exit_times(logits, policy, threshold).tolist()) for threshold in grid} <= decisions
    assert len(decisions) == len(curve.thresholds), "and none stands there twice"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("max_drop", [0, 0.5, 2, 5.0, 100])
def test_a_threshold_for_a_drop_meets_it_and_no_lower_one_does(policy, max_drop):
    logits, targets = random_logits(N=200)
    curve = exit_curve(logits, targets, policy)
    point = calibrate_threshold(logits, targets, policy, max_drop=max_drop)
    hits, all_hits = round(200 * point.accuracy), round(200 * curve.accuracy[-1].item())
    assert 100 * (all_hits - hits) <= max_drop * 200
    assert point.drop == pytest.approx(100 * (all_hits - hits) / 200)
    assert exit_times(logits, policy, point.threshold).double().mean().item() == point.mean_exit
    for threshold, accuracy in zip(curve.thresholds.tolist(), curve.accuracy.tolist(), strict=True):
        if threshold < point.threshold:
            assert 100 * (all_hits - round(200 * accuracy)) > max_drop * 200


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("max_latency", [1, 1.5, 2.0, 3.3, 4, 9])
def test_a_threshold_for_a_latency_meets_it_and_no_stricter_one_does(policy, max_latency):
    logits, targets = random_logits(N=200)
    curve = exit_curve(logits, targets, policy)
    point = calibrate_threshold(logits, targets, policy, max_latency=max_latency)
    assert exit_times(logits, policy, point.threshold).double().mean().item() == point.mean_exit <= max_latency
    stricter = curve.mean_exit[curve.thresholds > point.threshold]
    assert torch.all(stricter > max_latency)


def test_a_calibrated_threshold_worked_by_hand():
    # Confidences after timestep 1 are .9 .8 .7 .6; samples 2 and 3 are wrong then and right after timestep 2. Waiting for sample 3
    # alone gives 3/4, for both 4/4, so a drop of 25 points allows .7 and a drop of none .8; .6 would lose 50 points.
    first = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]]
    logits, targets = logits_of([first, [[0.9, 0.1]] * 4]), torch.zeros(4, dtype=torch.int64)
    for max_drop, threshold, mean_exit in [(0, 0.8, 1.5), (25, 0.7, 1.25), (49, 0.7, 1.25), (50, 0.6, 1.0)]:
        point = calibrate_threshold(logits, targets, max_drop=max_drop)
        assert (point.threshold, point.mean_exit) == (pytest.approx(threshold), mean_exit)
    # mean exit times of thresholds .6 .7 .8 .9 inf: 1, 1.25, 1.5, 1.75, 2
    assert calibrate_threshold(logits, targets, max_latency=1.6).threshold == pytest.approx(0.8)
    assert calibrate_threshold(logits, targets, max_latency=2).threshold == math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("confident", 0.5),
            "policy is 'confident', expected one of confidence, sum_confidence, entropy, margin, gap, stability",
        ),
        (("confidence", 90), "threshold is 90 under policy 'confidence', whose scores are between 0 and 1"),
        (("entropy", -0.1), "threshold is -0.1 under policy 'entropy', whose scores are between 0 and 1"),
        (("margin", math.nan), "threshold is nan under policy 'margin'"),
        (("gap", -0.1), "threshold is -0.1 under policy 'gap', whose scores are differences of logits, 0 or more"),
        (("gap", [0.5]), "got 1 thresholds, expected one for each of 2 timesteps, or one for all"),
        (("gap", [0.5, -1.0]), "threshold is -1.0 under policy 'gap'"),
        (
            ("gap", torch.tensor([0.5, 1.0])),
            "threshold is a Tensor, expected a number, or a list with one for each timestep",
        ),
        (("gap", np.array([0.5, 1.0])), "threshold is a ndarray, expected a number"),
        (("gap", "ab"), "threshold is a str, expected a number"),
        (("stability", 0), "threshold is 0 under policy 'stability', whose scores are numbers of timesteps, 1 or more"),
    ],
)
def test_wrong_policies_and_thresholds_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        exit_times(torch.zeros(2, 3, 4), *arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (torch.zeros(3, 4), None, r"expected floating-point logits \[T, N, C\], not empty, got torch.float32 \[3, 4\]"),
        (torch.zeros(2, 3, 4).long(), None, "expected floating-point logits"),
        (torch.full((2, 3, 4), math.nan), None, "expected finite logits, got 24 of 24 that are not"),
        (torch.zeros(2, 3, 1), None, r"of 2 classes or more, got \[2, 3, 1\]"),
        (torch.zeros(2, 3, 4), torch.zeros(2).long(), r"expected integer target \[3\] for logits \[2, 3, 4\]"),
        (torch.zeros(2, 3, 4), torch.full((3,), 4), "label 4 at place 0 of the batch is no class: expected 0 to 3"),
    ],
)
def test_wrong_logits_and_targets_are_refused(logits, targets, message):
    with pytest.raises(ValueError, match=message):
        exit_times(logits, "margin", 0.5) if targets is None else exit_curve(logits, targets, "margin")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "max_drop=None and max_latency=None: expected exactly one of the two targets"),
        ({"max_drop": 1, "max_latency": 2}, "max_drop=1 and max_latency=2: expected exactly one"),
        ({"max_drop": -1}, "max_drop is -1, expected percentage points of accuracy, 0 or more"),
        ({"max_drop": math.nan}, "max_drop is nan"),
        ({"max_latency": 0.5}, "max_latency is 0.5, expected a mean number of timesteps, 1 or more"),
    ],
)
def test_wrong_targets_of_calibration_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        calibrate_threshold(*random_logits(), **target)


# A threshold for each timestep


def test_a_sample_exits_at_the_first_timestep_whose_own_threshold_it_meets():
    # confidences of sample 0 are .5 .7 .9 after timesteps 1 to 3, of sample 1 .6 .6 .6
    logits = logits_of([[[0.5, 0.5], [0.6, 0.4]], [[0.7, 0.3], [0.6, 0.4]], [[0.9, 0.1], [0.6, 0.4]]])
    assert exit_times(logits, "confidence", [0.55, 0.65, 0.0]).tolist() == [2, 1]
    assert exit_times(logits, "confidence", (math.inf, 0.5, 0.0)).tolist() == [2, 2]
    assert exit_times(logits, "confidence", [0.9, 0.9, 1.0]).tolist() == [3, 3], "at the end all do"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(POLICIES))
def test_thresholds_that_are_all_one_are_that_one(seed, policy):
    logits, _ = random_logits(seed=seed)
    threshold = 2 if policy == "stability" else 0.4
    assert torch.equal(exit_times(logits, policy, [threshold] * 4), exit_times(logits, policy, threshold))


def test_thresholds_of_timesteps_worked_by_hand():
    # Gaps after timestep 1 are 4 3 2 1, after 2 they are 8 6 4 2; the class is 0. Sample 1 is wrong at both, sample 2 only later.
    first = [[4.0, 0.0], [0.0, 3.0], [2.0, 0.0], [1.0, 0.0]]
    total = [[8.0, 0.0], [0.0, 6.0], [0.0, 4.0], [2.0, 0.0]]
    logits = torch.tensor(
        [first, [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(first, total, strict=True)]]
    )
    targets = torch.zeros(4, dtype=torch.int64)
    # from 4 on all are settled; from 3 on one of 2 is not, from 2 on two of 3, from 1 on two of 4
    assert calibrate_each_timestep(logits, targets).thresholds == (4, 8)
    assert calibrate_each_timestep(logits, targets, max_error=0.5).thresholds == (1, 2)
    found = calibrate_each_timestep(logits, targets, max_error=0.4)
    assert found.thresholds == (4, 8)
    assert (found.accuracy, found.mean_exit, found.drop) == (0.5, 1.75, 0.0)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("max_error", [0.0, 0.1, 0.3])
def test_of_the_samples_that_meet_a_threshold_few_are_unsettled_and_a_lower_one_would_let_more_in(policy, max_error):
    logits, targets = random_logits(N=80)
    found = calibrate_each_timestep(logits, targets, policy, max_error=max_error)
    samples = [scores_by_hand(logits[:, n].tolist(), policy) for n in range(80)]

    def unsettled(t, threshold):
        met = [n for n, (scores, _) in enumerate(samples) if scores[t] >= threshold]
        return sum(any(a != targets[n] for a in samples[n][1][t:]) for n in met) / max(len(met), 1)

    for t, threshold in enumerate(found.thresholds):
        assert unsettled(t, threshold) <= max_error + 1e-9
        lower = sorted({scores[t] for scores, _ in samples if scores[t] < threshold - 1e-9})
        assert all(unsettled(t, each) > max_error for each in lower)
    times = exit_times(logits, policy, found.thresholds)
    assert found.mean_exit == times.double().mean().item()
    right = [samples[n][1][t - 1] == targets[n] for n, t in enumerate(times.tolist())]
    assert found.accuracy == pytest.approx(sum(right) / 80)


def test_samples_whose_sequence_has_ended_do_not_move_the_threshold_of_a_timestep():
    logits, targets = random_logits(N=80)
    lengths = torch.randint(1, 5, (80,), generator=torch.Generator().manual_seed(1))
    found = calibrate_each_timestep(logits, targets, max_error=0.2, lengths=lengths)
    for t in (1, 2, 3):
        running = lengths > t
        # held at its last prediction, a shorter sequence is one of all timesteps
        held = logits[:, running].double()
        for n, end in enumerate(lengths[running]):
            held[end:, n] = held[:end, n].mean(0)
        alone = calibrate_each_timestep(held, targets[running], max_error=0.2)
        assert found.thresholds[t - 1] == pytest.approx(alone.thresholds[t - 1])
    assert found.thresholds[3] == math.inf, "where all have ended no threshold is needed"
    assert found.mean_exit <= lengths.double().mean()


def test_where_no_threshold_is_safe_samples_wait():
    logits, targets = torch.tensor([[[5.0, 0.0]], [[5.0, 0.0]]]), torch.ones(1, dtype=torch.int64)  # it is never right
    found = calibrate_each_timestep(logits, targets)
    assert found.thresholds == (math.inf, math.inf)
    assert exit_times(logits, "gap", found.thresholds).tolist() == [2]
    with pytest.raises(ValueError, match=r"max_error is 1\.5, expected a share of the samples that exit"):
        calibrate_each_timestep(logits, targets, max_error=1.5)
