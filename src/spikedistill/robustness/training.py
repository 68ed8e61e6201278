"""Training on attacked images: the images, the term of TRADES, and weights that are kept near orthogonal.

Attacks see the network in eval mode through its own surrogates, at the T of training; only the images get gradients.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attacks import Look, Pgd

_NEAR = 1e-3  # where TRADES begins, because the divergence has no gradient at the image itself


def pgd_images(look: Look, x: Tensor, target: Tensor, attack: Pgd) -> Tensor:
    """Images on which the cross-entropy of the mean logits is high (Madry et al., ICLR 2018)."""
    return attack(look, x, target, 2 * torch.rand_like(x) - 1)


def trades_images(look: Look, x: Tensor, attack: Pgd) -> Tensor:
    """Images whose prediction is far from that of the images themselves: KL(p(x) || p(x')) is high (Zhang et al., ICML 2019)."""
    with torch.no_grad():
        prediction = look(x).mean(0).softmax(-1)
    changed = (x + _NEAR * torch.randn_like(x)).clamp(0, 1)
    for _ in range(attack.steps):
        with torch.enable_grad():
            changed = changed.detach().requires_grad_()
            away = F.kl_div(look(changed).mean(0).log_softmax(-1), prediction, reduction="sum")
            (gradient,) = torch.autograd.grad(away, changed)
        changed = attack.within(changed.detach() + attack.length * gradient.sign(), x)
    return changed


def trades(clean: Tensor, attacked: Tensor) -> Tensor:
    """KL(p(x) || p(x')), a mean over the batch, from logits `[T, B, C]`; gradients reach both."""
    log_p, log_q = (logits.mean(0).log_softmax(-1) for logits in (clean, attacked))
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@torch.no_grad()
def retract(network: nn.Module, beta: float) -> None:
    """Move the rows of every weight towards orthogonality: W <- (1 + beta) W - beta W W^T W, with W `[out, in]`.

    It is a step of gradient descent on |W W^T - I|^2 beside the loss's (Cisse et al., Parseval networks, ICML 2017), as in RAT
    (Ding et al., NeurIPS 2022). RAT's code takes 30 percent of the rows, drawn anew, where a linear layer has 200 or more.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            weight = module.weight.flatten(1)
            module.weight.copy_(((1 + beta) * weight - beta * weight @ weight.T @ weight).view_as(module.weight))
