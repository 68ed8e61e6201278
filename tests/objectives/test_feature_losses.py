"""Features of a trained network: numbers by hand, what fits, and a real run that learns from them."""

import pytest
import torch
from quick_runs import assert_resumes_to_the_same_bytes, quick
from safetensors.torch import load_file

from spikedistill import create_model, train
from spikedistill.data import load_dataset
from spikedistill.models import save_model
from spikedistill.objectives import blurred_distance, create_objective, feature_distance, feature_mse, similarity
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder
from spikedistill.training.inputs import AtHand, inputs_of
from spikedistill.training.module import DistillationModule
from spikedistill.training.plan import make_plan

LOGITS = torch.zeros(3, 2, 4)
STUDENT = [torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[[1.0]], [[1.0]]])]
TEACHER = [torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[[0.0]], [[1.0]]])]


def test_the_squared_distance_is_a_sum_over_layers_and_a_mean_over_samples():
    # layer 1: 0 + 1 + 0 + 4, layer 2: 1 + 0; two samples
    assert feature_distance(LOGITS, STUDENT, TEACHER).item() == pytest.approx((5 + 1) / 2)


def test_the_mean_squared_difference_is_a_mean_in_each_layer():
    # 5 / 4 and 1 / 2
    assert feature_mse(LOGITS, STUDENT, TEACHER).item() == pytest.approx(1.75)


def test_similarity_compares_which_samples_are_alike():
    # student: orthogonal samples, G = identity; teacher: the same sample twice, every row (1, 1) / sqrt 2
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0], [1.0]])
    half = 0.5**0.5
    expected = 2 * ((1 - half) ** 2 + half**2) / 4
    assert similarity(LOGITS, [student], [teacher]).item() == pytest.approx(expected, rel=1e-6)


def test_similarity_sees_neither_scale_nor_rotation_and_takes_other_shapes():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(48, 48, generator=generator, dtype=torch.float64))[0]
    turned = 5 * features.flatten(1) @ rotation
    assert similarity(LOGITS, [features], [turned]).item() == pytest.approx(0, abs=1e-20)
    assert similarity(LOGITS, [features], [features.flip(0)]).isfinite()
    assert similarity(LOGITS, [features[:, :1]], [features.amax((2, 3))]) > 0


@pytest.mark.parametrize("loss", [feature_mse, blurred_distance])
def test_features_pass_their_layers_transforms_first(loss):
    student, teacher = [torch.rand(2, 3), torch.rand(2, 4)], [torch.rand(2, 3), torch.rand(2, 4)]
    torch.manual_seed(0)
    passed = loss(LOGITS, student, teacher, [lambda f: f * 0, lambda f: f])
    torch.manual_seed(0)
    assert passed != loss(LOGITS, student, teacher)
    with pytest.raises(ValueError, match="transforms must be as many as the features' layers; got 1 and 2"):
        loss(LOGITS, student, teacher, [torch.nn.Identity()])


@pytest.mark.parametrize("name", ["sakd", "bkdsnn-unofficial"])
def test_an_objective_with_transforms_asks_for_them(name):
    features, target = [torch.rand(2, 3, 4, 4)], torch.tensor([0, 1])
    taught = {"teacher_logits": LOGITS[0], "teacher_features": features}
    with pytest.raises(
        ValueError, match=f"objective '{name}' learns from features that pass .*; got no transforms: pass"
    ):
        create_objective(name)(LOGITS, target, features=features, **taught)


LOSSES = [feature_distance, feature_mse, blurred_distance, similarity]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_teachers_features_are_detached(loss):
    student, teacher = ([torch.randn(2, 3, requires_grad=True)] for _ in range(2))
    loss(LOGITS, student, teacher).backward()
    assert student[0].grad.abs().max() > 0
    assert teacher[0].grad is None


@pytest.mark.parametrize("loss", LOSSES)
def test_features_are_compared_in_single_precision_also_under_autocast(loss):
    generator = torch.Generator().manual_seed(0)
    student, teacher = ([torch.randn(2, 64, generator=generator).bfloat16()] for _ in range(2))
    torch.manual_seed(0)
    plain = loss(LOGITS, [student[0].float()], [teacher[0].float()])
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(loss(LOGITS, student, teacher), plain)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (STUDENT, TEACHER[:1], "must come from as many layers, 1 or more; got 2 and 1: name layers that both"),
        ([], [], "must come from as many layers, 1 or more; got 0 and 0"),
        ([torch.zeros(2, 3, 4, 4)], [torch.zeros(2, 6, 4, 4)], r"layer 0 are \[2, 3, 4, 4\] in the student and \[2, 6, 4, 4\]"),
        ([torch.zeros(3, 4)], [torch.zeros(3, 4)], r"must be floating point \[2, ...\].*; got torch.float32 \[3, 4\] for layer 0"),
        ([torch.zeros(2, 4, dtype=torch.int64)], [torch.zeros(2, 4)], "got torch.int64"),
        ([None], [torch.zeros(2, 4)], "got NoneType for layer 0"),
    ],
)  # fmt: skip
def test_features_that_do_not_fit_are_refused(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        feature_distance(LOGITS, student, teacher)


# Runs


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Files of two ReLU networks, untrained, of the student's width and of twice that."""
    folder, files = tmp_path_factory.mktemp("teachers"), {}
    dataset = load_dataset("digits")
    for width in (0.25, 0.5):
        torch.manual_seed(3)
        sizes = {"num_classes": 10, "in_channels": 1, "image_size": 8, "mean": dataset.mean, "std": dataset.std}
        spec = {"name": "convnet", "neuron": "relu", "width": width, **sizes}
        files[width] = folder / f"{width}.safetensors"
        save_model(create_model(**spec), spec, files[width])
    return files


def module_of(config):
    return DistillationModule(make_plan(config))


def at_hand(module, images, target, submodels, features):
    """What training gives the objective of a module on a batch."""
    return AtHand(
        objective=module.plan.objective,
        teacher=module.plan.teacher,
        kind="image",
        inputs=images,
        target=target,
        submodels=submodels,
        features=features,
        transforms=list(module.transforms),
    )


def test_the_students_mean_rates_and_the_teachers_activations_are_compared_stage_by_stage(teachers, tmp_path):
    module = module_of(quick("digits-kdsnn", timesteps=2, out=tmp_path, teacher=teachers[0.25]))
    names = [f"network.features.{layer}" for layer in (1, 3, 5)]
    assert list(module.plan.layers.items()) == list(zip(names, (4, 8, 16), strict=True))
    images = torch.rand(5, 1, 8, 8)
    logits, submodels, features = module.look(images, torch.arange(len(images)))
    assert logits is submodels
    assert [feature.shape[1:] for feature in features] == [(4, 8, 8), (8, 4, 4), (16, 2, 2)]
    assert all(set((2 * feature).unique().tolist()) <= {0.0, 1.0, 2.0} for feature in features), (
        "rates of two timesteps"
    )
    given = inputs_of(at_hand(module, images, torch.arange(5), submodels, features))
    # the ReLU twin once more, layer by layer
    network = module.plan.teacher.function.network.module
    x = network.normalize(images)
    for number, layer in enumerate(network.network.features):
        x = layer(x)
        if number in (1, 3, 5):
            torch.testing.assert_close(given["teacher_features"][number // 2], x)
    assert given["teacher_logits"].shape == (5, 10)


@pytest.mark.parametrize(
    "name", ["kdsnn", "sakd", "lasnn-unofficial", "bkdsnn-unofficial", "ckdsnn-unofficial", "enof-laf"]
)
def test_features_move_the_student_and_no_gradient_reaches_the_teacher(name, teachers, tmp_path):
    module = module_of(quick(f"digits-{name}", out=tmp_path, teacher=teachers[0.25]))
    images, target = torch.rand(8, 1, 8, 8), torch.arange(8)
    _, submodels, features = module.look(images, torch.arange(len(images)))
    inputs = inputs_of(at_hand(module, images, target, submodels, features))
    torch.manual_seed(0)
    value = module.plan.objective(submodels, target, **inputs)
    term = module.plan.objective.terms[-1]
    torch.manual_seed(0)
    of_features = term.function(submodels, **{name: inputs[name] for name in term.inputs})
    torch.testing.assert_close(of_features.detach(), value.terms[term.name])
    of_features.backward()
    first = next(p for p in module.network.parameters() if p.ndim == 4)
    assert first.grad.abs().max() > 0
    frozen = list(module.plan.teacher.function.parameters())
    assert frozen
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    assert all(p.grad.abs().max() > 0 for p in module.transforms.parameters() if p.ndim == 4)
    assert len(list(module.transforms)) == {"sakd": 3, "bkdsnn-unofficial": 1}.get(name, 0)


def test_another_teacher_of_features_makes_another_student_and_itself_stays(teachers, tmp_path):
    options = {"objective": recipe("digits-lasnn-unofficial").objective.model_copy(update={"options": {"alpha": 0.01}})}
    before = teachers[0.25].read_bytes()
    runs = {}
    for name, changes in (("lasnn-unofficial", options | {"teacher": teachers[0.25]}), ("sce", {})):
        runs[name] = RunFolder(train(quick(f"digits-{name}", out=tmp_path / name, **changes)))
    one, other = (load_file(run.model) for run in runs.values())
    assert one.keys() == other.keys()
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert teachers[0.25].read_bytes() == before
    rows = runs["lasnn-unofficial"].metrics.read_text().splitlines()
    row = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    assert float(row["loss/feature_distance"]) > 0


@pytest.mark.parametrize("name", ["sakd", "bkdsnn-unofficial"])
def test_trained_transforms_are_learned_with_the_network_and_left_behind(name, teachers, tmp_path):
    objective = recipe(f"digits-{name}").objective
    if "beta" in objective.options:  # its own is next to nothing on so small a layer
        objective = objective.model_copy(update={"options": objective.options | {"beta": 0.1}})
    config = quick(f"digits-{name}", out=tmp_path / "run", teacher=teachers[0.25], objective=objective, epochs=2)
    before = module_of(config).transforms[0][0].weight
    run = RunFolder(train(config))
    state = torch.load(run.checkpoint, weights_only=False)["state_dict"]
    assert (state["transforms.0.0.weight"] - before).abs().max() > 1e-3
    assert not any("transform" in key for key in load_file(run.model))


@pytest.mark.parametrize("name", ["sakd", "bkdsnn-unofficial", "ckdsnn-unofficial"])
def test_a_resumed_run_goes_on_with_its_transforms_and_its_draws(name, teachers, tmp_path, monkeypatch):
    config = quick(f"digits-{name}", out=tmp_path, teacher=teachers[0.25])
    assert_resumes_to_the_same_bytes(config, monkeypatch)


def test_named_layers_are_compared_alone(teachers, tmp_path):
    options = recipe("digits-kdsnn").objective.options | {"layers": "features.5"}
    objective = recipe("digits-kdsnn").objective.model_copy(update={"options": options})
    plan = make_plan(quick("digits-kdsnn", out=tmp_path, teacher=teachers[0.25], objective=objective))
    assert plan.layers == {"network.features.5": 16}


def test_the_last_stage_is_a_layer_by_name_on_every_network(teachers, tmp_path):
    config = quick("digits-bkdsnn-unofficial", out=tmp_path, teacher=teachers[0.25])
    assert make_plan(config).layers == {"network.features.5": 16}
    options = config.objective.options | {"layers": "features.1, last"}
    objective = config.objective.model_copy(update={"options": options})
    plan = make_plan(config.model_copy(update={"objective": objective}))
    assert plan.layers == {"network.features.1": 4, "network.features.5": 16}


def test_planning_a_run_leaves_the_random_generator_alone(teachers, tmp_path):
    torch.manual_seed(3)
    make_plan(quick("digits-bkdsnn-unofficial", out=tmp_path, teacher=teachers[0.25]))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    make_plan(quick("digits-kdsnn", out=tmp_path, teacher=teachers[0.25]))
    assert torch.equal(drawn, torch.rand(1))


def test_features_that_do_not_fit_are_found_before_training(teachers, tmp_path):
    with pytest.raises(
        ValueError, match=r"layer 0 are \[1, 4, 8, 8\] in the student and \[1, 8, 8, 8\] in the teacher"
    ):
        make_plan(quick("digits-kdsnn", out=tmp_path, teacher=teachers[0.5]))
    assert len(make_plan(quick("digits-supersnn-similarity", out=tmp_path, teacher=teachers[0.5])).layers) == 3
    with pytest.raises(
        ValueError,
        match="objective 'kdsnn' learns from features inside the teacher, and a function returns only logits",
    ):
        make_plan(quick("digits-kdsnn", out=tmp_path), teacher=lambda images: torch.zeros(len(images), 10))
    objective = recipe("digits-kdsnn").objective.model_copy(update={"options": {"layers": "features.99"}})
    with pytest.raises(ValueError, match=r"no layer 'network\.features\.99': did you mean"):
        make_plan(quick("digits-kdsnn", out=tmp_path, teacher=teachers[0.25], objective=objective))


@pytest.mark.parametrize("gradient", ["sltt", "rate", "dsr"])
def test_features_are_learned_under_every_gradient_rule(gradient, teachers, tmp_path):
    config = quick("digits-kdsnn", out=tmp_path, teacher=teachers[0.25], gradient=gradient)
    module = module_of(config)
    _, submodels, features = module.look(torch.rand(8, 1, 8, 8), torch.arange(8))
    feature_mse(submodels, features, [torch.zeros_like(f) for f in features]).backward()
    assert next(p for p in module.network.parameters() if p.ndim == 4).grad.abs().max() > 0


def test_the_sum_of_right_timesteps_takes_over_epoch_by_epoch(tmp_path):
    run = RunFolder(train(quick("digits-tks", out=tmp_path / "run", epochs=4)))
    head, *rows = (line.split(",") for line in run.metrics.read_text().splitlines())
    for epoch, row in enumerate(rows):
        value = {name: float(cell) for name, cell in zip(head, row, strict=True)}
        a = 1 - 0.7 * epoch / 4
        mixed = a * value["loss/sce"] + (1 - a) * value["loss/right_sum"]
        assert value["train_loss"] == pytest.approx(mixed, rel=1e-4)
