"""The energy of counted operations: an estimate from a table of costs, not a measurement."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import UserError
from .operations import LayerOperations, NeuronOperations, OperationCounts, ProductOperations

_WORD, _BIT = 4.0, 1 / 8  # bytes


@dataclass(frozen=True)
class EnergyCosts:
    """Energy of single operations, in picojoules.

    Attributes:
        name: of the table.
        mac_pj: a 32-bit multiply-accumulate.
        ac_pj: a 32-bit accumulate.
        byte_pj: a byte read or written.
        source: the publication of these numbers.
    """

    name: str
    mac_pj: float
    ac_pj: float
    byte_pj: float
    source: str


ENERGY_COSTS = {
    "45nm": EnergyCosts(
        "45nm",
        mac_pj=4.6,
        ac_pj=0.9,
        byte_pj=12.5,
        source="Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014: 45 nm, 0.9 V, 32-bit floating "
        "point, addition 0.9 pJ and multiplication 3.7 pJ; 64 bits from a 1 MB on-chip memory 100 pJ",
    )
}
"""Energy of operations and memory, by technology."""


@dataclass(frozen=True)
class LayerEnergy:
    """An estimate for one layer, in picojoules per sample, a list entry for each timestep.

    Attributes:
        layer: path of a convolution, a linear layer, or a layer of neurons.
        operations_pj: energy of its synaptic operations, or of its neurons' updates.
        memory_pj: energy of the bytes it moves.
    """

    layer: str
    operations_pj: list[float]
    memory_pj: list[float]


@dataclass(frozen=True)
class EnergyEstimate:
    """An estimate, in picojoules per sample; lists have an entry for each timestep.

    Attributes:
        costs: the table of costs.
        layers: convolutions and linear layers.
        neurons: layers of neurons.
        products: products and sums of signals.
        ann_synaptic_pj: synaptic energy of the same network as an ANN, which computes every dense multiply-accumulate
            once.
        ann_total_pj: the same plus the ANN's memory traffic: weights and inputs read once, activations written once, 32
            bits each.
    """

    costs: EnergyCosts
    layers: list[LayerEnergy]
    neurons: list[LayerEnergy]
    ann_synaptic_pj: float
    ann_total_pj: float
    products: list[LayerEnergy] = field(default_factory=list)

    @property
    def synaptic_pj(self) -> list[float]:
        """Energy of synaptic operations, products and sums only, for each timestep."""
        return _sums([row.operations_pj for row in [*self.layers, *self.products]])

    @property
    def total_pj(self) -> list[float]:
        """Energy of synaptic operations, products, neurons and memory traffic, for each timestep."""
        rows = [*self.layers, *self.products, *self.neurons]
        return _sums([row.operations_pj for row in rows] + [row.memory_pj for row in rows])

    def as_dict(self) -> dict[str, Any]:
        """The estimate as plain values for JSON, marked as an estimate."""
        return {"estimate": True} | asdict(self) | {"synaptic_pj": self.synaptic_pj, "total_pj": self.total_pj}


def energy(counts: OperationCounts, costs: str | EnergyCosts = "45nm") -> EnergyEstimate:
    """Estimate the energy of counted operations.

        synapses = E_AC · effective ACs + E_MAC · effective MACs
        neurons  = E_MAC · updates + E_AC · spikes          u <- decay · u + current, and a subtraction for each spike
        memory   = E_byte · bytes moved

    Papers report the first number. It excludes neurons and memory traffic, which often cost most, so the sum of all
    three is given too. The memory model is a device that runs layer by layer, one sample at a time, with one kind of
    memory: at each timestep a layer reads its weights and its inputs, a matrix product both its signals, and neurons read and
    write their membranes and write their spikes. Masks and sums are computed where the values pass by. Two-valued inputs and
    spikes take one bit, all other numbers 32. Static power, control and transport between cores are not included.

    The mean energy under early exit is about `sum(active[t] * total_pj[t])` with a row of `ExitCurve.active`. It is not exact,
    because the counts are means over all samples, including those that have left.

    Args:
        counts: the result of `count_operations`.
        costs: "45nm", or your own table.

    Raises:
        UserError: for an unknown table.
    """
    if isinstance(costs, str):
        if costs not in ENERGY_COSTS:
            raise UserError(f"costs is {costs!r}, expected one of {', '.join(ENERGY_COSTS)}, or an EnergyCosts")
        costs = ENERGY_COSTS[costs]
    ann_bytes = sum(_WORD * (row.weights + row.inputs) for row in counts.layers)
    ann_bytes += sum(_WORD * row.neurons for row in counts.neurons)
    ann_bytes += sum(_WORD * sum(row.inputs) for row in counts.products if row.is_matrix)
    return EnergyEstimate(
        costs,
        [_layer_energy(row, costs) for row in counts.layers],
        [_neuron_energy(row, costs) for row in counts.neurons],
        ann_synaptic_pj=costs.mac_pj * counts.ann_macs,
        ann_total_pj=costs.mac_pj * counts.ann_macs + costs.byte_pj * ann_bytes,
        products=[_product_energy(row, costs) for row in counts.products],
    )


def _layer_energy(row: LayerOperations, costs: EnergyCosts) -> LayerEnergy:
    moved = _WORD * row.weights + (_BIT if row.two_valued else _WORD) * row.inputs
    return LayerEnergy(row.layer, _arithmetic(row, costs), _reads(row, moved, costs))


def _product_energy(row: ProductOperations, costs: EnergyCosts) -> LayerEnergy:
    signals = zip(row.two_valued, row.inputs, strict=True) if row.is_matrix else ()
    moved = sum((_BIT if two_valued else _WORD) * inputs for two_valued, inputs in signals)
    return LayerEnergy(row.product, _arithmetic(row, costs), _reads(row, moved, costs))


def _arithmetic(row: LayerOperations | ProductOperations, costs: EnergyCosts) -> list[float]:
    pairs = zip(row.effective_acs, row.effective_macs, strict=True)
    return [costs.ac_pj * acs + costs.mac_pj * macs for acs, macs in pairs]


def _reads(row: LayerOperations | ProductOperations, moved: float, costs: EnergyCosts) -> list[float]:
    """What has nothing to compute at a timestep reads nothing."""
    return [costs.byte_pj * moved if dense else 0.0 for dense in row.dense_macs]


def _neuron_energy(row: NeuronOperations, costs: EnergyCosts) -> LayerEnergy:
    moved = (2 * _WORD + _BIT) * row.neurons
    return LayerEnergy(
        row.layer,
        [costs.mac_pj * row.neurons + costs.ac_pj * spikes for spikes in row.spikes],
        [costs.byte_pj * moved] * len(row.spikes),
    )


def _sums(rows: list[list[float]]) -> list[float]:
    return [sum(entries) for entries in zip(*rows, strict=True)]
