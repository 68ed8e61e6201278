"""An ordinary network that exits early: heads behind its stages, and an image exits when the heads so far are confident enough.

After BranchyNet (Teerapittayanon et al., ICPR 2016), with the heads and the training of the library's branches. The
logits of the heads so far are averaged, as those of a spiking network's timesteps are, and the confidence is that of the mean.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikedistill.evaluation.exits import Progress, advance, exit_score
from spikedistill.models import create_model
from spikedistill.models.branches import Branched
from spikedistill.models.layers import Normalize
from spikedistill.models.layouts.resnet import ResNet
from spikedistill.run_folder import RunFolder
from spikedistill.training.plan import plan_without_teacher

_HEADS = "network.branches."  # in a checkpoint


class EarlyExitAnn:
    """A trained ReLU ResNet with heads.

    Args:
        run: its folder, with its last checkpoint, which alone has the heads.
        threshold: of the confidence.
        compiled: whether each stage, with its head, is one compiled function.
    """

    def __init__(self, run: Path, threshold: float = 1.0, *, compiled: bool = False) -> None:
        folder = RunFolder(run)
        self.threshold = threshold
        self.normalize, self.network = parts_of(run)
        made = create_model(**plan_without_teacher(folder.config()).spec, branches=True)
        assert isinstance(made, Branched)
        saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        heads = {name.removeprefix(_HEADS): value for name, value in saved.items() if name.startswith(_HEADS)}
        made.branches.load_state_dict(heads)
        self.heads = made.branches.eval()
        stages = [lambda x, number=number: self._stage(number, x) for number in range(len(self.network.stages))]
        self._parts: list[Callable[[Tensor], Any]] = [self._begin, *stages]
        if compiled:
            self._parts = [torch.compile(part, dynamic=False) for part in self._parts]
        self._compiles = compiled  # at the first image, with constant weights

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Of all heads, `[S, B, C]`."""
        return torch.stack(list(self._heads(images)))

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[int, int]:
        """The class of one image, and after how many heads it was given."""
        if self._compiles:
            self._compiles = False
            with torch._inductor.config.patch(freezing=True):
                list(self._heads(image))
        progress: Progress | None = None
        for logits in self._heads(image):
            progress = advance(progress, logits)
            if float(exit_score(progress, "confidence")) >= self.threshold:
                break
        assert progress is not None
        return int(progress.answer), progress.timesteps

    def _heads(self, images: Tensor) -> Iterator[Tensor]:
        begin, *stages = self._parts
        x = begin(images)
        for stage in stages:
            x, logits = stage(x)
            yield logits

    def _begin(self, images: Tensor) -> Tensor:
        return self.network.stem(self.normalize(images))

    def _stage(self, number: int, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.network.stages[number](x)
        return x, self.heads[number](x) if number < len(self.heads) else self.network.classify(x)


def parts_of(run: Path) -> tuple[Normalize, ResNet]:
    """The normalisation and the network of a run of a ResNet."""
    folder = RunFolder(run)
    module = folder.load_network(folder.model).module
    normalize, network = module.normalize, module.network
    assert isinstance(normalize, Normalize)
    assert isinstance(network, ResNet)
    return normalize, network
