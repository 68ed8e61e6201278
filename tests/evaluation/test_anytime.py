"""Early exit that exits: the stream against the replay of its own logits, and what the layers get to see."""

import math

import pytest
import torch
from torch import nn

from spikedistill import LIF, create_model, temporal
from spikedistill.evaluation import POLICIES, AnytimeClassifier, exit_curve, exit_times
from spikedistill.evaluation.exits import advance, exit_score

T, B = 5, 24


@pytest.fixture(scope="module", params=["images", "frames"])
def case(request):
    """A network whose samples differ in how sure they make it, its inputs, and its logits over T timesteps."""
    torch.manual_seed(0)
    images = request.param == "images"
    model = create_model("convnet", num_classes=4, in_channels=1 if images else 2, image_size=8, width=0.5)
    x = torch.rand(B, 1, 8, 8) if images else torch.rand(T, B, 2, 8, 8).mul(2).floor()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(2.0)  # enough current for spikes in every layer at the first timestep
        for _ in range(20):
            model(x, T if images else None)  # running statistics
        model.module.head.weight *= 6.0
        model.eval()
        return model, x, model(x, T if images else None)


def score_of(logits, policy):
    progress, scores = None, []
    for step in logits:
        progress = advance(progress, step)
        scores.append(exit_score(progress, policy))
    return torch.stack(scores)


@pytest.mark.parametrize("policy", POLICIES)
def test_stream_and_replay_decide_alike_sample_by_sample(case, policy):
    model, x, logits = case
    scores = score_of(logits, policy)
    for threshold in [*exit_curve(logits, torch.zeros(B).long(), policy).thresholds[::9].tolist(), math.inf]:
        out = AnytimeClassifier(model, policy, threshold, T)(x)
        expected = exit_times(logits, policy, threshold)
        # a sample may decide otherwise only where rounding decides
        sure = (scores[:-1] - threshold).abs().amin(0) > 1e-5
        if policy == "stability":
            top = logits.cumsum(0).topk(2, dim=-1).values
            sure = (top[..., 0] - top[..., 1]).amin(0) > 1e-4
        assert sure.float().mean() > 0.8
        assert torch.equal(out.exit_times[sure], expected[sure])
        means = torch.stack([logits[:t, n].double().mean(0) for n, t in enumerate(out.exit_times.tolist())])
        torch.testing.assert_close(out.logits, means, rtol=0, atol=1e-5)
        assert torch.equal(out.predictions, out.logits.argmax(-1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler
def test_compiled_steps_decide_as_the_plain_ones(case):
    model, x, logits = case
    curve = exit_curve(logits, torch.zeros(B).long(), "confidence")
    threshold = curve.thresholds[len(curve.thresholds) // 2].item()
    plain = AnytimeClassifier(model, "confidence", threshold - 1e-6, T)(x)
    compiled = AnytimeClassifier(model, "confidence", threshold - 1e-6, T, compiled=True)(x)
    assert torch.equal(compiled.exit_times, plain.exit_times)
    torch.testing.assert_close(compiled.logits, plain.logits, rtol=0, atol=1e-5)


def test_samples_exit_at_different_times_so_that_the_comparison_means_something(case):
    model, x, logits = case
    for policy in POLICIES:
        curve = exit_curve(logits, torch.zeros(B).long(), policy)
        middle = curve.thresholds[len(curve.thresholds) // 2].item()
        assert len(AnytimeClassifier(model, policy, middle, T)(x).exit_times.unique()) >= 3, policy


def test_the_convolutions_see_only_the_samples_that_are_left(case):
    model, x, logits = case
    curve = exit_curve(logits, torch.zeros(B).long(), "confidence")
    threshold = curve.thresholds[len(curve.thresholds) // 2].item() + 1e-4
    convolution, rows = model.module.features[2][0], []
    handle = convolution.register_forward_hook(lambda layer, inputs, output: rows.append(inputs[0].shape[0]))
    out = AnytimeClassifier(model, "confidence", threshold, T)(x)
    handle.remove()
    expected = [(out.exit_times >= t).sum().item() for t in range(1, T + 1)]
    assert rows == [count for count in expected if count]
    assert rows[0] == B > rows[-1]
    assert sum(rows) == out.exit_times.sum()


def test_nothing_more_is_computed_once_all_have_left(case):
    model, x, _ = case
    rows = []
    handle = model.module.head.register_forward_hook(lambda layer, inputs, output: rows.append(inputs[0].shape[0]))
    assert AnytimeClassifier(model, "confidence", 0.0, T)(x).exit_times.tolist() == [1] * B
    handle.remove()
    assert rows == [B]


def test_no_more_timesteps_are_taken_than_allowed_or_than_there_are_frames(case):
    model, x, logits = case
    out = AnytimeClassifier(model, "margin", math.inf, 2)(x)
    assert out.exit_times.tolist() == [2] * B
    torch.testing.assert_close(out.logits, logits[:2].double().mean(0), rtol=0, atol=1e-5)
    if x.ndim == 5:
        assert AnytimeClassifier(model, "margin", math.inf, 9)(x).exit_times.tolist() == [T] * B


class Counter(nn.Module):
    """Two classes, of which class 0 gets the pixel's value at every timestep through an integrator: logits (spikes, 0.25)."""

    def __init__(self):
        super().__init__()
        self.neuron = LIF(decay=1.0)

    def forward(self, x):
        spikes = self.neuron(x.flatten(1))
        return torch.cat([spikes, 0.25 + 0.0 * spikes], 1)


def test_exit_times_of_an_integrator_worked_by_hand():
    # Currents 1, 0.5 and 0.25 fire first at timesteps 1, 2 and 4. Before that the mean logits are (0, .25) and the answer 1;
    # current 1: mean 1, answer 0 from timestep 1. Current .5: means 0, 1/2, 1/3, 1/2: answer 0 from timestep 2. Current .25: means
    # 0, 0, 0, 1/4, a tie, which goes to class 0. Streaks: 1 2 3 4; 1 1 2 3; 1 2 3 1.
    x = torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1, 1)
    classifier = AnytimeClassifier(temporal(Counter()), "stability", 2, 4)
    out = classifier(x)
    assert out.exit_times.tolist() == [2, 3, 2]
    assert out.predictions.tolist() == [0, 0, 1]
    assert out.logits[:, 0].tolist() == [1.0, pytest.approx(1 / 3), 0.0]
    classifier.threshold = 4
    assert classifier(x).exit_times.tolist() == [4, 4, 4]
    assert classifier(x).predictions.tolist() == [0, 0, 0]
    # sigmoid(mean difference): .25 -> .562; .75 -> .679; sample 1 after 2: sigmoid(.25)
    assert AnytimeClassifier(temporal(Counter()), "confidence", 0.6, 4)(x).exit_times.tolist() == [1, 4, 4]
    assert AnytimeClassifier(temporal(Counter()), "confidence", 0.56, 4)(x).exit_times.tolist() == [1, 1, 1]


@pytest.mark.parametrize("target", [{"max_drop": 10.0}, {"max_latency": 2.0}])
@pytest.mark.parametrize("policy", POLICIES)
def test_calibration_over_a_loader_meets_the_target_in_the_stream(case, policy, target):
    model, x, logits = case
    targets = logits.mean(0).argmax(-1)
    parts = torch.arange(B).split(7)
    loader = [(x[i] if x.ndim == 4 else x[:, i], targets[i]) for i in parts]
    classifier = AnytimeClassifier(model, policy, math.inf, T)
    point = classifier.calibrate(loader, **target)
    assert classifier.threshold == point.threshold
    classifier.threshold -= 1e-6 * (policy != "stability")  # one sample lies on the threshold itself
    out = classifier(x)
    assert out.exit_times.double().mean().item() == pytest.approx(point.mean_exit, abs=1.5 / B)
    if "max_drop" in target:
        assert (out.predictions == targets).double().mean() >= 0.9 - 1.5 / B
        assert point.drop <= 10
        assert point.mean_exit < T or policy == "stability"
    else:
        assert point.mean_exit <= 2


def test_calibration_in_training_mode_changes_no_running_statistics(case):
    model, x, _ = case
    before = {name: value.clone() for name, value in model.state_dict().items()}
    classifier = AnytimeClassifier(model, "confidence", math.inf, T)
    model.train()
    classifier.calibrate([(x, torch.zeros(B).long())], max_latency=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_a_network_without_state_can_exit_too():
    twin = create_model("convnet", num_classes=4, in_channels=1, image_size=8, width=0.25, neuron="relu")
    x = torch.rand(6, 1, 8, 8)
    assert AnytimeClassifier(twin, "stability", 2, 4)(x).exit_times.tolist() == [2] * 6


def test_a_network_whose_state_has_other_rows_than_samples_is_refused():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron, self.head = LIF(), nn.Linear(8, 3)

        def forward(self, x):
            left, right = self.neuron(torch.cat(x.chunk(2, dim=3), 0)).flatten(1).chunk(2, dim=0)
            return self.head(left + right)

    classifier = AnytimeClassifier(temporal(Halves()), "confidence", 0.9, 3)
    with pytest.raises(ValueError, match="layer 'neuron' keeps 4 rows of state for 2 samples"):
        classifier(torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            torch.zeros(2, 8, 8),
            r"got torch.float32 \[2, 8, 8\], expected floating-point images \[B, C, H, W\], or event",
        ),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "images of 0 to 255 are divided by 255 first"),
        (torch.zeros(0, 1, 8, 8), r"got torch.float32 \[0, 1, 8, 8\]"),
        (torch.zeros(2, 3, 8, 8), r"got an input \[2, 3, 8, 8\] with timesteps=2; expected \[B, 1, 8, 8\]"),
        (torch.zeros(4, 2, 2, 8, 8), r"got an input \[2, 2, 2, 8, 8\] with timesteps=None"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, message):
    model = create_model("convnet", num_classes=4, in_channels=1, image_size=8, width=0.25)
    with pytest.raises(ValueError, match=message) as error:
        AnytimeClassifier(model, "confidence", 0.9, 2)(x)
    assert "\n" not in str(error.value)


def test_wrong_settings_are_refused():
    model = temporal(Counter())
    with pytest.raises(ValueError, match="model is a Counter, expected a network from load, create_model or temporal"):
        AnytimeClassifier(Counter(), "confidence", 0.9, 2)
    with pytest.raises(ValueError, match="policy is 'sure', expected one of"):
        AnytimeClassifier(model, "sure", 0.9, 2)
    with pytest.raises(ValueError, match="threshold is 90 under policy 'confidence'"):
        AnytimeClassifier(model, "confidence", 90, 2)
    with pytest.raises(ValueError, match="max_timesteps is 0, expected 1 or more"):
        AnytimeClassifier(model, "confidence", 0.9, 0)
    with pytest.raises(ValueError, match=r"the loader gave no batch"):
        AnytimeClassifier(model, "confidence", 0.9, 2).calibrate([], max_drop=1)
    with pytest.raises(ValueError, match=r"the network returned .* expected logits"):
        AnytimeClassifier(temporal(LIF()), "confidence", 0.9, 2)(torch.rand(2, 1, 4, 4))
