"""Papers' settings on top of a recipe: their values as a table, what departs from them, and twenty steps by hand."""

from typing import get_args

import pytest
import torch
from PIL import Image
from torch import nn

from spikedistill.cli import main
from spikedistill.comparisons import compare
from spikedistill.config import Config, TrainerConfig
from spikedistill.data import Dataset, TensorSamples, as_network_input, augment
from spikedistill.models import create_model
from spikedistill.recipes import PROTOCOLS, departures, protocol_line, recipe
from spikedistill.recipes.settings import parse_config, variant
from spikedistill.run_folder import RunFolder
from spikedistill.seeds import derive_seed
from spikedistill.training import plan as plans
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan
from spikedistill.training.run import fit, make_batches, make_trainer

CROP = "crop flip"
ALL = "crop flip autoaugment cutout"
COLUMNS = (
    "network T decay reset detach surrogate scale batch lr decay_of_weights decayed schedule per epochs augmentation"
)
# one row for each paper and data set: the values of COLUMNS
TABLE = {
    ("twkd", "cifar10"): f"resnet18 6 0.5 0.0 False sigmoid 1 128 0.1 0.0005 weights cosine epoch 300 {ALL}",
    ("twkd", "cifar100"): f"resnet18 6 0.5 0.0 False sigmoid 1 128 0.1 0.0005 weights cosine epoch 300 {ALL}",
    ("twkd", "nmnist"): "resnet18 10 0.5 0.0 False sigmoid 1 32 0.1 0.0005 weights cosine epoch 300 flip nda",
    (
        "twkd",
        "image_folder",
    ): "resnet34 4 0.2 None False sigmoid 1 512 0.2 2e-05 weights cosine epoch 100 resized-crop flip",
    ("esd", "cifar10"): f"resnet18 6 0.2 None True sigmoid 1/T 128 0.1 0.0005 weights cosine epoch 300 {ALL}",
    ("esd", "cifar100"): f"resnet18 6 0.2 None True sigmoid 1/T 128 0.1 0.0005 weights cosine epoch 300 {ALL}",
    ("esd", "nmnist"): "resnet18 10 0.2 None True sigmoid 1/T 32 0.1 0.0005 weights cosine epoch 300 flip nda",
    (
        "esd",
        "image_folder",
    ): "resnet34 4 0.2 None True sigmoid 1/T 512 0.2 2e-05 weights cosine epoch 100 resized-crop flip",
    (
        "s2w",
        "cifar10",
    ): f"ms_resnet18 4 0.5 None False rectangular 1 64 0.1 0.0001 weights step step 100 {CROP} autoaugment",
    ("s2w", "cifar100"): f"ms_resnet18 4 0.5 None False rectangular 1 64 0.1 0.0001 weights step step 100 {CROP}",
    ("s2w", "nmnist"): "vgg9 5 0.5 None False rectangular 1 64 0.1 0.001 weights step step 100",
    ("tser-unofficial", "cifar10"): f"resnet18 4 0.5 0.0 False sigmoid 1 128 0.1 0.0005 weights cosine epoch 300 {ALL}",
    (
        "tser-unofficial",
        "cifar100",
    ): f"resnet18 4 0.5 0.0 False sigmoid 1 128 0.1 0.0005 weights cosine epoch 300 {ALL}",
}
MIXED = "flip randaugment erase mixup"
# of spiking transformers: network, batch, learning rate, epochs, augmentation, and how much images are mixed
TRANSFORMERS = {
    ("spikformer", "cifar10"): f"spikformer 128 0.0005 300 {MIXED} 0.5",
    ("sdt", "cifar10"): "sdt 64 0.0003 300 flip randaugment mixup 0.5",
    ("sdt", "cifar100"): "sdt 64 0.0003 300 flip randaugment mixup 0.5",
    ("qkformer", "cifar10"): f"qkformer 64 0.001 400 {MIXED} 0.5",
    ("qkformer", "cifar100"): f"qkformer 64 0.001 400 {MIXED} 0.5",
    ("max-former", "cifar10"): f"max_former 128 0.0015 400 {MIXED} 0.5",
    ("max-former", "cifar100"): f"max_former 64 0.0015 400 {MIXED} 0.75",
}
# of the objective, and of the ANN that teaches
OPTIONS = {
    ("twkd", "cifar100"): {"alpha": 0.2, "beta": 0.5, "temperature": 3.0, "teacher": "correct"},
    ("twkd", "nmnist"): {"alpha": 0.2, "beta": 0.5, "temperature": 3.0, "teacher": "correct"},
    ("twkd", "image_folder"): {"alpha": 0.2, "beta": 0.5, "temperature": 1.0, "teacher": "correct"},
    ("esd", "cifar100"): {"alpha": 1.0, "beta": 0.3, "temperature": 3.0, "teachers": "reliable", "reduction": "sum"},
    ("esd", "nmnist"): {"alpha": 1.0, "beta": 0.1, "temperature": 3.0, "teachers": "reliable", "reduction": "sum"},
    ("esd", "image_folder"): {
        "alpha": 0.7,
        "beta": 0.3,
        "temperature": 3.0,
        "teachers": "reliable",
        "reduction": "sum",
    },
    ("s2w", "cifar100"): {"weight": 1.0, "temperature": 2.0, "variant": "pair", "measure": "confidence"},
    ("tser-unofficial", "cifar100"): {"alpha": 0.5, "gamma": 0.1, "temperature": 3.0},
}
TEACHERS = {
    ("twkd", "cifar100"): f"cifar_resnet34 128 0.1 0.0005 all cosine epoch 300 {CROP}",
    ("twkd", "nmnist"): "resnet19 32 0.1 0.0005 weights cosine epoch 300 flip nda",
    ("tser-unofficial", "cifar10"): f"cifar_resnet34 128 0.1 0.0005 all cosine epoch 300 {CROP}",
    ("s2w", "cifar10"): f"ms_resnet18 64 0.1 0.0001 weights step step 100 {CROP} autoaugment",
}


def training_of(config: Config) -> list[object]:
    data, sgd = config.data, config.optimizer
    assert (sgd.name, sgd.momentum, sgd.warmup_epochs) == ("sgd", 0.9, 0.0)
    assert (sgd.step_epochs, sgd.step_factor) == (30, 0.1)
    decay = [sgd.weight_decay, sgd.decayed]
    return [data.batch_size, sgd.lr, *decay, sgd.schedule, sgd.schedule_per, config.epochs, *data.augment]


@pytest.mark.parametrize(("name", "dataset"), TABLE)
def test_a_protocol_has_the_papers_values(name, dataset):
    config = recipe(f"{dataset}-{name}", protocol=name)
    lif = config.model.lif
    assert (config.protocol, lif.threshold, lif.v_init) == (name, 1.0, 0.0)
    neuron = [lif.decay, lif.v_reset, lif.detach_reset, lif.surrogate]
    row = [config.model.name, config.timesteps, *neuron, config.gradient_scale, *training_of(config)]
    assert dict(zip(COLUMNS.split(), map(str, row), strict=False)) == dict(
        zip(COLUMNS.split(), TABLE[name, dataset].split(), strict=False)
    )
    assert " ".join(map(str, row)) == TABLE[name, dataset], "with all of the augmentation"
    assert OPTIONS.get((name, dataset), {}).items() <= config.objective.options.items()
    assert config.trainer.sync_batch_norm == ((name, dataset) == ("twkd", "image_folder"))
    assert config.data.slicing == ("number" if dataset == "nmnist" else None)
    assert departures(config) == []


@pytest.mark.parametrize(("name", "dataset"), TRANSFORMERS)
def test_a_transformer_s_protocol_has_the_values_of_its_code(name, dataset):
    config = recipe(f"{dataset}-label-smoothing", protocol=name)
    data, adam, lif = config.data, config.optimizer, config.model.lif
    assert (config.timesteps, lif.decay, lif.threshold, lif.v_reset, lif.detach_reset) == (4, 0.5, 2.0, 0.0, True)
    assert (adam.name, adam.weight_decay, adam.decayed) == ("adamw", 0.06, "weights")
    assert (adam.warmup_epochs, adam.schedule, adam.schedule_per) == (20.0, "cosine", "epoch")
    assert config.objective.options == {"epsilon": 0.1}
    row = [config.model.name, data.batch_size, adam.lr, config.epochs, *data.augment, data.mix, data.mix_alpha]
    assert " ".join(map(str, row)) == TRANSFORMERS[name, dataset]
    assert departures(config) == []
    assert "half as wide" in protocol_line(config)


def test_s2w_teaches_qkformer_with_the_weight_of_its_paper():
    weights = {name: recipe("cifar100-s2w", name).objective.options["weight"] for name in ("qkformer", "sdt", "s2w")}
    assert weights == {"qkformer": 0.01, "sdt": 1.0, "s2w": 1.0}


@pytest.mark.parametrize(("name", "dataset"), TEACHERS)
def test_the_ann_under_a_protocol_is_its_teacher(name, dataset):
    config = recipe(f"{dataset}-ann", protocol=name)
    assert (config.model.neuron, config.timesteps, departures(config)) == ("relu", 1, [])
    assert " ".join(map(str, [config.model.name, *training_of(config)])) == TEACHERS[name, dataset]


def test_the_factor_of_esd_is_the_number_of_heads_of_the_protocol_s_network():
    """A transformer has three heads; the recipe's ResNet has four."""
    config = recipe("cifar10-esd", protocol="spikformer")
    assert config.objective.options["factor"] == 3.0
    assert departures(config) == []
    assert recipe("cifar10-esd", protocol="twkd").objective.options["factor"] == 4.0


def test_neurons_of_another_kind_take_what_they_have_and_the_line_names_the_rest():
    config = recipe("cifar10-mps-unofficial", protocol="spikformer")
    assert config.model.neuron_options["threshold"] == 2.0
    assert departures(config) == []
    assert "the neurons smoothed-lif have no v_init, v_reset, detach_reset" in protocol_line(config)
    assert recipe("cifar10-mps-unofficial", protocol="twkd").model.neuron_options["smoothing"] == 0.5


def test_a_size_of_two_numbers_departs_in_the_words_of_the_command_line():
    config = parse_config(recipe("image_folder-sce", "twkd"), ["--data.size", "48", "64"])
    assert departures(config) == ["--data.size 48 64 (protocol: 224)"]


def test_the_protocols_are_those_that_a_configuration_names():
    (named, _) = get_args(Config.model_fields["protocol"].annotation)
    assert set(get_args(named)) == set(PROTOCOLS) == {name for name, _ in TABLE} | {name for name, _ in TRANSFORMERS}
    assert Config.from_yaml(recipe("cifar10-twkd", "twkd").to_yaml()).protocol == "twkd"


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        ("dspike", {"model.lif.surrogate": "dspike", "model.lif.decay": 0.2}),
        ("tdbn", {"model.norm": "tdbn"}),
        ("rate", {"gradient": "rate", "gradient_scale": "1/T"}),
        ("sltt", {"gradient": "sltt", "gradient_scale": "1"}),
        ("dsr", {"gradient": "dsr", "model.lif.detach_reset": False}),
    ],
)
def test_what_makes_a_method_stays(method, kept):
    config = recipe(f"cifar10-{method}", protocol="esd")
    for key, value in kept.items():
        found = config
        for name in key.split("."):
            found = getattr(found, name)
        assert (key, found) == (key, value)
    assert (config.optimizer.schedule_per, departures(config)) == ("epoch", [])


# On the command line

DEPARTING = {
    "": "no deviations; unknown: (1)",
    "--timesteps 4 --model.name resnet19": "no deviations;",  # which the paper has too
    "--timesteps 3 --model.width 0.25": "deviations: --model.width 0.25 (protocol: 1), --timesteps 3 (protocol: 6);",
    "--model.lif.detach-reset --data.augment crop flip": "deviations: --data.augment crop flip (protocol: crop flip autoaugment "
    "cutout), --model.lif.detach-reset (protocol: False);",
    "--trainer.precision bf16-mixed --optimizer.lr=0.4": "deviations: --optimizer.lr 0.4 (protocol: 0.1), --trainer.precision "
    "bf16-mixed (protocol: 32-true);",
    "--objective.options.teacher ensemble": "deviations: --objective.options.teacher ensemble (protocol: correct);",
}


@pytest.mark.parametrize("given", DEPARTING)
def test_what_is_given_wins_and_is_named(given):
    config = parse_config(recipe("cifar100-twkd"), ["--protocol", "twkd", *given.split()])
    line = protocol_line(config)
    assert line.startswith("protocol twkd, settings of CIFAR-100; " + DEPARTING[given])
    assert "\n" not in line
    flags = given.replace("=", " ")
    named = " ".join(departure.partition(" (protocol")[0] for departure in departures(config))
    assert not named or sorted(named.split()) == sorted(flags.split())


def test_tser_says_that_nobody_published_its_weights():
    line = protocol_line(recipe("cifar100-tser-unofficial", protocol="tser-unofficial"))
    assert "its loss, which nobody published" in line
    assert "its results are not set beside published numbers" in line


REFUSED = {
    "cifar10-twkd --protocol twdk": "no protocol is called 'twdk': did you mean 'twkd'? choose one of esd, s2w, "
    "tser-unofficial, twkd, spikformer, sdt, qkformer, max-former",
    "digits-twkd --protocol twkd": "--protocol twkd has no settings for digits, only for cifar10, cifar100, cifar10_dvs, "
    "dvs_gesture, event_folder, event_frames, image_folder, imagenet, ncaltech101, nmnist: leave it out",
    "nmnist-tser-unofficial --protocol tser-unofficial": "--protocol tser-unofficial has no settings for nmnist, only for cifar10, "
    "cifar100: leave it out",
    "cifar10-s2w --protocol s2w --data.name image_folder": "--protocol s2w has no settings for image_folder, only for cifar10, "
    "cifar100, cifar10_dvs, dvs_gesture, event_folder, event_frames, ncaltech101, nmnist: leave it out",
    "image_folder-ann --protocol twkd": "--protocol twkd trains no ANN on ImageNet, because its authors took a trained one: leave "
    "it out, or pass such weights to the student, --teacher FILE.safetensors --teacher-model NAME",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_protocol_that_does_not_fit_is_refused_in_one_line(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *line.split()]) == 2
    assert capsys.readouterr().err == f"spikedistill train: {REFUSED[line]}\n"
    assert not list(tmp_path.iterdir())


def test_a_comparison_takes_protocols_and_wants_their_teacher(tmp_path):
    settings = ["--protocol", "twkd", "--epochs", "2"]
    configs = [variant(text, settings) for text in ("cifar10-sce", "cifar10-skd", "cifar10-esd,protocol=esd")]
    assert [config.protocol for config in configs] == ["twkd", "twkd", "esd"]
    assert [departures(config) for config in configs] == [["--epochs 2 (protocol: 300)"]] * 3
    with pytest.raises(
        ValueError, match=r"train cifar10-ann --protocol twkd, and pass it, --teacher runs/cifar10-ann/seed0$"
    ):
        compare(configs, [0], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="train one, spikedistill train cifar10-ann --protocol twkd, and pass it"):
        make_plan(tiny("cifar10-skd", "twkd"))


# Twenty steps


@pytest.fixture(autouse=True)
def images(monkeypatch):
    """Eighty images in the place of CIFAR-10."""
    draw = torch.Generator().manual_seed(7)
    pixels = torch.randint(256, (80, 3, 32, 32), generator=draw, dtype=torch.uint8)
    samples = TensorSamples(pixels, torch.arange(80) % 10)
    statistics = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "kind": "image", "channels": 3, "size": (32, 32)}
    classes = tuple(map(str, range(10)))
    dataset = Dataset("cifar10", samples, samples, classes, augmentations=(), **statistics)
    monkeypatch.setattr(plans, "dataset_of", lambda config: dataset)


def tiny(name: str, protocol: str, **changes) -> Config:
    """Two epochs of ten steps at three timesteps, a sixteenth of the width: all else is the protocol's."""
    config = recipe(name, protocol=protocol)
    small = {
        "epochs": 2,
        "timesteps": 3,
        "data": config.data.model_copy(update={"batch_size": 8}),
        "model": config.model.model_copy(update={"width": 1 / 16}),
        "trainer": TrainerConfig(accelerator="cpu", progress=False),
    }
    return config.model_copy(update=small | changes)


def teacher():
    torch.manual_seed(1)
    network = create_model("cifar_resnet34", num_classes=10, neuron="relu", width=1 / 16)
    return lambda images: network.eval()(images, timesteps=1).mean(0).detach()


def trained(config: Config, folder) -> nn.Module:
    plan = make_plan(config, teacher() if config.objective.name == "twkd" else None)
    module = DistillationModule(plan)
    trainer = make_trainer(plan, folder, [])
    fit(trainer, module)
    assert trainer.global_step == 20
    return module.network


def by_hand(config: Config, folder) -> nn.Module:
    """The same in plain PyTorch, as the papers' code: SGD in two groups, and a cosine that moves once per epoch."""
    plan = make_plan(config, teacher() if config.objective.name == "twkd" else None)
    module = DistillationModule(plan)
    network, position = module.network.train(), [0, 0]
    weights = [p for name, p in network.named_parameters() if p.ndim > 1]
    others = [p for name, p in network.named_parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    sgd = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=2)
    batches = make_batches(plan, make_trainer(plan, folder, []))
    batches.position = lambda: tuple(position)
    for epoch in range(2):
        position[0] = epoch
        for number, (samples, target, _) in enumerate(batches):
            torch.manual_seed(derive_seed(config.seed, epoch, number, 0))
            inputs = augment(as_network_input(samples, "image"), ("crop", "flip", "autoaugment", "cutout"))
            logits = network.heads(inputs, timesteps=3)[1] if config.model.branches else network(inputs, timesteps=3)
            taught = {"teacher_logits": plan.teacher.logits(inputs, "image")} if plan.teacher else {}
            loss = plan.objective(logits, target, **taught).total
            sgd.zero_grad()
            (loss / 3 if config.model.branches else loss).backward()
            sgd.step()
        cosine.step()
    return network


@pytest.mark.parametrize("name", ["twkd", "esd"])
def test_twenty_steps_are_reproducible_and_those_of_a_plain_loop(name, tmp_path):
    config = tiny(f"cifar10-{name}", name)
    given = {departure.split()[0] for departure in departures(config)}
    assert given == {"--model.width", "--epochs", "--timesteps", "--data.batch-size"}
    first, second = (trained(config, tmp_path).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    expected = by_hand(config, tmp_path).state_dict()
    assert all(torch.allclose(value, expected[key], rtol=1e-4, atol=1e-6) for key, value in first.items())
    start = make_plan(config, teacher() if name == "twkd" else None).build_network().state_dict()
    assert not any(torch.equal(value, start[key]) for key, value in first.items() if key.endswith("weight"))


@pytest.mark.parametrize("name", ["twkd", "esd"])
def test_a_run_says_which_protocol_it_was_made_with(name, tmp_path, monkeypatch, capsys):
    """Whole runs on eight images of two classes."""
    monkeypatch.undo()  # these are files
    for number in range(8):
        folder = tmp_path / ("train", "test")[number // 4] / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (30 * number, 90, 200 - 20 * number)).save(folder / f"{number}.png")
    size = "--data.size 32 --model.width 0.0625 --epochs 1 --timesteps 2 --data.batch-size 4"
    given = ["--data.root", str(tmp_path), "--trainer.no-progress", "--out", str(tmp_path / "run"), *size.split()]
    recipe_name = "image_folder-sce" if name == "twkd" else "image_folder-esd"
    assert main(["train", recipe_name, "--protocol", name, *given]) == 0
    _, line, *_ = capsys.readouterr().out.splitlines()
    config = RunFolder(tmp_path / "run").config()
    assert config.protocol == name
    assert line == protocol_line(config)
    assert {departure.split()[0] for departure in departures(config)} == {flag for flag in size.split() if "--" in flag}
