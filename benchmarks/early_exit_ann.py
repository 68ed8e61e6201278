"""An ordinary network that exits early: heads behind its stages, and an image exits at the first head that is confident enough.

After BranchyNet (Teerapittayanon et al., ICPR 2016), with the heads and the training of the library's branches.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikedistill.exporting.graph import quietly
from spikedistill.models import create_model
from spikedistill.models.branches import Branched
from spikedistill.models.layers import Normalize
from spikedistill.models.layouts.resnet import ResNet
from spikedistill.run_folder import RunFolder
from spikedistill.training.plan import plan_without_teacher

from .frozen import Frozen

_HEADS = "network.branches."  # in a checkpoint
Part = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From images or the features before a stage to the features behind it and the logits of its head."""


class Stage(nn.Module):
    """A stage of a network with its head.

    Args:
        body: to the features of the stage.
        head: to logits.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x)
        return x, self.head(x)


class EarlyExitAnn:
    """A trained ReLU ResNet with heads.

    Args:
        run: its folder, with its last checkpoint, which alone has the heads.
        threshold: of the confidence, the largest probability of a head.
        runs_in: PyTorch, PyTorch with compiled stages, or ONNX Runtime.
    """

    def __init__(
        self, run: Path, threshold: float = 1.0, runs_in: Literal["PyTorch", "compiled", "ONNX Runtime"] = "PyTorch"
    ) -> None:
        self.threshold = threshold
        normalize, network = parts_of(run)
        made = create_model(**plan_without_teacher(RunFolder(run).config()).spec, branches=True)
        assert isinstance(made, Branched)
        saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        heads = {name.removeprefix(_HEADS): value for name, value in saved.items() if name.startswith(_HEADS)}
        made.branches.load_state_dict(heads)
        last = nn.Sequential(network.final, network.pool, nn.Flatten(1), network.head)
        first, *others = network.stages.children()
        bodies = [nn.Sequential(normalize, network.stem, first), *others]
        pairs = zip(bodies, [*made.branches.children(), last], strict=True)
        self._parts: list[Part] = [Stage(body, head).eval() for body, head in pairs]
        self._runs_in = runs_in

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Of each head, `[S, B, C]`."""
        return torch.stack(list(self._heads(images)))

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[int, int]:
        """The class of one image, and after how many heads it was given."""
        self._prepare(image)
        heads = 0
        for logits in self._heads(image):
            heads += 1
            if float(logits.double().softmax(-1).max()) >= self.threshold:
                break
        return int(logits.argmax()), heads

    def _heads(self, images: Tensor) -> Iterator[Tensor]:
        x = images
        for part in self._parts:
            x, logits = part(x)
            yield logits

    def _prepare(self, image: Tensor) -> None:
        """Make the stages ready at the first image."""
        if self._runs_in == "PyTorch":
            return
        made: list[Part] = []
        for part in self._parts:
            made.append(Frozen(part) if self._runs_in == "compiled" else _in_onnx_runtime(part, image))
            image, _ = made[-1](image)
        self._parts, self._runs_in = made, "PyTorch"


def _in_onnx_runtime(part: Any, x: Tensor) -> Part:
    """A stage in ONNX Runtime, on one thread."""
    import onnxruntime

    with quietly():
        program = torch.onnx.export(part, (x,), dynamo=True, verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (given,) = (each.name for each in session.get_inputs())

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = session.run(None, {given: x.numpy()})
        return torch.from_numpy(features), torch.from_numpy(logits)

    return run


def as_timesteps(heads: Tensor) -> Tensor:
    """Logits `[S, B, C]` whose running means are those of the heads, for policies that judge means over timesteps."""
    numbers = torch.arange(1, len(heads) + 1, dtype=torch.float64).view(-1, 1, 1)
    return (numbers * heads.double()).diff(dim=0, prepend=torch.zeros_like(heads[:1], dtype=torch.float64))


def parts_of(run: Path) -> tuple[Normalize, ResNet]:
    """The normalisation and the network of a run of a ResNet."""
    folder = RunFolder(run)
    module = folder.load_network(folder.model).module
    normalize, network = module.normalize, module.network
    assert isinstance(normalize, Normalize)
    assert isinstance(network, ResNet)
    return normalize, network
