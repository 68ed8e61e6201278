"""Accuracy at every k as a metric of torchmetrics: by hand, against evaluation, over processes, in Lightning."""

import pickle

import lightning
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric

from spikedistill.evaluation import AccuracyAtEveryK, evaluate

T, N, C = 4, 61, 5


def case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (N,), generator=generator)
    noise = torch.randn(T, N, C, generator=generator)
    return noise + nn.functional.one_hot(labels, C), labels


def test_worked_by_hand():
    # Sample 0, label 0: z_1 = (0, 1) is wrong, the mean (1, 0.5) of both is right, and so is z_2 = (2, 0).
    # Sample 1, label 1: z_1 = (0, 3) is right, the mean (1.5, 1.5) is a tie, which goes to class 0; z_2 = (3, 0) is wrong.
    logits = torch.tensor([[[0.0, 1.0], [0.0, 3.0]], [[2.0, 0.0], [3.0, 0.0]]])
    metric = AccuracyAtEveryK(2, num_classes=2)
    metric.update(logits, torch.tensor([0, 1]))
    found = metric.compute()
    assert found["ensemble"].tolist() == [0.5, 0.5]
    assert found["single"].tolist() == [0.5, 0.5]
    metric.update(logits[:, :1], torch.tensor([0]))
    assert metric.compute()["ensemble"].tolist() == [1 / 3, 2 / 3]
    assert {name: float(value) for name, value in metric.scalars().items()} == {
        "accuracy_1": 1 / 3,
        "accuracy_2": 2 / 3,
        "single_accuracy_1": 1 / 3,
        "single_accuracy_2": 2 / 3,
    }
    metric.reset()
    with (
        pytest.warns(UserWarning, match="called before"),
        pytest.raises(ValueError, match="no sample to compute an accuracy of"),
    ):
        metric.compute()


def test_the_label_among_the_two_largest_of_which_equal_ones_go_to_the_first_class():
    logits = torch.tensor([[[3.0, 2.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 0.0]]])
    target = torch.tensor([2, 1, 2, 0])
    for top_k, accuracy in ((1, 0.0), (2, 0.5), (3, 1.0)):
        metric = AccuracyAtEveryK(1, top_k=top_k)
        metric.update(logits, target)
        assert metric.compute()["ensemble"].tolist() == [accuracy]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_batch_by_batch_it_is_what_evaluation_finds_of_all_logits(dtype):
    logits, labels = case()
    logits = logits.to(dtype)
    metric = AccuracyAtEveryK(T, C)
    assert isinstance(metric, Metric)
    for places in torch.arange(N).split(7):
        metric.update(logits[:, places], labels[places])
    found, expected = metric.compute(), evaluate(logits, labels)["last"]
    for kind in ("ensemble", "single"):
        assert found[kind].tolist() == [entry["accuracy"] for entry in expected[kind]]
    assert torch.equal(pickle.loads(pickle.dumps(metric)).compute()["single"], found["single"])
    other = AccuracyAtEveryK(T, C)
    other.update(logits, labels.to(torch.uint8))
    metric.merge_state(other)
    assert torch.equal(metric.compute()["single"], found["single"]), "twice the same samples"
    assert AccuracyAtEveryK(T, C)(logits, labels).keys() == found.keys(), "a call returns the figures of its batch"


@pytest.mark.parametrize(
    ("options", "logits", "target", "message"),
    [
        ({}, torch.zeros(3, 2, C), torch.zeros(2).long(), r"expected floating-point logits \[T, B, C\] = \[4, B, 5\]"),
        ({}, torch.zeros(T, 2, 3), torch.zeros(2).long(), r"got torch.float32 \[4, 2, 3\]"),
        ({}, torch.zeros(2, C), torch.zeros(2).long(), r"got torch.float32 \[2, 5\]"),
        ({}, torch.zeros(T, 2, C).long(), torch.zeros(2).long(), r"got torch.int64 \[4, 2, 5\]"),
        ({}, torch.zeros(T, 2, C), torch.zeros(3).long(), r"expected integer target \[2\] for logits"),
        ({}, torch.zeros(T, 2, C), torch.zeros(2), r"got torch.float32 \[2\]"),
        ({}, torch.zeros(T, 2, C), torch.tensor([0, C]), "label 5 at place 1 of the batch is no class"),
        ({}, torch.full((T, 2, C), torch.nan), torch.zeros(2).long(), "expected finite logits"),
        ({"timesteps": 0}, None, None, "timesteps is 0, expected an integer, 1 or more"),
        ({"top_k": 1.5}, None, None, "top_k is 1.5, expected an integer, 1 or more"),
        ({"num_classes": 1}, None, None, "num_classes is 1, expected an integer, 2 or more"),
    ],
)
def test_what_does_not_fit_is_refused(options, logits, target, message):
    with pytest.raises(ValueError, match=message):
        AccuracyAtEveryK(**{"timesteps": T, "num_classes": C} | options).update(logits, target)


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        logits, labels = case()
        mine = slice(0, 10) if rank == 0 else slice(10, N)
        metric = AccuracyAtEveryK(T, C)
        metric.update(logits[:, mine], labels[mine])
        torch.save(metric.compute(), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_with_different_numbers_of_samples_are_added_up(tmp_path):
    mp.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="fork")  # they have imported everything
    metric = AccuracyAtEveryK(T, C)
    metric.update(*case())
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        for kind, values in metric.compute().items():
            assert torch.equal(found[kind], values)


@pytest.mark.filterwarnings("ignore")  # of Lightning, about the workers of a loader
def test_lightning_logs_it_and_saves_none_of_it(tmp_path):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.accuracy = nn.Linear(C, C), AccuracyAtEveryK(T, C)

        def training_step(self, batch, place):
            return self.layer(batch[0]).square().mean()

        def validation_step(self, batch, place):
            self.accuracy.update(batch[0].transpose(0, 1), batch[1])

        def on_validation_epoch_end(self):
            self.log_dict(self.accuracy.scalars())
            self.accuracy.reset()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    logits, labels = case()
    loader = DataLoader(TensorDataset(logits.transpose(0, 1), labels), batch_size=8)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, **quiet)
    trainer.fit(module := Module(), loader, loader)
    for k, entry in enumerate(evaluate(logits, labels)["last"]["ensemble"], 1):
        assert trainer.callback_metrics[f"accuracy_{k}"].item() == pytest.approx(entry["accuracy"])
    assert not [name for name in module.state_dict() if name.startswith("accuracy")]
