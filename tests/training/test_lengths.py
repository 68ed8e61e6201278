"""Recordings of different length in one batch: the padding after a shorter one changes nothing."""

import math

import numpy as np
import pytest
import torch
from quick_runs import quick
from torch import nn
from torch.utils.data import Dataset as TorchDataset

from spikedistill import LIF, UserError, evaluate, load, temporal, train
from spikedistill.config import DataConfig, ModelConfig
from spikedistill.data import Dataset, Recording, TensorSamples, from_torch, lengths_of, load_dataset, of_one_length
from spikedistill.data.recordings.frames import frames_filled, frames_of
from spikedistill.evaluation import AnytimeClassifier, calibrate_threshold, collect_logits, exit_curve, exit_times
from spikedistill.evaluation.timesteps import timestep_metrics
from spikedistill.objectives import create_objective, list_objectives
from spikedistill.objectives.submodels import held_after
from spikedistill.recipes.settings import from_words
from spikedistill.run_folder import RunFolder
from spikedistill.through_time import mean_rate
from spikedistill.through_time.features import outputs_of
from spikedistill.training.inputs import AtHand, inputs_of
from spikedistill.training.plan import make_plan
from spikedistill.training.teacher import Teacher

LENGTHS = torch.tensor([2, 4, 1, 3])


def network(width: int = 3, side: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1),
        nn.BatchNorm2d(width),
        LIF(),
        nn.Conv2d(width, width, 3, padding=1, stride=2),
        nn.BatchNorm2d(width),
        LIF(),
        nn.Flatten(),
        nn.Linear(width * (side // 2) ** 2, 3),
    )


def frames(timesteps: int, side: int = 6) -> torch.Tensor:
    """Counts `[T, B, 2, side, side]` of four recordings."""
    return torch.poisson(torch.ones(timesteps, 4, 2, side, side), generator=torch.Generator().manual_seed(1)) * 2


def ran(net: nn.Module, x: torch.Tensor, gradient: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits at the timesteps that are there, and then the gradients and running statistics."""
    model = temporal(net, gradient=gradient).train()
    logits = model(x, lengths=LENGTHS)
    present = torch.arange(len(x))[:, None] < LENGTHS
    (logits[present] * torch.linspace(-1, 1, 3)).square().sum().backward()
    state = [parameter.grad for parameter in net.parameters()] + [buffer.clone() for buffer in net.buffers()]
    return logits[present].detach(), state


@pytest.mark.parametrize("gradient", ["bptt", "sltt"])
@pytest.mark.parametrize(("width", "side"), [(3, 6), (32, 24)])
def test_padding_reaches_neither_logits_nor_gradients_nor_statistics(gradient, width, side):
    x, longer = frames(4, side), frames(6, side)
    for b, length in enumerate(LENGTHS):
        longer[:length, b] = x[:length, b]
        x[length:, b] = 0
    first, second = network(width, side), network(width, side)
    ours, theirs = ran(first, x, gradient), ran(second, longer, gradient)
    assert ours[0].std() > 0.01
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_batch_norm_takes_its_statistics_over_what_is_there():
    net = nn.Sequential(nn.BatchNorm2d(2, momentum=1.0))
    x = frames(4).double()
    temporal(net.double()).train()(x, lengths=LENGTHS)
    there = torch.cat([x[:length, b] for b, length in enumerate(LENGTHS)])
    torch.testing.assert_close(net[0].running_mean, there.mean((0, 2, 3)))
    torch.testing.assert_close(net[0].running_var, there.transpose(0, 1).flatten(1).var(1))


def test_means_over_time_are_over_the_timesteps_of_each_sample():
    net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(2 * 36, 3))
    x = frames(4)
    with outputs_of(net, ("0",)) as outputs:
        temporal(net)(x, lengths=LENGTHS)
    for b, length in enumerate(LENGTHS):
        torch.testing.assert_close(mean_rate(outputs["0"])[b], x[:length, b].mean(0))


@pytest.mark.parametrize(
    ("gradient", "lengths", "timesteps", "words"),
    [
        ("rate", LENGTHS, None, "use bptt or sltt"),
        ("bptt", LENGTHS[:3], None, "expected the timesteps of each sample"),
        ("bptt", LENGTHS + 1, None, "from 1 to T"),
        ("bptt", LENGTHS.float(), None, "int64"),
        ("bptt", LENGTHS, 4, "a static input"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(gradient, lengths, timesteps, words):
    x = frames(4)
    model = temporal(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), gradient=gradient)
    with pytest.raises(UserError, match=words):
        model(x if timesteps is None else x[0], timesteps, lengths)


# Objectives

SIMPLE = [
    name
    for name in list_objectives()
    if create_objective(name).submodels == "timesteps" and not create_objective(name).needs_features
]


@pytest.mark.parametrize("name", SIMPLE)
def test_an_objective_is_the_mean_over_samples_as_if_each_length_were_alone(name):
    objective = create_objective(name)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 8, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(5, (8,), generator=generator)
    lengths = torch.tensor([4, 2, 4, 3, 2, 4, 1, 3])
    teacher = Teacher(lambda images: images.flatten(1)[:, :5], 5) if objective.needs_teacher else None
    seen = torch.rand(4, 8, 2, 2, 2, generator=generator, dtype=torch.float64)

    def value(z: torch.Tensor, x: torch.Tensor, rows: torch.Tensor, L: torch.Tensor | None) -> torch.Tensor:
        at = AtHand(objective=objective, teacher=teacher, kind="events", inputs=x, target=target[rows], submodels=z,
                    features=[], lengths=L, progress=0.5, firing_rates=torch.tensor([0.1]), network=network())  # fmt: skip
        torch.manual_seed(0)
        parts = [(share, objective(part.submodels, part.target, **inputs_of(part)).total)
                 for share, part in at.of_each_length()]  # fmt: skip
        return sum(share * total for share, total in parts)

    everyone = torch.arange(8)
    garbage, padded = logits.clone(), logits.clone().requires_grad_()
    empty = seen.clone()
    for b, length in enumerate(lengths):
        garbage[length:, b], empty[length:, b] = 1e3, 0
    total = value(padded, empty, everyone, lengths)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(padded.grad).all()
    assert total.item() == value(garbage, empty, everyone, lengths).item()
    assert not padded.grad[torch.arange(4)[:, None] >= lengths].any()
    alone = 0.0
    for length in (1, 2, 3, 4):
        rows = (lengths == length).nonzero().flatten()
        alone += len(rows) / 8 * value(logits[:length, rows], seen[:length, rows], rows, None).item()
    assert total.item() == pytest.approx(alone, abs=1e-12 if "sltt-k" not in name else math.inf)


# Evaluation and early exit


def test_a_sample_keeps_the_answer_it_had_at_its_end():
    logits = torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]], [[9.0, 0.0]]])
    held = held_after(logits, torch.tensor([2]))
    torch.testing.assert_close(held[:, 0], torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.5, 1.5]]))
    scores = timestep_metrics(logits.repeat(1, 2, 1), torch.tensor([1, 0]), torch.tensor([2, 3]))
    assert [row["accuracy"] for row in scores["ensemble"]] == [0.5, 0.5, 1.0]
    assert [row["accuracy"] for row in scores["single"]] == [0.5, 0.5, 1.0]  # of the third timestep one sample


@pytest.mark.parametrize("policy", ["confidence", "sum_confidence", "entropy", "margin", "gap", "stability"])
def test_early_exit_is_that_of_each_sample_alone(policy):
    logits = torch.randn(6, 40, 4, generator=torch.Generator().manual_seed(3)) * 2
    lengths = torch.arange(40) % 6 + 1
    target = torch.arange(40) % 4
    threshold = 3 if policy == "stability" else 0.8
    times = exit_times(logits, policy, threshold, lengths)
    assert torch.equal(times, exit_times(logits, policy, threshold, lengths.numpy()))
    with pytest.raises(UserError, match="from 1 to 6"):
        timestep_metrics(logits, torch.arange(40) % 4, lengths + 1)
    alone = [int(exit_times(logits[:L, b : b + 1], policy, threshold)) for b, L in enumerate(lengths)]
    assert times.tolist() == alone
    curve = exit_curve(logits, target, policy, lengths)
    assert curve.thresholds[-1] == math.inf
    assert float(curve.mean_exit[-1]) == pytest.approx(float(lengths.double().mean()))
    for index in range(0, len(curve.thresholds), 7):
        found = exit_times(logits, policy, float(curve.thresholds[index]), lengths)
        means = logits.double().cumsum(0)[found - 1, torch.arange(40)]
        assert float(curve.mean_exit[index]) == pytest.approx(float(found.double().mean()))
        assert float(curve.accuracy[index]) == pytest.approx(float((means.argmax(-1) == target).double().mean()))
    everyone = calibrate_threshold(logits, target, policy, max_latency=1.0, lengths=lengths)
    assert everyone.mean_exit == 1


def test_the_classifier_reads_no_padding():
    net = network()
    x = frames(4)
    model = temporal(net).eval()
    poisoned = x.clone()
    for b, length in enumerate(LENGTHS):
        poisoned[length:, b] = 1e6
    classifier = AnytimeClassifier(model, "confidence", math.inf, 4)
    found, expected = classifier(poisoned, LENGTHS), model(x)
    assert found.exit_times.tolist() == LENGTHS.tolist()
    for b, length in enumerate(LENGTHS):
        torch.testing.assert_close(found.logits[b].float(), expected[:length, b].mean(0))
    point = classifier.calibrate([(poisoned, torch.tensor([0, 1, 2, 0]), LENGTHS)], max_latency=1.0)
    assert point.mean_exit == 1
    with pytest.raises(UserError, match="lengths"):
        classifier(x, LENGTHS + 4)


# Whole runs


def recordings(timesteps: int, count: int = 60, seed: int = 0) -> TensorSamples:
    """Three classes of moving dots, 1 to 4 frames long, padded to T frames."""
    dice = np.random.default_rng(seed)
    data, lengths = torch.zeros(count, timesteps, 2, 8, 8), torch.from_numpy(dice.integers(1, 5, count))
    for k in range(count):
        for t in range(int(lengths[k])):
            data[k, t, k % 2, (k % 3 * 3 + t) % 8, dice.integers(0, 8, 5)] = 3.0
    return TensorSamples(data, torch.arange(count) % 3, lengths)


def dataset(timesteps: int) -> Dataset:
    parts = {name: recordings(timesteps, seed=seed) for seed, name in enumerate(("train", "test"))}
    return Dataset(name="dots", **parts, classes=("a", "b", "c"), mean=(0.0, 0.0), std=(1.0, 1.0), kind="events",
                   channels=2, size=(8, 8))  # fmt: skip


def run_of(tmp_path, recipe: str, timesteps: int, **changes):
    model = ModelConfig(name="convnet", width=0.25)
    return quick(recipe, timesteps=timesteps, data=DataConfig(batch_size=16), out=tmp_path / str(timesteps), epochs=2,
                 model=model, **changes)  # fmt: skip


@pytest.mark.parametrize("recipe", ["digits-twce-twsd", "digits-s2w-w2s"])
def test_a_run_does_not_depend_on_how_far_recordings_are_padded(tmp_path, recipe):
    folders = [RunFolder(train(run_of(tmp_path, recipe, T), data=dataset(T))) for T in (4, 6)]
    networks = [load(folder.path).state_dict() for folder in folders]
    for name, tensor in networks[0].items():
        torch.testing.assert_close(networks[1][name], tensor, rtol=1e-5, atol=1e-6)
    results = [evaluate(folder.path, dataset(T)) for folder, T in zip(folders, (4, 6), strict=True)]
    short, long = (result["last"]["ensemble"] for result in results)
    assert [row["accuracy"] for row in long[:4]] == [row["accuracy"] for row in short]
    assert long[5]["accuracy"] == short[3]["accuracy"]
    policies = [result["deployment"]["policies"]["confidence"][-1] for result in results]
    lengths = recordings(4, seed=1).lengths.double()
    for point in policies:
        assert point["mean_exit"] == pytest.approx(float(lengths.mean()))
    rows = [folder.read_rows(folder.metrics)[-1] for folder in folders]
    assert rows[0]["train_accuracy"] == rows[1]["train_accuracy"]
    assert float(rows[0]["train_loss"]) == pytest.approx(float(rows[1]["train_loss"]), rel=1e-5)
    assert folders[1].report.is_file()


def test_every_way_to_evaluate_runs_samples_without_their_padding(tmp_path):
    data = dataset(4)
    model = load(train(run_of(tmp_path, "digits-sce", 4), data=data))
    logits = collect_logits(model, data.test, "events", 4, batch_size=7)
    for k in (0, 17, 59):
        length = int(data.test.lengths[k])
        alone = model(data.test.data[k : k + 1, :length].transpose(0, 1))[:, 0]
        torch.testing.assert_close(logits[:length, k], alone, rtol=1e-5, atol=1e-5)
    found = evaluate(model, data, out=tmp_path / "out")
    by_logits = evaluate(logits, data.test.targets)["last"]
    assert [row["accuracy"] for row in found["last"]["ensemble"]] == [row["accuracy"] for row in by_logits["ensemble"]]
    assert found["deployment"]["policies"]["margin"][-1]["mean_exit"] == pytest.approx(
        float(data.test.lengths.double().mean())
    )


def test_what_would_count_padding_is_refused_before_training(tmp_path):
    for changes, words in (
        ({"gradient": "rate"}, "use bptt or sltt"),
        ({"data": DataConfig(batch_size=16, mix="mixup")}, "mix a recording with padding"),
        ({"model": ModelConfig(name="convnet", norm="timestep_batch")}, "statistics leave padding out"),
    ):
        config = run_of(tmp_path, "digits-sce", 4).model_copy(update=changes)
        with pytest.raises(UserError, match=words):
            make_plan(config, data=dataset(4))
    start = train(run_of(tmp_path / "start", "digits-sce", 4), data=dataset(4))
    config = run_of(tmp_path, "digits-sce", 4, init_from=start, init_membranes=True)
    with pytest.raises(UserError, match="whose padding it would count"):
        make_plan(config, data=dataset(4))


def write_folder(root, lengths) -> None:
    for split in ("train", "test"):
        for k, length in enumerate(lengths):
            counts = np.zeros((length, 2, 8, 8), np.uint8)
            counts[:, k % 2, k % 8] = np.arange(1, length + 1)[:, None]
            place = root / split / ("left", "right")[k % 2]
            place.mkdir(parents=True, exist_ok=True)
            np.savez(place / f"{k:02}.npz", frames=counts)


def test_a_folder_of_recordings_of_different_length_is_padded_if_asked(tmp_path):
    write_folder(tmp_path, [3, 5, 2, 4])
    data = load_dataset("event_frames", tmp_path, options={"pad": True})
    assert data.train.lengths.tolist() == [3, 2, 5, 4]  # left, then right
    first = data.train.inputs(torch.tensor([1]))[0]
    assert first.shape == (5, 2, 8, 8)
    assert first.amax((1, 2, 3)).tolist() == [1, 2, 0, 0, 0]
    assert data.describe()[0] == "recordings of 2 to 5 frames are padded to 5"
    cut = load_dataset("event_frames", tmp_path, timesteps=3, options={"pad": True})
    assert cut.train.lengths.tolist() == [3, 2, 3, 3]
    assert cut.describe()[0] == "recordings of 2 to 5 frames are padded to 3, and 4 of them cut after it"
    with pytest.raises(UserError, match="other files have"):
        load_dataset("event_frames", tmp_path).train.inputs(torch.tensor([0, 2]))
    settings = from_words("event_frames-sce", ["--data.root", str(tmp_path), "--data.options.pad"])
    assert settings.timesteps == 5
    (tmp_path / "train" / "left" / "02.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"02\.npz"):
        load_dataset("event_frames", tmp_path, options={"pad": True}).train.inputs(torch.tensor([0, 1]))


def test_frames_of_a_fixed_duration_end_with_the_recording():
    time = np.array([5, 9, 12, 31, 44]) * 1000
    place = np.zeros(5, np.uint16)
    recording = Recording(place, place, np.ones(5, np.uint8), time, (1, 1))
    assert frames_filled(recording, 8, 10) == 4  # the last event is 39 ms after the first
    assert frames_filled(recording, 3, 10) == 3
    assert frames_of(recording, 8, "duration", (1, 1), 10)[:, 1, 0, 0].tolist() == [3, 0, 1, 1, 0, 0, 0, 0]
    assert frames_filled(recording, 8, 39) == 2


class Clips(TorchDataset):
    """Samples of a user, each as long as it is."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.targets = [k % 2 for k in range(len(lengths))]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, k: int):
        return torch.full((self.lengths[k], 2, 4, 4), float(k + 1)), self.targets[k]


def test_a_data_set_of_pytorch_brings_its_lengths():
    train_lengths, test_lengths = [2, 3, 1, 3], [1, 2]
    data = from_torch(Clips(train_lengths), Clips(test_lengths), lengths=(train_lengths, test_lengths))
    assert data.train.inputs(torch.tensor([0, 1])).shape == (2, 3, 2, 4, 4)
    assert data.train.inputs(torch.tensor([2]))[0, :, 0, 0, 0].tolist() == [3.0, 0.0, 0.0]
    assert lengths_of(data.train.subset(torch.tensor([1, 2]))).tolist() == [3, 1]
    shown = [(places.tolist(), inputs.shape[1]) for places, inputs in of_one_length(data.train, 2)]
    assert shown == [([2], 1), ([0], 2), ([1, 3], 3)]
    with pytest.raises(UserError, match="lengths=\\(train, test\\)"):
        from_torch(Clips(train_lengths), Clips(test_lengths)).train.inputs(torch.tensor([1]))
    with pytest.raises(UserError, match="its length says"):
        from_torch(Clips(train_lengths), Clips(test_lengths), lengths=([2, 2, 1, 3], [1, 2])).train.inputs(
            torch.tensor([1])
        )
    for wrong in (([2, 3], [1, 2]), ([2, 3, 0, 3], [1, 2]), ([2, 3, 1, 3],), (["a"], [1, 2])):
        with pytest.raises(UserError, match="the frames of each of the 4"):
            from_torch(Clips(train_lengths), Clips(test_lengths), lengths=wrong)
