"""Spiking transformers beside their authors' code, with equal weights: parameters, spikes of every layer of neurons, and logits.

The released networks are made from the authors' files. Their weights are copied to ours in the order in which the layers run, and
both run on the same images in float64, where no rounding decides a spike. Of what their files import, only SpikingJelly 0.0.0.0.12
is needed; the other names give initial values, which play no part here.
"""

import json
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spikedistill import LIF, create_model

from .results import commit, machine, versions

_T, _SAMPLES = 4, 2
# Their LIF divides its current by tau = 2, fires at 1 and resets to 0: ours without the division fires at 2.
_NEURON: dict[str, Any] = {"decay": 0.5, "threshold": 2.0, "v_reset": 0.0, "detach_reset": True}
_SMALL = {"in_channels": 3, "mlp_ratios": 4}
_PLAIN = _SMALL | {"sr_ratios": 1}


class Released(NamedTuple):
    """A released network.

    Attributes:
        ours: the name of our network.
        repository: the folder of the authors' repository below the references.
        files: those of its code, in the order in which they are read into one namespace.
        kind: its class.
        options: of that class.
        classes: of its data set.
        side: of the images to compare on. Those for ImageNet are compared on small ones, which changes no layer.
        twice: layers of neurons that get the same currents as another one, and are one layer in ours.
        folded: layers that get time folded into the batch `[T*B, ...]`, and take it for time.
    """

    ours: str
    repository: str
    files: tuple[str, ...]
    kind: str
    options: dict[str, Any]
    classes: int = 10
    side: int = 32
    twice: tuple[str, ...] = ()
    folded: str | None = None


_SPIKE_DRIVEN = ("module/ms_conv.py", "module/sps.py", "model/spikeformer.py")
_MAX = tuple(f"cifar10-100/{name}.py" for name in ("embedding_hub", "mixer_hub", "max_former"))


def _imagenet(name: str, channels: int, heads: int) -> Released:
    options = _PLAIN | {"embed_dims": channels, "num_heads": heads, "depths": 10}
    return Released(
        name, "QKFormer", ("imagenet/qkformer.py",), "hierarchical_spiking_transformer", options, 1000, 64, (), r"attn\.proj_lif"
    )  # fmt: skip


RELEASED = (
    Released(
        "spikformer", "spikformer", ("cifar10/model.py",), "Spikformer",
        _PLAIN | {"embed_dims": 384, "num_heads": 12, "depths": 4},
    ),
    Released(
        "spikformer_8_512", "spikformer", ("imagenet/model.py",), "Spikformer",
        _PLAIN | {"embed_dims": 512, "num_heads": 8, "depths": 8, "img_size_h": 64, "img_size_w": 64}, 1000, 64,
    ),
    Released(
        "sdt", "Spike-Driven-Transformer", _SPIKE_DRIVEN, "SpikeDrivenTransformer",
        _PLAIN | {"embed_dims": 512, "num_heads": 8, "depths": 2, "pooling_stat": "0011"},
    ),
    Released(
        "sdt_8_512", "Spike-Driven-Transformer", _SPIKE_DRIVEN, "SpikeDrivenTransformer",
        _PLAIN | {"embed_dims": 512, "num_heads": 8, "depths": 8}, 1000, 64,
    ),
    Released(
        "qkformer", "QKFormer", ("cifar10/model.py",), "spiking_transformer",
        _PLAIN | {"embed_dims": 384, "num_heads": 8, "depths": 4}, folded=r"ssa\.proj_lif",
    ),
    _imagenet("qkformer_10_384", 384, 6),
    _imagenet("qkformer_10_768", 768, 12),
    Released(
        "max_former", "MaxFormer", _MAX, "Max_Former", _SMALL | {"embed_dims": 384, "depths": 4},
        twice=("patch_embed1.embed2.embed_lif",),
    ),
)  # fmt: skip


def compare_released(references: Path, out: Path, command: str, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Write the numbers of every network, or of those with these names of ours; it goes on where it was stopped.

    Raises:
        ValueError: without the files, naming what to put there, or if a network differs in its layers.
    """
    about = {"machine": machine("cpu"), "versions": versions(), **commit(), "command": command}
    about |= {"timesteps": _T, "samples": _SAMPLES}
    done = {row["network"]: row for row in json.loads(out.read_text())["rows"]} if out.is_file() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    for each in RELEASED:
        if each.ours in done or (names and each.ours not in names):
            continue
        done[each.ours] = compare(each, references)
        rows = [done[other.ours] for other in RELEASED if other.ours in done]
        written = {"written": datetime.now(UTC).isoformat(timespec="seconds")}
        out.write_text(json.dumps(about | written | {"rows": rows}, indent=1) + "\n")
    return [done[each.ours] for each in RELEASED if each.ours in done]


@torch.no_grad()
def compare(each: Released, references: Path) -> dict[str, Any]:
    """One network beside ours."""
    torch.manual_seed(0)
    theirs = released(each, references).double()
    x = torch.rand(_SAMPLES, 3, each.side, each.side, dtype=torch.float64)
    x = (x - 0.5) / 0.25
    make_live(theirs, x)
    ours = create_model(each.ours, num_classes=each.classes, **_NEURON).double().eval()
    order, their_spikes, their_logits = run_theirs(theirs, x, each)
    copied = copy_weights(order, layers_in_order(ours, lambda: ours(x, _T)))
    our_spikes, our_logits = run_ours(ours, x)
    if len(their_spikes) != len(our_spikes):
        raise ValueError(f"{each.ours}: {len(their_spikes)} layers of neurons there, {len(our_spikes)} here")
    their_spikes = [as_ours(a, b) for a, b in zip(their_spikes, our_spikes, strict=True)]
    different = sum(int((a != b).sum()) for a, b in zip(their_spikes, our_spikes, strict=True))
    rates = [float(spikes.mean()) for spikes in their_spikes]
    row = {
        "network": each.ours,
        "classes": each.classes,
        "side": each.side,
        "parameters": sum(p.numel() for p in ours.parameters()),
        "parameters_released": sum(p.numel() for p in theirs.parameters()),
        "parameters_released_unused": sum(p.numel() for p in theirs.parameters()) - copied,
        "neuron_layers": len(our_spikes),
        "constant_layers": sum(rate in (0, 1) for rate in rates),
        "spikes_compared": sum(spikes.numel() for spikes in our_spikes),
        "spikes_different": different,
        "firing_rate": sum(rates) / len(rates),
        "logits_difference": float((their_logits - our_logits).abs().max()),
        "logits_range": float(their_logits.max() - their_logits.min()),
    }
    if each.folded:
        _, folded, _ = run_theirs(theirs, x, each._replace(folded=None))
        row["spikes_different_as_released"] = sum(
            int((a != as_ours(b, a)).sum()) for a, b in zip(our_spikes, folded, strict=True)
        )
    print(row, flush=True)
    return row


def released(each: Released, references: Path) -> nn.Module:
    """The authors' network.

    Raises:
        ValueError: naming a file that is not there, or SpikingJelly of another version.
    """
    _stand_ins()
    space: dict[str, Any] = {"__name__": f"released_{each.ours}"}
    for name in each.files:
        path = references / each.repository / name
        if not path.is_file():
            raise ValueError(
                f"{path} is not there: put a copy of the authors' repository {each.repository} into {references}"
            )
        source = re.sub(r"^from (module|\w+_hub) import \*$", "", path.read_text(), flags=re.MULTILINE)
        # one namespace for all files, and loops that run on a CPU
        source = re.sub(r"""backend=(['"])cupy\1""", 'backend="torch"', source)
        exec(compile(source, str(path), "exec"), space)
    network: nn.Module = space[each.kind](num_classes=each.classes, **each.options)  # T is 4 by default
    return network.eval()


def _stand_ins() -> None:
    """Let their files import the names of timm and einops that they use to initialise weights, or not at all.

    Raises:
        ValueError: without SpikingJelly's neurons of that time.
    """

    def nothing(*args: Any, **kwargs: Any) -> Any:
        return args[0] if args else None

    names = {
        "timm.models": ("create_model",),
        "timm.models.layers": ("to_2tuple", "trunc_normal_", "DropPath"),
        "timm.models.registry": ("register_model",),
        "timm.models.vision_transformer": ("_cfg",),
        "einops.layers.torch": ("Rearrange",),
    }
    for path, members in names.items():
        for end in range(1, path.count(".") + 2):
            sys.modules.setdefault(name := ".".join(path.split(".")[:end]), types.ModuleType(name))
        for member in members:
            setattr(sys.modules[path], member, nothing)
    sys.modules["timm.models.layers"].to_2tuple = lambda size: (size, size)  # type: ignore[attr-defined]
    try:
        import spikingjelly.clock_driven.neuron  # noqa: F401 their files import it too
    except ImportError as error:
        raise ValueError(
            f"{error}: install spikingjelly==0.0.0.0.12 with --no-deps --target FOLDER, and pass --libraries FOLDER"
        ) from error


def make_live(network: nn.Module, x: Tensor) -> None:
    """Give batch-norms the statistics of these images, and scales and shifts behind which neurons fire."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.uniform_(1.5, 3.0)
            module.bias.uniform_(0.0, 1.0)
            module.momentum = 1.0
    network.train()(x)
    network.eval()
    _reset(network)


@contextmanager
def watching(network: nn.Module, kinds: Any, take: Callable[[str, nn.Module, Any], None]) -> Iterator[None]:
    """Call `take(path, layer, output)` for every call of a layer of these kinds in the block."""

    def hook_of(path: str) -> Any:
        return lambda layer, given, output: take(path, layer, output)

    handles = [
        layer.register_forward_hook(hook_of(path))
        for path, layer in network.named_modules()
        if isinstance(layer, kinds)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)


def layers_in_order(network: nn.Module, run: Callable[[], Any]) -> list[Any]:
    """The layers with weights in the order in which they run."""
    found: list[Any] = []
    with watching(network, _WEIGHTED, lambda path, layer, output: found.append(layer)):
        run()
    return found


def run_theirs(network: nn.Module, x: Tensor, each: Released) -> tuple[list[Any], list[Tensor], Tensor]:
    """Their layers with weights in order, the spikes `[T, B, ...]` of their neurons, and their mean logits `[B, C]`."""
    from spikingjelly.clock_driven.neuron import MultiStepLIFNode

    spikes: list[Tensor] = []
    logits: list[Any] = []
    unfolded = [
        layer
        for path, layer in network.named_modules()
        if each.folded and re.search(each.folded, path) and isinstance(layer, MultiStepLIFNode)
    ]

    def keep(path: str, layer: nn.Module, output: Tensor) -> None:
        if path not in each.twice:
            spikes.append(output)

    handles = [
        layer.register_forward_pre_hook(lambda layer, given: (given[0].unflatten(0, (_T, -1)),)) for layer in unfolded
    ]
    with watching(network, MultiStepLIFNode, keep):
        # after the hook that keeps the spikes
        handles += [
            layer.register_forward_hook(lambda layer, given, output: output.flatten(0, 1)) for layer in unfolded
        ]
        order = layers_in_order(network, lambda: logits.append(network(x)))
    for handle in handles:
        handle.remove()
    _reset(network)
    out = logits[0][0] if isinstance(logits[0], tuple) else logits[0]
    return order, spikes, out


def _reset(network: nn.Module) -> None:
    from spikingjelly.clock_driven import functional

    functional.reset_net(network)


def copy_weights(theirs: Sequence[Any], ours: Sequence[Any]) -> int:
    """Copy weights and statistics, layer by layer, and count the parameters.

    Raises:
        ValueError: if the layers are others.
    """
    if len(theirs) != len(ours):
        raise ValueError(f"{len(theirs)} layers with weights there, {len(ours)} here")
    copied = 0
    for there, here in zip(theirs, ours, strict=True):
        for name, tensor in here.state_dict().items():
            given = there.state_dict()[name]
            # a linear layer or a convolution over a sequence is a 1x1 convolution here
            if given.numel() != tensor.numel() or given.shape != tensor.shape[: given.ndim]:
                raise ValueError(f"{name} of {there} is {list(given.shape)}, and of {here} {list(tensor.shape)}")
            tensor.copy_(given.view_as(tensor))
        copied += sum(p.numel() for p in here.parameters())
    return copied


def run_ours(network: nn.Module, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The spikes `[T, B, ...]` of our neurons in order, and our mean logits `[B, C]`."""
    spikes: list[Tensor] = []
    with watching(network, LIF, lambda path, layer, output: spikes.append(output.over_time())):
        logits = network(x, _T).mean(0)
    return spikes, logits


def as_ours(theirs: Tensor, ours: Tensor) -> Tensor:
    """Their spikes in the shape of ours: tokens become pixels, and channels come before them.

    Raises:
        ValueError: for another number of neurons.
    """
    if theirs.numel() != ours.numel():
        raise ValueError(f"a layer of neurons is {list(theirs.shape)} there and {list(ours.shape)} here")
    channels_last = theirs.ndim == 4 and ours.ndim == 5 and theirs.shape[-1] == ours.shape[2] != theirs.shape[2]
    return (theirs.transpose(-2, -1) if channels_last else theirs).reshape(ours.shape)


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A row for each network: parameters here and there, and how spikes and logits agree."""
    lines = [
        "| network | classes | parameters | released | layers of neurons | spikes that differ | largest difference of logits |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        released, unused = row["parameters_released"], row["parameters_released_unused"]
        there = f"{released:,}" + (f", of which {unused:,} unused" if unused else "")
        lines.append(
            f"| `{row['network']}` | {row['classes']} | {row['parameters']:,} | {there} | {row['neuron_layers']} | "
            f"{row['spikes_different']} of {row['spikes_compared']:,} | {row['logits_difference']:.0e} |"
        )
    return "\n".join(lines)
