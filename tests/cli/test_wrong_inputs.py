"""What cannot be meant is refused: a short message that says what came and what is expected, exit code 2, nothing left behind."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from quick_runs import quick
from safetensors.torch import save
from torch import nn

import spikedistill
from spikedistill import LIF, create_model, lif, lif_step, objectives, temporal, train
from spikedistill.cli import main
from spikedistill.comparisons.speeds import relative_speeds
from spikedistill.config import Config
from spikedistill.data import load_dataset
from spikedistill.errors import UserError
from spikedistill.evaluation import AnytimeClassifier, exit_times, timestep_metrics
from spikedistill.evaluation.comparison.records import Records
from spikedistill.models import load_weights
from spikedistill.recipes import recipe
from spikedistill.training.checkpoints import read_checkpoint
from spikedistill.training.module import DistillationModule

# Command lines, by what each has wrong. `empty` is a folder, `file` a file, `nowhere` is neither.
COMMANDS = {
    # of the program
    "": "arguments are required: COMMAND",
    "tarin": "invalid choice: 'tarin'",
    "--verbose": "required: COMMAND",
    "list networks": "invalid choice 'networks'",
    "list models convnet": "Unrecognized options: convnet",
    # the recipe
    "train": "no recipe was named",
    "train ''": "no recipe is called ''",
    "train digits-twds": "did you mean digits-twsd",
    "train sce": "spikedistill list recipes names them all",
    "train file": "no recipe is called 'file'",
    "train --epochs 3": "expected a recipe before --epochs",
    "train digits-twsd digits-sce": "digits-sce",
    "train digits-sce --recipe ../../x": "a folder below runs, without '..'",
    "train digits-sce --recipe ''": "recipe is '', expected the name of a folder",
    "train runs/x/config.yaml": "does not exist",
    "train runs/x/config.yml": "does not exist",
    # flags
    "train digits-sce --epoch 3": "--epochs",
    "train digits-sce --epochs": "--epochs",
    "train digits-sce --epochs many": "many",
    "train digits-sce --epochs 1.5": "1.5",
    "train digits-sce --overwrite yes": "yes",
    "train digits-sce --resume maybe": "maybe",
    "train digits-sce --model.lif.leak 1": "--model.lif.leak",
    "train digits-sce --overwrite --resume auto": "leave one of them out",
    # time and gradients
    "train digits-sce --epochs 0": "epochs",
    "train digits-sce --epochs 1000000000000": "epochs",
    "train digits-sce --timesteps 0": "timesteps",
    "train digits-sce --timesteps 2.5": "2.5",
    "train digits-sce --timesteps 1000000000": "timesteps",
    "train digits-twsd --timesteps 1": "timesteps",
    "train digits-s2w --timesteps 1": "timesteps",
    "train digits-sce --seed -1": "seed",
    "train digits-sce --seed 99999999999999999999": "seed",
    "train digits-sce --gradient bp": "bptt",
    "train digits-sce --gradient-scale 2": "1/T",
    "train digits-sce --segments 2": "only means something under gradient='rate'",
    "train digits-rate --segments 0": "segments=0: expected how many segments of time, 1 or more",
    "train digits-rate --segments 9": "cannot divide 4 timesteps",
    "train digits-rate --segments 1 1": "sum to the 4 timesteps",
    "train digits-rate --segments -1 5": "segments=(-1, 5): expected how many",
    "train digits-s2w --gradient rate": "--segments 2 or more",
    "train digits-sce --chunk 2": "under gradient='rate'",
    "train digits-rate --chunk 0": "chunk",
    "train digits-rate --checkpoint": "under gradient='bptt'",
    "train digits-sce --no-recompute": "under gradient='rate'",
    "train digits-dsr --model.lif.v-reset 0": "soft reset",
    # the network
    "train digits-sce --model.name resnet81": "resnet18",
    "train digits-sce --model.width 0": "width",
    "train digits-sce --model.width nan": "width",
    "train digits-sce --model.width inf": "width",
    "train digits-sce --model.width 1e9": "width",
    "train digits-sce --model.neuron spiking": "relu",
    "train digits-sce --model.norm layer": "tdbn",
    "train digits-sce --model.branches": "leave --model.branches out",
    "train digits-sce --model.joint": "omit --model.joint",
    "train digits-sce --model.lif.decay 1.5": "decay",
    "train digits-sce --model.lif.decay nan": "decay",
    "train digits-sce --model.lif.threshold 0": "threshold",
    "train digits-sce --model.lif.threshold inf": "threshold",
    "train digits-sce --model.lif.v-init nan": "v_init",
    "train digits-sce --model.lif.v-init quarter": "learned",
    "train digits-sce --model.lif.v-reset inf": "v_reset",
    "train digits-sce --model.lif.surrogate relu": "arctan",
    "train digits-sce --model.lif.decay learned:1": "inside (0, 1)",
    # data
    "train digits-sce --data.name digit": "digits",
    "train digits-sce --data.size 16": "option of arrays, cifar10_dvs",
    "train digits-sce --data.slicing time": "option of cifar10_dvs",
    "train digits-sce --data.batch-size 0": "batch",
    "train digits-sce --data.train-samples 0": "train",
    "train digits-sce --data.train-samples 99999": "99999",
    "train digits-sce --data.holdout 1": "holdout",
    "train digits-sce --data.holdout nan": "holdout",
    "train digits-sce --data.holdout 0.9999": "cannot hold out 1442 of 1442",
    "train digits-sce --data.augment flop": "did you mean 'flip'",
    "train fashion_mnist-sce": "SPIKEDISTILL_DATA",
    "train fashion_mnist-sce --data.root nowhere": "nowhere",
    "train mnist-sce --data.root empty": "train-images-idx3-ubyte.gz is missing",
    "train cifar10-sce --data.root empty": "batches.meta is missing",
    "train image_folder-sce --data.root empty": "expected one folder per class",
    # the objective and its teacher
    "train digits-sce --objective.name": "--objective.name",
    "train digits-sce --objective.name s2v": "s2w",
    "train digits-sce --objective.name esd": "add --model.branches",
    "train digits-sce --objective.options.beta 1": "beta",
    "train digits-twsd --objective.options.temperature -3": "temperature",
    "train digits-twsd --objective.options.temperature nan": "temperature",
    "train digits-twsd --objective.options.temperature warm": "warm",
    "train digits-twkd": "--teacher runs/digits-ann/seed0",
    "train digits-twkd --teacher nowhere": "nowhere is no folder",
    "train digits-twkd --teacher empty": "holds no config.yaml",
    "train digits-twkd --teacher nowhere.safetensors": "does not exist",
    "train digits-sce --teacher runs/x": "learns from no teacher",
    "train digits-sce --teacher-model resnet18": "teacher",
    "train digits-sce --teacher-logits cached": "leave --teacher-logits cached out",
    # the optimiser and the machine
    "train digits-sce --optimizer.name adam": "adamw",
    "train digits-sce --optimizer.lr 0": "lr",
    "train digits-sce --optimizer.lr inf": "lr",
    "train digits-sce --optimizer.momentum 1": "momentum",
    "train digits-sce --optimizer.weight-decay inf": "weight",
    "train digits-sce --optimizer.warmup-epochs 31": "warmup",
    "train digits-sce --optimizer.step-factor 2": "factor",
    "train digits-sce --trainer.accelerator tpu": "--trainer.accelerator tpu",
    "train digits-sce --trainer.devices 0": "devices",
    "train digits-sce --trainer.precision 8": "bf16-mixed",
    "train digits-sce --trainer.sparse sometimes": "never",
    "train digits-sce --objective.firing-weight -1": "objective.firing_weight: got -1.0, expected at least 0",
    "train digits-sce --objective.firing-target 0.1": "add --objective.firing-weight",
    "train digits-sce --objective.firing-target 1": "objective.firing_target: got 1.0, expected less than 1",
    "train digits-ann --objective.firing-weight 1": "--model.neuron relu has none",
    "train digits-sce --trainer.accumulate 0": "accumulate",
    "train digits-sce --trainer.clip inf": "clip",
    "train digits-sce --trainer.ema 1": "ema",
    "train digits-sce --trainer.logger print": "tensorboard",
    "train digits-sce --trainer.checkpoint-seconds nan": "checkpoint",
    "train digits-sce --trainer.grace-seconds -1": "grace",
    "train digits-sce --trainer.timeout-seconds 0": "timeout",
    # where to write
    "train digits-sce --out file": "file is no folder",
    "train digits-sce --out file/run": "file/run cannot be made",
    "train digits-sce --out /dev/null/run": "/dev/null/run cannot be made",
    # runs
    "evaluate": "spikedistill evaluate: missing RUN; --help explains",
    "evaluate nowhere": "nowhere is no folder",
    "evaluate file": "file is no folder",
    "evaluate empty": "holds no config.yaml",
    "evaluate empty more": "Unrecognized options: more",
    "evaluate empty --sparse sometimes": "always",
    "evaluate empty --data.root": "Missing value for argument '--data.root'",
    "report": "missing RUN",
    "report nowhere": "no run folder nowhere",
    "report empty": "no config.yaml in empty",
    "gradients nowhere": "nowhere is no folder",
    "gradients empty": "holds no config.yaml",
    "gradients empty --timesteps 0": "expected 1 or more",
    "gradients empty --timesteps two": "'two'",
    "gradients empty --segments -1": "expected 1 or more",
    "gradients empty --batches 0": "expected 1 or more",
    "gradients empty --batch-size 1": "expected 2 or more",
    # data sets
    "data cifar11": "cifar10",
    "data digits more": "Unrecognized options: more",
    "data digits --data.size 16": "option of arrays, cifar10_dvs",
    "data --verify": "say which",
    "data mnist --data.root file": "is no folder",
    "data nmnist --timesteps 0 --data.root empty": "got 0",
    "data image_folder --data.size 0 --data.root empty": "got 0",
    # comparisons
    "compare": "missing --recipes, --out",
    "compare --recipes digits-sce digits-twce": "missing --out",
    "compare --recipes digits-sce --out runs": "two or more different recipes",
    "compare --recipes digits-sce digits-sce --out runs": "two or more different recipes",
    "compare --recipes digits-sce digits-twec --out runs": "did you mean",
    "compare --recipes digits-sce mnist-sce --out runs": "of the same test samples",
    "compare --recipes digits-sce digits-twce --seeds 1 1 --out runs": "different seeds",
    "compare --recipes digits-sce digits-twce --seeds -1 --out runs": "from 0 on",
    "compare --recipes digits-sce digits-twce --seeds one --out runs": "'one'",
    "compare --recipes digits-sce digits-twce --seed 3 --out runs": "which has --seeds and --out",
    "compare --recipes digits-sce digits-twce --overwrite --out runs": "which has --seeds and --out",
    "compare --recipes digits-sce digits-twce --jobs 0 --out runs": "jobs is 0",
    "compare --recipes digits-sce digits-twce --epochs 0 --out runs": "epochs",
    "compare --recipes digits-sce digits-twce,epoch=3 --out runs": "--epoch",
    "compare --recipes digits-sce digits-twce, --out runs": "an empty setting",
    "compare --recipes digits-sce digits-s2w,gradient=rate --out runs": "--segments 2 or more",
    "compare --recipes digits-sce digits-twce --equal-time nowhere --out runs": "holds no finished run",
    "compare --recipes digits-sce digits-twce --equal-time empty --tune --out runs": "leave --tune out",
    "compare --recipes digits-sce digits-twce --teacher nowhere --out runs": "leave --teacher nowhere out",
    "compare --recipes digits-sce digits-skd --teacher nowhere --out runs": "nowhere",
    "compare --recipes digits-sce digits-skd --teacher empty --out runs": "empty",
    "compare --recipes digits-sce digits-twce --out file": "file is no folder",
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes and every folder, but for the locks of processes that look into a folder."""
    return {
        str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*") if path.name != ".lock"
    }


def outcome(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """The exit code of a command line, and what it prints as errors."""
    try:
        code = main(shlex.split(line))
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A folder to stand in, where no training step is ever taken."""

    def no_training(*_):
        raise AssertionError("a wrong input began to train")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPIKEDISTILL_DATA", raising=False)
    monkeypatch.setattr(DistillationModule, "training_step", no_training)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a line")
    return tmp_path


@pytest.mark.parametrize("line", COMMANDS)
def test_a_wrong_command_line(line, place, capsys):
    before = contents(place)
    code, message = outcome(line, capsys)
    assert COMMANDS[line] in " ".join(message.split())
    assert code == 2
    assert "Traceback" not in message
    assert "Errno" not in message
    assert len(message.splitlines()) < 12
    assert contents(place) == before, "a mistake leaves nothing behind"


def settings(**changes: str) -> Callable[[bytes], bytes]:
    """A configuration with other values, given as YAML writes them."""

    def change(content: bytes) -> bytes:
        text = content.decode()
        for name, value in changes.items():
            line = next(line for line in text.splitlines() if line.strip().startswith(f"{name}:"))
            text = text.replace(line, f"{line.partition(':')[0]}: {value}", 1)
        return text.encode()

    return change


def tensors(**values: torch.Tensor) -> bytes:
    return save(values)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


# Files of a run without a manifest, as of version 0.1.0, which readers have to check by themselves.
FILES: dict[str, tuple[str, bytes | Callable[[bytes], bytes], str, str]] = {
    "nothing in it": ("config.yaml", b"", "evaluate run", "config.yaml holds no settings"),
    "a list": ("config.yaml", b"- a\n- b", "gradients run", "config.yaml holds no settings"),
    "no text": ("config.yaml", b"\xff\xfe\0", "evaluate run", "config.yaml is not valid YAML"),
    "a date of year 0": ("config.yaml", b"recipe: 0000-00-00", "report run", "config.yaml is not valid YAML"),
    "cut": ("config.yaml", lambda content: b"".join(content.splitlines(True)[:15]), "gradients run", "config.yaml is cut short"),
    "a word for a number": ("config.yaml", settings(epochs="many"), "evaluate run", "epochs: got 'many'"),
    "NaN": ("config.yaml", settings(lr=".nan"), "evaluate run", "lr: got nan"),
    "infinity": ("config.yaml", settings(decay=".inf"), "evaluate run", "decay: got inf"),
    "a section that is a number": ("config.yaml", b"recipe: x\nmodel: 3", "train run/config.yaml --out new", "model"),
    "a setting of another version": ("config.yaml", settings(joint="false\n  depth: 3"), "evaluate run", "depth: got 3"),
    "no network": ("model.safetensors", b"", "evaluate run", "no complete safetensors file"),
    "a page in its place": ("model.safetensors", b"<html>", "gradients run", "no complete safetensors file"),
    "a header of exabytes": ("model.safetensors", b"\xff" * 16, "evaluate run", "no complete safetensors file"),
    "tensors of nothing": ("model.safetensors", tensors(a=torch.ones(1)), "evaluate run", "which network it holds"),
    "half a network": ("model.safetensors", half, "train digits-twkd --teacher run --out new", "model.safetensors"),
    "costs by another name": ("cost.json", b'{"a": 1}', "evaluate run", "cost.json is damaged: expected numbers named"),
    "costs in a list": ("cost.json", b"[1]", "evaluate run", "cost.json is damaged: it holds a list"),
    "costs in words": ("cost.json", b'{"peak_mib": "much"}', "evaluate run", "cost.json is damaged"),
    "costs that are no numbers": ("cost.json", b'{"peak_mib": NaN}', "evaluate run", "cost.json is damaged"),
    "no JSON": ("cost.json", b"{", "evaluate run", "cost.json is damaged: it is not valid JSON"),
    "deep JSON": ("cost.json", b"[" * 100_000, "evaluate run", "cost.json is damaged: it is not valid JSON"),
    "results without figures": (
        "results.json", b'{"last": {"single": []}}', "train run/config.yaml --out run --resume auto", "results.json is broken",
    ),
    "results in a list": ("results.json", b"[]", "report run", "results.json is broken"),
    "results that are null": ("results.json", b"null", "report run", "results.json is broken"),
    "results that are no text": ("results.json", b"\xff", "report run", "results.json is broken"),
    "metrics that are no text": ("metrics.csv", b"\xff\xfe", "report run", "metrics.csv is damaged"),
    "gradients of words": ("gradients.csv", b"timesteps,rule\ntwo,sltt\n", "report run", "gradients.csv is broken"),
    "logits of nothing": ("logits.safetensors", tensors(), "report run", "holds no tensor 'logits'"),
    "samples cut": ("samples.safetensors", half, "report run", "samples.safetensors is damaged"),
    "a manifest of nothing": ("manifest.json", b"{}", "evaluate run", "manifest.json is damaged"),
    "a manifest in a list": ("manifest.json", b"[]", "report run", "manifest.json is damaged"),
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = train(quick("digits-twsd", out=tmp_path_factory.mktemp("trained") / "run"))
    (folder / "manifest.json").unlink()
    return folder


@pytest.mark.parametrize("wrong", FILES)
def test_a_wrong_file_of_a_run(wrong, place, trained, capsys):
    name, content, line, said = FILES[wrong]
    file = shutil.copytree(trained, place / "run") / name
    file.write_bytes(content if isinstance(content, bytes) else content(file.read_bytes()))
    before = contents(place)
    code, message = outcome(line, capsys)
    said_last = message.strip().splitlines()[-1]
    assert said in said_last
    assert code == 2
    assert len(said_last) < 500
    assert contents(place) == before, "a damaged run stays as it is"


def network(**options) -> nn.Module:
    return create_model("convnet", num_classes=10, in_channels=1, image_size=8, width=0.25, **options)


def written(name: str, content: bytes | str) -> Path:
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


IMAGES = torch.zeros(2, 1, 8, 8)
CURRENTS = torch.zeros(4, 2, 3)

CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "an unknown model": (lambda: create_model("resnet81", num_classes=10), "resnet18"),
    "no classes": (lambda: create_model("convnet", num_classes=0), "at least 1"),
    "no width": (lambda: network().train() and create_model("convnet", num_classes=2, width=0), "width is 0"),
    "another neuron": (lambda: network(neuron="relu6"), "'relu6'"),
    "another norm": (lambda: network(norm="group"), "'group'"),
    "a neuron's option": (lambda: network(leak=0.5), "leak"),
    "a decay above 1": (lambda: network(decay=1.5), "1.5"),
    "a mean without spread": (lambda: network(mean=[0.5]), "give both"),
    "norm over no timesteps": (lambda: network(norm="timestep_batch"), "norm_timesteps"),
    "timesteps of another norm": (lambda: network(norm_timesteps=4), "norm='timestep_batch'"),
    "branches and an ANN beside": (lambda: network(branches=True, joint=True), "joint"),
    "an unknown rule": (lambda: temporal(nn.Linear(2, 2), gradient="bp"), "bptt"),
    "segments of another rule": (lambda: temporal(nn.Linear(2, 2), segments=2), "rate"),
    "chunks of another rule": (lambda: temporal(nn.Linear(2, 2), chunk=2), "rate"),
    "no time": (lambda: network()(IMAGES, timesteps=0), "timesteps is 0"),
    "half a timestep": (lambda: network()(IMAGES, timesteps=3.5), "timesteps is 3.5, expected a whole number"),
    "labels for timesteps": (lambda: network()(IMAGES, torch.zeros(2, dtype=torch.int64)), "the network takes one input"),
    "a batch as a dict": (lambda: network()({"x": IMAGES}, timesteps=2), "give the tensor in it"),
    "images as an array": (lambda: network()(IMAGES.numpy(), timesteps=2), "torch.as_tensor"),
    "images of bytes": (lambda: network()((IMAGES * 255).byte(), timesteps=2), "x.float() / 255"),
    "images of float64": (lambda: network()(IMAGES.double(), timesteps=2), "x.to(torch.float32)"),
    "neurons without time": (lambda: LIF()(IMAGES), "temporal(...)"),
    "images without time": (lambda: network()(IMAGES), "timesteps"),
    "images of another size": (lambda: network()(torch.zeros(2, 1, 9, 9), timesteps=2), "1, 8, 8"),
    "a neuron without threshold": (lambda: LIF(threshold=0.0), "threshold"),
    "a neuron that keeps too much": (lambda: LIF(decay=2.0), "decay"),
    "an unknown surrogate": (lambda: LIF(surrogate="relu"), "sigmoid"),
    "a membrane of a word": (lambda: LIF(v_init="third"), "'third'"),
    "a membrane for no channels": (lambda: LIF(v_init="learned"), "channels"),
    "a decay that cannot be learned": (lambda: LIF(decay="learned:1"), "inside (0, 1)"),
    "currents with a decay below 0": (lambda: lif(CURRENTS, decay=-0.1), "decay"),
    "currents with no threshold": (lambda: lif(CURRENTS, threshold=-1.0), "threshold"),
    "a step with no threshold": (lambda: lif_step(CURRENTS[0], torch.zeros(2, 3), threshold=0.0), "threshold"),
    "a run that is not there": (lambda: spikedistill.load("nowhere"), "nowhere is no folder"),
    "a file for a run": (lambda: spikedistill.load("file"), "file is no complete safetensors file"),
    "an empty run": (lambda: spikedistill.evaluate("empty"), "holds no config.yaml"),
    "early exit of a plain network": (lambda: AnytimeClassifier(nn.Linear(2, 2), "margin", 0.5, 4), "temporal(module)"),
    "an unknown policy": (lambda: AnytimeClassifier(network(), "sureness", 0.5, 4), "confidence"),
    "an exit above certainty": (lambda: AnytimeClassifier(network(), "confidence", 2.0, 4), "threshold"),
    "an exit at NaN": (lambda: AnytimeClassifier(network(), "margin", float("nan"), 4), "threshold"),
    "an exit before time": (lambda: AnytimeClassifier(network(), "margin", 0.5, 0), "expected 1 or more"),
    "images in bytes": (lambda: AnytimeClassifier(network(), "margin", 0.5, 2)(IMAGES.byte()), "divided by 255"),
    "no images": (lambda: AnytimeClassifier(network(), "margin", 0.5, 2)(IMAGES[:0]), "expected floating-point"),
    "nothing to calibrate on": (
        lambda: AnytimeClassifier(network(), "margin", 0.5, 2).calibrate([], max_drop=1.0), "at least one batch",
    ),
    "no target to calibrate to": (
        lambda: AnytimeClassifier(network(), "margin", 0.5, 2).calibrate([(IMAGES, torch.tensor([0, 1]))]), "exactly one",
    ),
    "exits of no timesteps": (lambda: exit_times(torch.zeros(2, 3), "margin", 0.5), "[T, N, C]"),
    "scores of no timesteps": (lambda: timestep_metrics(torch.zeros(2, 3), torch.zeros(2).long()), "[T, N, C]"),
    "scores of NaN": (lambda: timestep_metrics(torch.full((1, 2, 3), float("nan")), torch.zeros(2).long()), "6 of 6"),
    "an unknown objective": (lambda: objectives.create_objective("s2v"), "s2w"),
    "an option of another objective": (lambda: objectives.create_objective("sce", temperature=3.0), "temperature"),
    "a temperature of 0": (lambda: objectives.create_objective("twce-twsd", temperature=0.0), "temperature"),
    "an unknown recipe": (lambda: recipe("digits-twds"), "digits-twsd"),
    "a configuration of no epochs": (lambda: Config(recipe="x", epochs=0), "epochs: got 0"),
    "a setting that is none": (lambda: Config(recipe="x", epoch=3), "epoch: got 3"),
    "a recipe at the root": (lambda: Config(recipe="/x"), "recipe is '/x'"),
    "a recipe that is no name of a folder": (lambda: Config(recipe="a\0b"), "expected the name of a folder"),
    "a configuration without settings": (lambda: Config.from_yaml("", "x.yaml"), "x.yaml holds no settings"),
    "an unknown data set": (lambda: load_dataset("cifar11"), "cifar10"),
    "data from nowhere": (lambda: load_dataset("mnist", Path("nowhere")), "nowhere"),
    "a comparison of nothing": (lambda: spikedistill.compare([], [0], Path("runs")), "two or more"),
    "a comparison with no seed": (
        lambda: spikedistill.compare([recipe("digits-sce"), recipe("digits-twce")], [], Path("runs")), "different seeds",
    ),
    "weights of another network": (
        lambda: load_weights(network(), written("w.safetensors", tensors(a=torch.ones(1)))), "another network",
    ),
    "weights that are not there": (lambda: load_weights(network(), Path("w.safetensors")), "does not exist"),
    "a checkpoint of text": (lambda: read_checkpoint(written("last.ckpt", b"PK")), "last.ckpt is damaged"),
    "records of text": (lambda: [*Records(written("records.jsonl", "a\n").parent)], "records.jsonl"),
    "speeds without numbers": (
        lambda: relative_speeds([recipe("digits-sce")], written("speeds.csv", "method\na\n")), "delete it",
    ),
    "speeds that are no text": (
        lambda: relative_speeds([recipe("digits-sce")], written("speeds.csv", b"\xff\xfe")), "delete it",
    ),
    "speeds against another method": (
        lambda: relative_speeds([recipe("digits-sce")], written("speeds.csv", "method,against_first\na,1\n")), "holds no speeds",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", CALLS)
def test_a_wrong_call(wrong):
    call, said = CALLS[wrong]
    with pytest.raises((UserError, OSError)) as error:
        call()
    message = str(error.value)
    assert said in message
    assert "\n" not in message
    assert not Path("runs").exists()


def test_at_least_120_wrong_inputs_have_their_message():
    assert len(COMMANDS) + len(FILES) + len(CALLS) >= 120
