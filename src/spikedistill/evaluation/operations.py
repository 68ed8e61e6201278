"""What a network computes per layer and timestep, counted from its own spikes.

The terms are those of NeuroBench (Yik et al., Nature Communications 2025): a *synaptic operation* is one weight applied
to one input. It is *effective* if the input is not zero; *dense* counts include all. It is an accumulate (AC) if the
inputs of the layer are spikes, and a multiply-accumulate (MAC) otherwise. Zero weights count like all others.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerOperations:
    """A convolution or linear layer: counts per sample, a list entry for each timestep.

    Attributes:
        layer: its path; a layer that is called again in the same pass has a further row, `path#1`.
        two_valued: whether all its inputs, over all samples and timesteps, were 0 or one other value. Only then its
            operations are accumulates, because the value can be multiplied into its weights beforehand.
        constant: whether its input is the same at every timestep, as in the stem of a static image. Then it is computed once, and
            all its operations count at the first timestep. A network of another library computes it at every timestep.
        effective_acs: accumulates for non-zero inputs; zero if the layer is not `two_valued`.
        effective_macs: multiply-accumulates for non-zero inputs; zero if the layer is `two_valued`.
        dense_macs: all multiply-accumulates, including those of zero inputs and of padding, as
            `torch.utils.flop_counter` counts.
        activation_sparsity: fraction of zeros among its inputs.
        weights: how many weights it has.
        inputs: how many inputs it has for a sample and timestep.
    """

    layer: str
    two_valued: bool
    constant: bool
    effective_acs: list[float]
    effective_macs: list[float]
    dense_macs: list[int]
    activation_sparsity: list[float]
    weights: int
    inputs: int


@dataclass(frozen=True)
class NeuronOperations:
    """A layer of spiking neurons.

    Attributes:
        layer: its path, as in `LayerOperations`.
        neurons: how many there are; each is updated at every timestep.
        spikes: how many fire at each timestep, mean over samples.
    """

    layer: str
    neurons: int
    spikes: list[float]


@dataclass(frozen=True)
class OperationCounts:
    """The operations of a network per sample, mean over samples.

    Attributes:
        samples: how many samples were counted.
        timesteps: T.
        layers: convolutions and linear layers, in the order of the pass.
        neurons: layers of spiking neurons.
        uncounted_macs: dense multiply-accumulates of all T timesteps outside of these layers, such as the products of attention.
            No other count includes them.
    """

    samples: int
    timesteps: int
    layers: list[LayerOperations]
    neurons: list[NeuronOperations]
    uncounted_macs: int

    @property
    def effective_acs(self) -> float:
        """Accumulates of all layers and timesteps."""
        return sum(sum(row.effective_acs) for row in self.layers)

    @property
    def effective_macs(self) -> float:
        """Multiply-accumulates of all layers and timesteps for non-zero inputs."""
        return sum(sum(row.effective_macs) for row in self.layers)

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of all layers and timesteps, including those of zero inputs."""
        return sum(sum(row.dense_macs) for row in self.layers)

    @property
    def ann_macs(self) -> int:
        """Dense multiply-accumulates of the same network as an ANN, which computes every layer once."""
        return sum(row.dense_macs[0] for row in self.layers)

    @property
    def activation_sparsity(self) -> float | None:
        """Fraction of neurons and timesteps without a spike; None without neurons."""
        updates = self.timesteps * sum(row.neurons for row in self.neurons)
        return 1 - sum(sum(row.spikes) for row in self.neurons) / updates if updates else None

    def as_dict(self) -> dict[str, Any]:
        """Rows and totals as plain values, to be written as JSON."""
        totals = ("effective_acs", "effective_macs", "dense_macs", "ann_macs", "activation_sparsity")
        return asdict(self) | {name: getattr(self, name) for name in totals}
