"""An ordinary network that exits early: heads behind its stages, and an image exits when the heads so far are confident enough.

After BranchyNet (Teerapittayanon et al., ICPR 2016), with the heads and the training of the library's branches. The
logits of the heads so far are averaged, as those of a spiking network's timesteps are, and the confidence is that of the mean.
"""

from collections.abc import Iterator
from pathlib import Path

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
    """

    def __init__(self, run: Path, threshold: float = 1.0) -> None:
        folder = RunFolder(run)
        self.threshold = threshold
        self.normalize, self.network = parts_of(run)
        made = create_model(**plan_without_teacher(folder.config()).spec, branches=True)
        assert isinstance(made, Branched)
        saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        heads = {name.removeprefix(_HEADS): value for name, value in saved.items() if name.startswith(_HEADS)}
        made.branches.load_state_dict(heads)
        self.heads = made.branches.eval()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Of all heads, `[S, B, C]`."""
        return torch.stack(list(self._heads(images)))

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[int, int]:
        """The class of one image, and after how many heads it was given."""
        progress: Progress | None = None
        for logits in self._heads(image):
            progress = advance(progress, logits)
            if float(exit_score(progress, "confidence")) >= self.threshold:
                break
        assert progress is not None
        return int(progress.answer), progress.timesteps

    def _heads(self, images: Tensor) -> Iterator[Tensor]:
        x = self.network.stem(self.normalize(images))
        for number, stage in enumerate(self.network.stages):
            x = stage(x)
            yield self.heads[number](x) if number < len(self.heads) else self.network.classify(x)


def parts_of(run: Path) -> tuple[Normalize, ResNet]:
    """The normalisation and the network of a run of a ResNet."""
    folder = RunFolder(run)
    module = folder.load_network(folder.model).module
    normalize, network = module.normalize, module.network
    assert isinstance(normalize, Normalize)
    assert isinstance(network, ResNet)
    return normalize, network
