"""How near rate-based gradients are to backpropagation through time, from the first step to the end of training."""

import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch

from spikedistill.comparisons.side_by_side import fresh_processes
from spikedistill.evaluation.gradients import GradientRule, compare_gradients, first_samples
from spikedistill.run_folder import load
from spikedistill.through_time import Rate
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan
from spikedistill.training.run import fit, make_trainer

from .pairs import mean_and_spread
from .plans import Plan, step_seconds
from .study_file import StudyFile

METHODS = ("esd", "rate,model.lif.decay=0.2,model.lif.detach-reset")  # with heads and without, the same neurons
SEGMENTS = (1, 2)
BATCHES, BATCH = 4, 128  # of training images


class _Saves(L.Callback):
    """Keeps the network before training, and after each epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(pl_module, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(pl_module, trainer.current_epoch + 1)

    def _save(self, module: L.LightningModule, epoch: int) -> None:
        assert isinstance(module, DistillationModule)
        module.plan.save(module.network, self.folder / f"{epoch}.safetensors")


def budget(plan: Plan) -> str:
    """About how many hours of one core the whole will take, by the time of a training step here."""
    each = sum(step_seconds(config) for config in plan.configs(METHODS))
    images = plan.epochs * plan.samples + (plan.epochs + 1) * BATCHES * BATCH * (1 + len(SEGMENTS))
    return f"about {1.1 * len(plan.seeds) * images * each / 3600:.1f} CPU hours"


def study(plan: Plan, file: Path, command: str) -> list[dict[str, Any]]:
    """Train the methods and compare gradients after every epoch; goes on where it was stopped.

    Returns:
        `{method, seed, epochs: [{segments: cosine}]}` of each run, before training and after each epoch: the cosine between the
        gradient of the rule and that of backpropagation through time, of all parameters, a mean over batches.

    Raises:
        ValueError: if the file holds a study with another plan.
    """
    settings = {name: value for name, value in plan._asdict().items() if name not in ("root", "out", "jobs")}
    found = StudyFile(file, settings, command)
    done = {(run["method"], run["seed"]) for run in found.runs}
    left = [(method, seed) for seed in plan.seeds for method in METHODS if (method, seed) not in done]
    with ProcessPoolExecutor(plan.jobs, mp_context=fresh_processes()) as pool:
        for row in pool.map(_run, [plan] * len(left), left):
            found.add(row)
            print(f"{len(found.runs)} of {len(METHODS) * len(plan.seeds)} runs", flush=True)
    return found.runs


def _run(plan: Plan, run: tuple[str, int]) -> dict[str, Any]:
    torch.set_num_threads(1)
    method, seed = run
    (config,) = plan.configs([method])
    config = config.model_copy(update={"seed": seed, "trainer": config.trainer.model_copy(update={"progress": False})})
    made = make_plan(config)
    torch.manual_seed(seed)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fit(make_trainer(made, folder, [_Saves(folder)]), DistillationModule(made))
        samples = first_samples(config, made.dataset, BATCHES * BATCH).split(BATCH)
        epochs = [_cosines(folder / f"{epoch}.safetensors", made, samples) for epoch in range(plan.epochs + 1)]
    return {"method": method, "seed": seed, "epochs": epochs}


def _cosines(file: Path, made: Any, samples: Any) -> dict[str, float]:
    network = load(file)
    found: dict[str, list[float]] = {str(m): [] for m in SEGMENTS}
    for indices in samples:
        inputs, target = made.dataset.train.inputs(indices) / 255, made.dataset.train.targets[indices]
        rules = [GradientRule(Rate(m)) for m in SEGMENTS]
        rows = compare_gradients(network, inputs, target, timesteps=made.config.timesteps, rules=rules)
        of_all = [row["cosine"] for row in rows if row["layer"] == "all parameters"]
        for m, cosine in zip(SEGMENTS, of_all, strict=True):
            found[str(m)].append(cosine)
    return {m: statistics.mean(values) for m, values in found.items()}


def to_markdown(runs: list[dict[str, Any]]) -> str:
    """The cosine of each method and number of segments over the epochs, means over seeds and their spread."""
    epochs = len(runs[0]["epochs"])
    lines = ["| method | segments | " + " | ".join(f"epoch {epoch}" for epoch in range(epochs)) + " |"]
    lines.append("|---|--:|" + "--:|" * epochs)
    for method in METHODS:
        own = [run["epochs"] for run in runs if run["method"] == method]
        for m in map(str, SEGMENTS):
            cells = [mean_and_spread([run[epoch][m] for run in own], 3) for epoch in range(epochs)]
            lines.append(f"| {method} | {m} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(runs: list[dict[str, Any]], out: Path) -> None:
    """The cosine over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "spikedistill", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
        for method, name in zip(METHODS, ("ESD", "rate without heads"), strict=True):
            own = [run["epochs"] for run in runs if run["method"] == method]
            for m, style in zip(map(str, SEGMENTS), ("-", "--"), strict=True):
                means = [statistics.mean(run[epoch][m] for run in own) for epoch in range(len(own[0]))]
                axes.plot(range(len(means)), means, style, marker="o", label=f"{name}, {m} segment{'s' * (m != '1')}")
        axes.set(xlabel="epoch", ylabel="cosine to BPTT")
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(out, metadata={"Date": None})
        plt.close(figure)
