"""Training with compiled dynamics and without: the same curves, as far as one can tell from one seed to the next."""

import csv
import statistics

import pytest
from quick_runs import quick

from spikedistill.evaluation.results import read_results
from spikedistill.neurons.loops import compiler, paths
from spikedistill.run_folder import RunFolder
from spikedistill.training import train

pytestmark = pytest.mark.skipif(not compiler.compiler_works(), reason="torch.compile needs a C++ compiler")

SEEDS = range(3)


def losses(config):
    """The training loss of both epochs, and the negative log-likelihood on the test images."""
    run = RunFolder(train(config))
    epochs = [float(row["train_loss"]) for row in csv.DictReader(run.metrics.read_text().splitlines())]
    return [*epochs, read_results(run).last.ensemble[-1].nll]


@pytest.mark.parametrize(("gradient", "precision"), [("bptt", "32-true"), ("bptt", "bf16-mixed"), ("rate", "32-true")])
def test_curves_of_two_epochs_on_digits_coincide(gradient, precision, tmp_path, monkeypatch):
    found = {}
    for path, smallest in (("eager", 2**60), ("compiled", 1)):
        monkeypatch.setattr(paths, "MIN_ELEMENTS", smallest)
        for seed in SEEDS:
            config = quick(
                "digits-sce", epochs=2, timesteps=2, seed=seed, gradient=gradient, out=tmp_path / f"{path}{seed}"
            )
            data, trainer = config.data, config.trainer
            changes = {
                "data": data.model_copy(update={"train_samples": None}),
                "trainer": trainer.model_copy(update={"precision": precision}),
            }
            found[path, seed] = losses(config.model_copy(update=changes))
    for eager, fast in zip(*([found[path, seed] for seed in SEEDS] for path in ("eager", "compiled")), strict=True):
        assert eager == pytest.approx(fast, rel=0.25), "one seed on both paths"
    for place in range(3):
        eager, fast = ([found[path, seed][place] for seed in SEEDS] for path in ("eager", "compiled"))
        assert abs(statistics.mean(eager) - statistics.mean(fast)) < statistics.stdev(eager)
