"""What a network computes per layer, product and timestep, counted from its own spikes.

The terms are those of NeuroBench (Yik et al., Nature Communications 2025): a *synaptic operation* is one weight applied
to one input. It is *effective* if the input is not zero; *dense* counts include all. It is an accumulate (AC) if the
inputs of the layer are spikes, and a multiply-accumulate (MAC) otherwise. Zero weights count like all others.
"""

from dataclasses import asdict, dataclass, field
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
class ProductOperations:
    """A product of two signals, or a sum over a signal's axes: counts per sample, a list entry for each timestep.

    A term of a product is effective if none of its factors is zero. A matrix product of spikes with anything accumulates what the
    spikes select; a mask of spikes selects, and takes no arithmetic, so that it has no row; a sum accumulates.

    Attributes:
        product: the path of the module that computes it, and the function; a further one has `#1`.
        is_matrix: whether it is a matrix product.
        two_valued: of each signal, whether all its values were 0 or one other value.
        effective_acs: accumulates of effective terms.
        effective_macs: multiply-accumulates of effective terms; zero if a signal is two-valued.
        dense_macs: all multiply-accumulates of a product, including those of zeros; zero for a sum. Unlike
            `torch.utils.flop_counter` it includes products that are elementwise, if no signal is two-valued.
        inputs: how many values each signal has for a sample and timestep.
    """

    product: str
    is_matrix: bool
    two_valued: list[bool]
    effective_acs: list[float]
    effective_macs: list[float]
    dense_macs: list[int]
    inputs: list[int]


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
        uncounted_macs: dense multiply-accumulates of all T timesteps elsewhere: products with tensors, of three signals, inside a
            `Recurrent`, or in a network of another library. No other count includes them.
        products: products of two signals and sums over axes.
    """

    samples: int
    timesteps: int
    layers: list[LayerOperations]
    neurons: list[NeuronOperations]
    uncounted_macs: int
    products: list[ProductOperations] = field(default_factory=list)

    @property
    def _rows(self) -> "list[LayerOperations | ProductOperations]":
        return [*self.layers, *self.products]

    @property
    def effective_acs(self) -> float:
        """Accumulates of all layers, products and timesteps."""
        return sum(sum(row.effective_acs) for row in self._rows)

    @property
    def effective_macs(self) -> float:
        """Multiply-accumulates of all layers, products and timesteps for non-zero inputs."""
        return sum(sum(row.effective_macs) for row in self._rows)

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of all layers, products and timesteps, including those of zero inputs."""
        return sum(sum(row.dense_macs) for row in self._rows)

    @property
    def ann_macs(self) -> int:
        """Dense multiply-accumulates of the same network as an ANN, which computes every layer and product once."""
        return sum(row.dense_macs[0] for row in self._rows)

    @property
    def activation_sparsity(self) -> float | None:
        """Fraction of neurons and timesteps without a spike; None without neurons."""
        updates = self.timesteps * sum(row.neurons for row in self.neurons)
        return 1 - sum(sum(row.spikes) for row in self.neurons) / updates if updates else None

    def as_dict(self) -> dict[str, Any]:
        """Rows and totals as plain values, to be written as JSON."""
        totals = ("effective_acs", "effective_macs", "dense_macs", "ann_macs", "activation_sparsity")
        return asdict(self) | {name: getattr(self, name) for name in totals}
