"""Features before the teacher's own classifier, and predictions with noise: numbers by hand, gradients, and who may teach."""

import pytest
import torch
from quick_runs import quick

from spikedistill import create_model
from spikedistill.models import save_model
from spikedistill.objectives import activation_map_kl, class_activation_map, classified_kd, logit_kd
from spikedistill.objectives.distillation import noisy_kd
from spikedistill.training.plan import make_plan

LOGITS = torch.zeros(4, 1, 2)


def pooled(features):
    """Two classes, of which the first reads channel 0 and the second twice channel 1."""
    mean = features.mean((2, 3))
    return torch.stack([mean[:, 0], 2 * mean[:, 1]], 1)


def test_the_activation_map_behind_global_pooling_is_the_channels_times_the_weights_of_the_answer():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]], [[[5.0, 2.0]], [[0.0, 1.0]]]])
    # the first sample's means are 1.5 and 1, so that class 1 has 2 · 1 and is the answer; the second's 3.5 wins
    assert class_activation_map(features, pooled).tolist() == [[6.0, 0.0], [5.0, 2.0]]


def test_the_activation_map_behind_a_classifier_that_flattens_has_weights_for_every_position():
    weight = torch.tensor([[1.0, -1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    features = torch.tensor([[[[3.0, 1.0]], [[2.0, 7.0]]]])
    # 3 · 1 + 2 · 2 at the first of two positions, 1 · -1 at the second
    found = class_activation_map(features, lambda value: value.flatten(1) @ weight.T)
    assert found.tolist() == [[2 * 7.0, 0.0]]


def test_the_activation_map_is_the_same_inside_no_grad_and_leaves_the_classifier_alone():
    layer, features = torch.nn.Linear(3, 2), torch.rand(2, 3, 2, 2)
    outside = class_activation_map(features, lambda value: layer(value.mean((2, 3))))
    with torch.no_grad():
        assert torch.equal(class_activation_map(features, lambda value: layer(value.mean((2, 3)))), outside)
    assert not outside.requires_grad
    assert layer.weight.grad is None


def test_where_the_student_is_active_learns_from_where_the_teacher_sees_its_answer():
    # four timesteps; spikes per position 4 · (1/4 + 0) = 1 and 4 · (1/2 + 1/4) = 3, of which 0 .. 2 is made 0 .. 1
    student = [torch.tensor([[[[0.25, 0.5]], [[0.0, 0.25]]]])]
    teacher = [torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])]  # its map is 6 and 0
    p, r = torch.tensor([[6 / 6.001, 0.0], [0.0, 2 / 2.001]]).div(2.0).softmax(1)
    found = activation_map_kl(LOGITS, student, teacher, pooled)
    assert found.item() == pytest.approx((p * (p / r).log()).sum().item(), rel=1e-5)


def test_a_student_that_is_active_elsewhere_is_moved_there():
    teacher = [torch.tensor([[[[0.0, 0.0, 0.0, 2.0]], [[0.0, 0.0, 0.0, 0.0]]]])]
    student = torch.tensor([[[[1.0, 0.0, 0.75, 0.25]], [[0.0, 0.0, 0.0, 0.0]]]], requires_grad=True)
    activation_map_kl(LOGITS, [student], teacher, pooled).backward()
    *_, third, fourth = student.grad[0, 0, 0].tolist()
    assert third > 0 > fourth


def test_maps_of_nothing_are_alike():
    silent = [torch.zeros(1, 2, 3, 3, requires_grad=True)]
    value = activation_map_kl(LOGITS, silent, [torch.zeros(1, 2, 3, 3)], pooled)
    value.backward()
    assert value.item() == 0
    assert silent[0].grad.isfinite().all()


def test_the_teachers_classifier_reads_the_students_features_and_the_students_own_logits_take_no_part():
    student = torch.tensor([[[[1.0]], [[0.5]]]], requires_grad=True)
    logits = torch.randn(4, 1, 2, requires_grad=True)
    taught = torch.tensor([[2.0, 0.0]])
    loss = classified_kd(logits, taught, [student], [torch.zeros(1, 2, 1, 1)], pooled, temperature=1.0)
    p, r = taught[0].softmax(0), torch.tensor([1.0, 1.0]).softmax(0)
    assert loss.item() == pytest.approx((p * (p / r).log()).sum().item(), rel=1e-5)
    of_logits, of_features = torch.autograd.grad(loss, [logits, student], allow_unused=True)
    assert of_logits is None
    # (r - p) through the weights 1 and 2
    assert of_features.flatten().tolist() == pytest.approx([(r - p)[0].item(), 2 * (r - p)[1].item()])


@pytest.mark.parametrize("teacher_logits", [torch.randn(3, 5), torch.randn(4, 3, 5)])
def test_without_noise_a_noisy_prediction_is_the_prediction(teacher_logits):
    logits = torch.randn(4, 3, 5)
    plain = logit_kd(logits, teacher_logits, temperature=2.0)
    torch.testing.assert_close(noisy_kd(logits, teacher_logits, noise=0.0), plain)
    torch.manual_seed(0)
    first = noisy_kd(logits, teacher_logits, noise=0.5)
    assert first != noisy_kd(logits, teacher_logits, noise=0.5), "drawn anew"
    torch.manual_seed(0)
    assert first == noisy_kd(logits, teacher_logits, noise=0.5)


def test_noise_is_as_wide_as_the_logits_vary():
    """With noise alone, logits that do not vary predict all classes alike, whatever the draw."""
    teacher = torch.tensor([[3.0, 0.0, 0.0]])
    p = (teacher[0] / 2).softmax(0)
    expected = 4 * (p * (3 * p).log()).sum().item()
    assert noisy_kd(torch.ones(2, 1, 3), teacher, noise=1.0).item() == pytest.approx(expected, rel=1e-5)
    wide = torch.tensor([[[9.0, 0.0, 0.0]]])
    drawn = torch.stack([noisy_kd(wide, teacher, noise=1.0) for _ in range(50)])
    assert drawn.std() > 1


def test_a_teacher_that_spikes_behind_its_last_stage_is_refused_and_one_that_ends_in_a_linear_layer_is_not(tmp_path):
    spec = {"num_classes": 10, "in_channels": 1, "image_size": 8, "width": 0.25}
    for name, options in (("resnet19", {}), ("resnet19", {"neuron": "relu"}), ("convnet", {})):
        file = tmp_path / f"{name}-{len(options)}.safetensors"
        whole = {"name": name, **spec, **options}
        save_model(create_model(**whole), whole, file)
        config = quick("digits-enof-laf", out=tmp_path, teacher=file)
        config = config.model_copy(update={"model": config.model.model_copy(update={"name": name})})
        if (name, options) == ("resnet19", {}):
            with pytest.raises(
                ValueError, match="the teacher's classifier has spiking neurons, and its input would be mean rates"
            ):
                make_plan(config)
        else:
            assert make_plan(config).teacher.classifier is not None


def test_a_teacher_whose_classifier_tells_timesteps_apart_is_refused(tmp_path):
    spec = {"name": "ms_resnet18", "num_classes": 10, "in_channels": 1, "image_size": 8, "width": 0.1, "neuron": "relu"}
    spec |= {"norm": "timestep_batch", "norm_timesteps": 3}
    model, file = create_model(**spec), tmp_path / "teacher.safetensors"
    with torch.no_grad():
        model(torch.rand(8, 1, 8, 8), 3)
        for value in model.buffers():
            if value.is_floating_point():
                value.add_(torch.rand_like(value))
    save_model(model, spec, file)
    config = quick("digits-enof-laf", out=tmp_path, teacher=file)
    changes = {"name": "ms_resnet18", "width": 0.1}
    with pytest.raises(
        ValueError, match=r"returns other logits for the teacher.s mean features .* use a teacher without"
    ):
        make_plan(config.model_copy(update={"model": config.model.model_copy(update=changes)}))


def test_features_without_positions_have_one():
    features, weight = torch.tensor([[2.0, 1.0], [0.5, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    # the first sample's logits are 2 and 2, of which the first is the answer; the second's 0.5 and 6
    assert class_activation_map(features, lambda value: value @ weight.T).sum(1).tolist()[1] == 6.0
    assert activation_map_kl(torch.zeros(3, 2, 2), [features], [features], lambda value: value @ weight.T).item() == 0


def test_under_autocast_the_student_is_compared_in_single_precision():
    layer, student, teacher = torch.nn.Linear(8, 4), [torch.rand(3, 8)], [torch.rand(3, 8)]
    with torch.autocast("cpu", torch.bfloat16):
        loss = classified_kd(torch.zeros(2, 3, 4), torch.randn(3, 4), student, teacher, layer)
    assert loss.dtype == torch.float32
