"""Exits of an ANN and of a spiking network: numbers by hand, and who teaches whom."""

import pytest
import torch

from spikedistill.objectives import exits_ce, exits_kd

ANN, SNN = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([[[1.0, 1.0]], [[3.0, 0.0]]])


def kl(teacher, student):
    p, r = teacher.softmax(-1), student.softmax(-1)
    return (p * (p / r).log()).sum().item()


def test_all_exits_of_both_networks_learn_the_label_and_are_summed_up():
    logits = torch.cat([ANN, SNN])
    expected = sum(-row[0].log_softmax(-1)[1].item() for row in logits)
    assert exits_ce(logits, torch.tensor([1])).item() == pytest.approx(expected, rel=1e-6)


def test_the_anns_head_teaches_its_exit_and_each_exit_the_spiking_networks_there():
    expected = kl(ANN[1], ANN[0]) + kl(ANN[0], SNN[0]) + kl(ANN[1], SNN[1])
    assert exits_kd(torch.cat([ANN, SNN]), temperature=1.0).item() == pytest.approx(expected, rel=1e-5)


def test_who_only_teaches_learns_nothing():
    logits = torch.cat([ANN, SNN]).requires_grad_()
    (gradient,) = torch.autograd.grad(exits_kd(logits), logits)
    assert gradient[1].abs().max() == 0, "the ANN's own head"
    assert all(gradient[place].abs().max() > 0 for place in (0, 2, 3))


def test_networks_without_exits_have_their_own_heads_alone():
    assert exits_kd(torch.cat([ANN[1:], SNN[1:]]), temperature=1.0).item() == pytest.approx(
        kl(ANN[1], SNN[1]), rel=1e-5
    )


@pytest.mark.parametrize("loss", [lambda z: exits_ce(z, torch.tensor([0])), exits_kd])
def test_an_odd_number_of_exits_is_refused(loss):
    with pytest.raises(ValueError, match="an even number; got 3: use a network made with joint=True"):
        loss(torch.zeros(3, 1, 2))
