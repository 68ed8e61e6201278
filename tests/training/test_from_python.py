"""Networks, data sets and teachers from Python: trained, recorded by import path, given again, and never imported."""

import functools
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from quick_runs import quick, stopped
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from spikedistill import LIF, Config, UserError, evaluate, load, temporal, train
from spikedistill.cli import main
from spikedistill.config import DataConfig, ModelConfig
from spikedistill.data import load_dataset
from spikedistill.evaluation import gradient_microscope
from spikedistill.models import Branched, Normalize
from spikedistill.run_folder import RunFolder
from spikedistill.training.plan import make_plan

HERE = __name__


class Net(nn.Module):
    """A spiking network for digits that names its stages."""

    stage_channels = {"stem": 4, "body": 8}  # noqa: RUF012

    def __init__(self, classes: int = 10, neuron: type[nn.Module] = LIF) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), neuron())
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3, 2, padding=1, bias=False), nn.BatchNorm2d(8), neuron())
        self.head = nn.Linear(8 * 16, classes)

    def forward(self, x):
        return self.classify(self.body(self.stem(x)))

    def classify(self, features):
        return self.head(features.flatten(1))


class Other(Net):
    pass


class Shapes(Dataset):
    """Bright squares in three corners, with noise that is drawn anew at each reading if `noisy`."""

    classes = ("upper left", "upper right", "lower left")

    def __init__(self, count: int = 60, noisy: bool = False, brighter: float = 0.0) -> None:
        self.count, self.noisy, self.brighter = count, noisy, brighter

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        label = place % 3
        image = torch.full((8, 8), 0.1 + 0.001 * place + self.brighter)
        image[4 * (label == 2) :, 4 * (label == 1) :][:4, :4] = 0.8
        return image + 0.1 * torch.rand(8, 8) * self.noisy, label


OWN = (Shapes(), Shapes(30))
OWN_NOISY = (Shapes(noisy=True), Shapes(30))
TINY = ModelConfig()  # of which nothing is taken for a network from Python


def small(name: str, **changes) -> Config:
    return quick(name, model=TINY, data=DataConfig(batch_size=20), **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with everything from Python, of which the process then knows nothing."""
    torch.manual_seed(3)
    config = small("digits-twkd", out=tmp_path_factory.mktemp("own") / "run", epochs=2)
    return train(config, model=functools.partial(Net, classes=3), data=OWN, teacher=ann())


def ann() -> nn.Module:
    torch.manual_seed(7)
    return Net(3, nn.ReLU)


def test_a_run_records_where_its_parts_came_from_and_is_called_after_its_data(run):
    config = RunFolder(run).config()
    assert config.from_python == {"model": f"{HERE}.Net", "data": f"{HERE}.Shapes", "teacher": f"{HERE}.Net"}
    assert (config.recipe, config.data.name, config.model.name) == ("Shapes-twkd", "Shapes", "Net")
    network = load(run, model=Net(3))
    assert network.classes == Shapes.classes
    images = torch.stack([OWN[1][place][0] for place in range(3)])[:, None]
    assert network.predict(images).classes == Shapes.classes
    page = (run / "report.html").read_text()
    assert "Shapes-twkd" in page
    assert f"model=...,  # {HERE}.Net" in page, "how to repeat it"


def test_what_a_run_needs_is_said_in_one_line_and_nothing_is_imported(run, capsys, monkeypatch):
    parts = rf"its network {HERE}\.Net and its data set {HERE}\.Shapes"
    repeated = Config.from_yaml((run / "config.yaml").read_text())
    for call, message in (
        (
            lambda: evaluate(run),
            rf"{parts} from Python: pass them again there, evaluate\(run, model=\.\.\., data=\.\.\.\)",
        ),
        (lambda: evaluate(run, OWN), rf"its network {HERE}\.Net from Python: .*evaluate\(run, model=\.\.\.\)"),
        (
            lambda: train(repeated),
            rf"{parts} and its teacher .*train\(config, model=\.\.\., data=\.\.\., teacher=\.\.\.\)",
        ),
        (lambda: load(run), rf"its network {HERE}\.Net from Python: .* load\(run, model=\.\.\.\)"),
        (lambda: gradient_microscope(run), rf"{parts} from Python: .*gradient_microscope\(run, "),
        (lambda: evaluate(run, OWN, model=Other(3)), rf"model is {HERE}\.Other, expected {HERE}\.Net"),
        (lambda: load(run, model=Other(3)), rf"model is {HERE}\.Other, expected {HERE}\.Net"),
        (lambda: train(repeated, model=Other(3), data=OWN, teacher=ann()), rf"model is {HERE}\.Other, expected"),
        (lambda: train(repeated, model=Net(3), data=OWN, teacher=Other(3, nn.ReLU)), "teacher is .*Other, expected"),
        (lambda: train(small("digits-twkd", teacher=run, out=run / "x")), r"its network .* load\(run, model=\.\.\.\)"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    for words in (["train", str(run / "config.yaml")], ["evaluate", str(run)], ["gradients", str(run)]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"{HERE}.Net" in said
        assert "Traceback" not in said
    assert main(["report", str(run)]) == 0, "a report needs neither network nor data"
    assert main(["train", str(run / "config.yaml"), "--out", str(run), "--resume", "auto"]) == 0, (
        "a whole run needs nothing"
    )


def test_a_run_is_repeated_and_evaluated_with_its_parts_given_again(run, tmp_path):
    folder = RunFolder(run)
    before = folder.logits.read_bytes()
    net = Net(3)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    evaluate(run, OWN, model=net)
    assert folder.logits.read_bytes() == before
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items()), "a copy was filled"
    for changed in (Shapes(33), Shapes(30, brighter=0.1)):
        with pytest.raises(UserError, match="was scored on other test samples than data holds"):
            evaluate(run, (OWN[0], changed), model=net)
    repeated = Config.from_yaml((run / "config.yaml").read_text()).model_copy(update={"out": tmp_path / "again"})
    again = RunFolder(train(repeated, model=functools.partial(Net, 3), data=OWN, teacher=ann()))
    assert again.model.read_bytes() == folder.model.read_bytes()
    rows = gradient_microscope(run, data=OWN, model=net, timesteps=[2], segments=[1], batches=1, batch_size=20)
    assert {row["layer"] for row in rows} == {"stem.0", "body.0", "head", "all parameters"}


def test_a_module_is_copied_and_starts_from_its_own_weights_and_normalises(tmp_path):
    net, seeds = Net(3), (0, 5)
    first = {name: value.clone() for name, value in net.state_dict().items()}
    dataset = make_plan(small("digits-sce"), model=net, data=OWN).dataset
    for seed in seeds:
        plan = make_plan(small("digits-sce", seed=seed), model=temporal(net), data=OWN)
        built = plan.build_network()
        assert all(torch.equal(value, first[name]) for name, value in built.module.network.state_dict().items())
        assert built.module.normalize.mean.flatten().tolist() == pytest.approx(dataset.mean)
    train(small("digits-sce", out=tmp_path / "run"), model=net, data=OWN)
    assert all(torch.equal(value, first[name]) for name, value in net.state_dict().items())
    assert set(load_file(tmp_path / "run" / "model.safetensors")) >= {"normalize.mean", "network.head.weight"}
    with_own = nn.Sequential(Normalize([0.0], [1.0]), Net(3))
    assert make_plan(small("digits-sce"), model=with_own, data=OWN).build_network().module[0].std.item() == 1
    made = [make_plan(small("digits-sce", seed=seed), model=Net).build_network() for seed in seeds]
    heads = [network.module.network.head.weight for network in made]
    assert not torch.equal(*heads), "a class is called under the seed of the run"


def test_the_gradient_rule_is_that_of_the_configuration(tmp_path):
    config = small("digits-sce", out=tmp_path / "run", gradient="rate", segments=3)
    assert make_plan(config, model=Net, data=load_dataset("digits")).build_network().rule.name == "rate"
    train(config, model=temporal(Net(), gradient="rate", segments=3))


def test_an_ann_of_one_s_own_is_trained_at_one_timestep_and_teaches(tmp_path):
    teacher = train(
        small("digits-ann", out=tmp_path / "ann", timesteps=1), model=functools.partial(Net, 3, nn.ReLU), data=OWN
    )
    assert RunFolder(teacher).config().model.neuron == "relu"
    loaded = load(teacher, model=Net(3, nn.ReLU))
    student = RunFolder(
        train(small("digits-twkd", out=tmp_path / "student"), model=partial_net(), data=OWN, teacher=loaded)
    )
    assert student.config().from_python["teacher"] == f"{HERE}.Net"
    named = train(
        small("digits-twkd", out=tmp_path / "named"), teacher=train(quick("digits-ann", out=tmp_path / "digits"))
    )
    assert RunFolder(named).config().teacher == tmp_path / "digits"


def partial_net():
    return functools.partial(Net, 3)


@pytest.mark.parametrize("name", ["digits-kdsnn", "digits-sakd", "digits-enof-laf"])
def test_objectives_over_features_read_the_stages_that_modules_name(name, tmp_path):
    config = small(name, out=tmp_path / "run")
    plan = make_plan(config, ann(), model=partial_net(), data=OWN)
    assert set(plan.layers) <= {"network.stem", "network.body"}
    assert plan.layers
    train(config, model=partial_net(), data=OWN, teacher=ann())
    with pytest.raises(UserError, match="a function returns only logits"):
        make_plan(config, lambda images: ann()(images), model=partial_net(), data=OWN)
    with pytest.raises(UserError, match="Sequential does not name them: give it an attribute stage_channels"):
        make_plan(config, nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), model=partial_net(), data=OWN)


def test_objectives_over_heads_take_a_branched_network(tmp_path):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    config = small("digits-esd", out=tmp_path / "run")
    config = config.model_copy(update={"model": config.model.model_copy(update={"branches": True})})
    run = train(config, model=Branched(temporal(Net(3)), {"stem": head}), data=OWN)
    assert not [name for name in load_file(run / "model.safetensors") if "branches" in name]
    with pytest.raises(UserError, match=r"needs auxiliary heads, and the model .*Net has none"):
        make_plan(config, model=Net(3), data=OWN)
    with pytest.raises(UserError, match=r"does not train auxiliary heads.* give the network without Branched"):
        make_plan(small("digits-sce"), model=Branched(temporal(Net(3)), {"stem": head}), data=OWN)


def frozen() -> Net:
    return Net(3).requires_grad_(False)


def half_in_eval() -> Net:
    net = Net(3)
    net.stem.eval()
    return net


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"model": ModelConfig(width=0.5)}, {"model": Net(3)}, r"model\.width would have no effect on the model .*Net"),
        ({"model": ModelConfig(branches=True)}, {"model": Net(3)}, r"model\.branches would have no effect"),
        ({"data": DataConfig(size=16)}, {"model": Net(3)}, r"data\.size would have no effect on data from Python"),
        ({}, {"model": Net(4)}, r"Net returns outputs \[1, 4\] for one sample, expected logits \[1, 3\]"),
        (
            {},
            {"model": nn.Sequential(nn.Conv2d(3, 4, 3), LIF(), nn.Flatten())},
            r"fails on a sample \[1, 1, 8, 8\] of Shapes",
        ),
        ({}, {"model": Net(3, nn.ReLU)}, "has no spiking neurons, so all of 3 timesteps would be the same"),
        ({}, {"model": frozen()}, "has only frozen parameters"),
        ({}, {"model": half_in_eval()}, "layer 'stem' of the model .* is in eval mode and others are not"),
        ({}, {"model": nn.Sequential(nn.Flatten(), LIF())}, "has no parameters"),
        ({}, {"model": 3}, "model is a int, expected a torch.nn.Module, or a class or function"),
        ({}, {"model": nn.Linear}, "cannot be made without arguments"),
        ({}, {"model": lambda: "net"}, "returned a str, expected a torch.nn.Module"),
        (
            {},
            {"model": temporal(Net(3), gradient="sltt")},
            "the configuration has gradient 'bptt': give the plain module",
        ),
        ({"model": ModelConfig(neuron="relu")}, {"model": Net(3)}, "has spiking neurons, and .* trains an ANN"),
        ({}, {"model": Net(3), "teacher": ann()}, "learns from no teacher"),
        ({}, {"model": Net(3), "teacher": 3}, "teacher is a int, expected"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, given, message):
    with pytest.raises(UserError, match=message) as caught:
        make_plan(small("digits-sce").model_copy(update=changes), data=OWN, **given)
    assert "\n" not in str(caught.value)


def test_cached_logits_of_samples_that_change_are_refused():
    config = small("digits-twkd", teacher_logits="cached")
    make_plan(config, ann(), model=partial_net(), data=OWN)
    with pytest.raises(UserError, match="a transform of the training samples draws at random"):
        make_plan(config, ann(), model=partial_net(), data=OWN_NOISY)


def test_frozen_layers_stay_and_the_others_train(tmp_path):
    net = Net(3)
    net.stem.requires_grad_(False)
    weights = load_file(train(small("digits-sce", out=tmp_path / "run"), model=net, data=OWN) / "model.safetensors")
    assert torch.equal(weights["network.stem.0.weight"], net.stem[0].weight)
    assert not torch.equal(weights["network.body.0.weight"], net.body[0].weight)


def test_data_of_one_s_own_train_a_network_by_name_and_event_frames_bring_their_timesteps(tmp_path):
    run = train(small("digits-sce", out=tmp_path / "run"), data={"train": OWN[0], "test": OWN[1], "name": "corners"})
    assert RunFolder(run).config().data.name == "corners"
    frames = torch.utils.data.TensorDataset(torch.rand(12, 5, 2, 8, 8).round(), torch.arange(12) % 3)
    with pytest.raises(UserError, match="have 5 frames, and the run has 3 timesteps: set timesteps=5"):
        make_plan(small("digits-sce"), data=(frames, frames))
    make_plan(small("digits-sce", timesteps=5), data=(frames, frames))
    with pytest.raises(UserError, match="data came for a run on digits, which is loaded by name"):
        evaluate(train(quick("digits-sce", out=tmp_path / "named")), OWN)


def test_a_run_goes_on_only_with_the_same_data_and_teacher(tmp_path, monkeypatch):
    config = small("digits-twkd", out=tmp_path / "run", epochs=2, resume="auto")
    parts = {"model": partial_net(), "data": OWN, "teacher": ann()}
    with monkeypatch.context() as patch:
        patch.setattr("quick_runs.train", lambda config: train(config, **parts))
        stopped(config, monkeypatch, epoch=1, step=0)
    for changed, what in (
        ({"data": (Shapes(57), OWN[1])}, "the training samples"),
        ({"teacher": Net(3, nn.ReLU)}, "the teacher"),
    ):
        with pytest.raises(UserError, match=f"cannot go on, because {what} changed"):
            train(config, **(parts | changed))
    with pytest.raises(UserError, match=r"from_python\.model was '.*Net' and is now '.*Other'"):
        train(config, **(parts | {"model": functools.partial(Other, 3)}))


SCRIPT = """
    import os, signal, sys
    import torch
    from test_from_python import OWN_NOISY, ann, goes_on, partial_net
    from spikedistill import train
    from spikedistill.training.module import DistillationModule

    torch.set_num_threads(1)  # as in the process that goes on: the order of sums depends on it
    step = DistillationModule.training_step

    def killed(module, batch, index):
        if (module.current_epoch, index) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(module, batch, index)

    DistillationModule.training_step = killed
    train(goes_on(sys.argv[1]), model=partial_net(), data=OWN_NOISY, teacher=ann())
"""


def goes_on(out: Path | str) -> Config:
    config = small("digits-twkd", epochs=2, resume="auto", out=Path(out))
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"checkpoint_seconds": 0.0})})


def test_a_killed_run_with_transforms_that_draw_goes_on_to_the_same_bytes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    words = [sys.executable, str(script), str(tmp_path / "run")]
    killed = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = {"model": partial_net(), "data": OWN_NOISY, "teacher": ann()}
    random.seed(5)
    whole, resumed = (train(goes_on(tmp_path / name), **parts) for name in ("whole", "run"))
    for name in ("model.safetensors", "metrics.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
