"""Counts what the layers of a network compute, while it runs on real samples."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..errors import UserError
from ..through_time import Steps, Temporal, logits_over_time
from ..through_time.features import OverTime
from ..through_time.steps import check_steps, frames_of, in_eval_mode, sent_to, steps
from .operations import LayerOperations, NeuronOperations, OperationCounts
from .products import Products
from .recorder import firing_kinds
from .synapses import Levels, Synapses, fan_out, positions
from .watching import watching_steps


@torch.no_grad()
def count_operations(
    model: Steps,
    batches: Iterable[Tensor | tuple[Tensor, Tensor]],
    timesteps: int | None = None,
    *,
    spiking: tuple[type[nn.Module], ...] = (),
) -> OperationCounts:
    """Count what a network computes for each sample, layer by layer and timestep by timestep, from its real spikes.

    It counts the operations of convolutions and linear layers, the products and sums of signals, as in attention, and the updates
    and spikes of neurons. Batch-norm is assumed to be folded into the layer before it; biases, poolings and the additions of
    shortcuts are not counted. The effective counts are exact: an input at the border is multiplied with fewer weights than one
    inside, for any padding, stride, dilation or groups.

    Args:
        model: a network from `load`, `create_model` or `temporal`, or any other with `step(x, state) -> (logits,
            state)` whose layers are modules of PyTorch. It is put in eval mode and otherwise left as it is.
        batches: inputs as the network takes them, or pairs of inputs and targets, such as a DataLoader.
        timesteps: T, for static inputs only.
        spiking: types of further layers of neurons, as in `record`.

    Raises:
        UserError: for no batch, inputs that do not fit the network, batches of differently shaped samples, or a network of another
            library without convolutions or linear layers, or one that skips a layer at some timesteps.
    """
    if isinstance(batches, Tensor):
        raise UserError(f"batches is one tensor {list(batches.shape)}, expected several of them: put it in a list")
    check_steps(model)
    in_eval_mode(model)
    firing = firing_kinds(model, spiking)
    batch_axis = 1 if timesteps is None else 0
    tally, products, samples, uncounted, expected = _Tally(firing), Products(), 0, 0, None
    for batch in batches:
        x = batch if isinstance(batch, Tensor) else batch[0]
        x = sent_to(model, x)
        shape = [size for axis, size in enumerate(x.shape) if axis != batch_axis]
        if 0 in x.shape:
            raise UserError(f"a batch is empty: {list(x.shape)}")
        if expected is not None and shape != expected:
            raise UserError(f"the batches hold samples {expected} and {shape}, expected one shape")
        if isinstance(model, Temporal):
            with (
                tally.watching(model.module, timesteps or x.shape[0]),
                products.watching(model.module, x.shape[batch_axis]),
            ):
                model(x, timesteps)
        else:
            tally.count_steps(model, frames_of(x, timesteps))
        if expected is None:
            if not tally.layers and not isinstance(model, Temporal):
                raise UserError(
                    f"no convolution or linear layer of a {type(model).__name__} ran, so there is nothing to count: expected "
                    "modules of PyTorch that belong to it"
                )
            counted = sum(sum(layer.dense) for layer in tally.layers.values())
            counted += sum(sum(row.dense_macs) for row in products.rows(1) if row.is_matrix)
            # PyTorch's counter does not know every product, such as one of vectors
            uncounted = max(_macs(model, x.narrow(batch_axis, 0, 1), timesteps) - counted, 0)
        samples, expected = samples + x.shape[batch_axis], shape
    if expected is None:
        raise UserError("there was nothing to count, expected at least one batch")
    return OperationCounts(
        samples,
        timesteps or expected[0],
        [layer.row(path, samples) for path, layer in tally.layers.items()],
        [
            NeuronOperations(path, neurons, (spikes.double() / samples).tolist())
            for path, (neurons, spikes) in tally.neurons.items()
        ],
        uncounted,
        products.rows(samples),
    )


def _macs(model: Steps, x: Tensor, timesteps: int | None) -> int:
    """Every multiply-accumulate of a pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        logits_over_time(model, x, timesteps)
    return counter.get_total_flops() // 2


class _Tally:
    """The sums over batches, by layer.

    Args:
        firing: types of the layers of neurons.
    """

    def __init__(self, firing: tuple[type[nn.Module], ...]) -> None:
        self.firing = firing
        self.layers: dict[str, _LayerTally] = {}
        self.neurons: dict[str, tuple[int, Tensor]] = {}

    @contextmanager
    def watching(self, network: nn.Module, timesteps: int) -> Iterator[None]:
        """Count the pass of `timesteps` timesteps that runs in the block."""
        calls: Counter[str] = Counter()
        over_time = OverTime()

        def watch(path: str, take: Any) -> Any:
            def after(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
                values = over_time.of(path, inputs[0], output)
                if values is not None:
                    take(path if calls[path] == 0 else f"{path}#{calls[path]}", module, *values)
                    calls[path] += 1

            return after

        kinds: list[tuple[Any, Any]] = [(Synapses, partial(self._synapses, timesteps)), (self.firing, self._neurons)]
        handles = [
            module.register_forward_hook(watch(path, take))
            for path, module in network.named_modules()
            for kind, take in kinds
            if isinstance(module, kind)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def count_steps(self, model: Steps, frames: Sequence[Tensor]) -> None:
        """Count a pass of a network that is run step by step.

        Raises:
            UserError: if a layer did not run at every timestep.
        """
        parts: dict[str, tuple[Any, list[tuple[Tensor, Tensor]]]] = {}

        def take(path: str, layer: Any, values: Tensor, output: Tensor) -> None:
            parts.setdefault(path, (layer, []))[1].append((values, output))

        with watching_steps(model, (_ConvNd, nn.Linear, *self.firing), take):
            total = sum(1 for _ in steps(model, frames))
        for path, (layer, values) in parts.items():
            if len(values) != total:
                raise UserError(
                    f"layer {path!r} ran at {len(values)} of {total} timesteps, expected a network that runs all its layers at each"
                )
            joined = [torch.cat(part) for part in zip(*values, strict=True)]
            if isinstance(layer, self.firing):
                self._neurons(path, layer, *joined)
            else:
                self._synapses(total, path, layer, *joined)

    def _synapses(self, timesteps: int, path: str, layer: Synapses, values: Tensor, output: Tensor) -> None:
        if path not in self.layers:
            self.layers[path] = _LayerTally(layer, values, output, timesteps)
        self.layers[path].add(values)

    def _neurons(self, path: str, layer: nn.Module, currents: Tensor, spikes: Tensor) -> None:
        count = spikes.count_nonzero(dim=list(range(1, spikes.ndim))).cpu()
        self.neurons[path] = (spikes[0, 0].numel(), count + (self.neurons[path][1] if path in self.neurons else 0))


class _LayerTally:
    """One layer, over all samples.

    Args:
        layer: the layer.
        values: its inputs in a pass, `[T or 1, B, ...]`.
        output: its outputs in that pass.
        timesteps: T.
    """

    def __init__(self, layer: Synapses, values: Tensor, output: Tensor, timesteps: int) -> None:
        # a `Signal` returns a constant input as a view that repeats one timestep
        self.constant = len(values) == 1 or values.stride(0) == 0
        self.passes = 1 if self.constant else timesteps
        self.timesteps = timesteps
        self.weights = layer.weight.numel()
        self.inputs = values[0, 0].numel()
        dense = positions(layer, values.shape[3:], output.shape[2:]) * self.weights
        self.dense = [dense] * self.passes + [0] * (timesteps - self.passes)
        self.fan_out = fan_out(layer, values.shape[3:]).to(values.device)
        self.effective = torch.zeros(timesteps, dtype=torch.int64)
        self.active = torch.zeros(timesteps, dtype=torch.int64)
        self.levels = Levels()

    def add(self, values: Tensor) -> None:
        """Add the inputs of a further batch, `[T, B, ...]`."""
        values = values[: self.passes]
        nonzero = values != 0
        touched = nonzero.sum(1)
        self.active[: self.passes] += touched.flatten(1).sum(1).cpu()
        self.effective[: self.passes] += (touched * self.fan_out).flatten(1).sum(1).cpu()
        self.levels.add(values)

    def row(self, path: str, samples: int) -> LayerOperations:
        """The counts per sample."""
        effective, none = (self.effective.double() / samples).tolist(), [0.0] * self.timesteps
        two_valued = self.levels.two_valued
        # a constant input counts at every timestep, although its layer computes once
        active = self.active[:1].expand(self.timesteps) if self.constant else self.active
        return LayerOperations(
            path,
            two_valued,
            self.constant,
            effective if two_valued else none,
            none if two_valued else effective,
            self.dense,
            (1 - active.double() / (samples * self.inputs)).tolist(),
            self.weights,
            self.inputs,
        )
