"""Firing rates of every layer at every timestep."""

from ... import figures
from ...blocks import Column, Plot, Plots, Section, Table, Text, decimals
from ..reading import Run


def firing_section(run: Run) -> Section | None:
    """Mean firing rate of every layer at every timestep."""
    layers = run.results.last.firing_rates
    if not layers:
        return None
    means = {layer.layer: sum(layer.rates) / len(layer.rates) for layer in layers}
    least, most = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    span = f"Averaged over time the layers lie between {means[least]:.3f} ({least}) and {means[most]:.3f} ({most})."
    timesteps = range(1, run.results.timesteps + 1)
    plot = Plot(
        name="firing",
        title="Spikes per neuron and timestep",
        note="Layers from input, at the top, to output; the stronger the tint, the busier the layer.",
        alt=f"Heat map of firing rates, layers over timesteps. {span}",
        figure=figures.firing_rates(layers),
        height=80 + 28 * len(layers),
        table=Table(
            "firing",
            "Spikes per neuron and timestep",
            [Column("layer", "Layer"), *(Column(str(k), f"Timestep {k}", write=decimals(4)) for k in timesteps)],
            [{"layer": layer.layer, **{str(k): rate for k, rate in enumerate(layer.rates, 1)}} for layer in layers],
        ),
    )
    words = f"The share of neurons that fire in a timestep, from 0 to 1. {span} Fewer spikes mean less work."
    said = [words, *_pressed(run, means), *_constant(means)]
    return Section("firing", "Firing rates", [Text(" ".join(said)), Plots([plot])])


def _pressed(run: Run, means: dict[str, float]) -> list[str]:
    """A sentence on the penalty on spikes, if there was one."""
    options = run.config.get("objective", {})
    weight, target = (options.get(f"firing_{name}", 0.0) for name in ("weight", "target"))
    if not weight:
        return []
    above = sum(mean > target for mean in means.values())
    whole = f"on average over the layers {sum(means.values()) / len(means):.3f}"
    return [
        f"Training added {weight:g} times what lies above a target of {target:g}: {above} of {len(means)} layers "
        f"end above it, {whole}."
    ]


def _constant(means: dict[str, float]) -> list[str]:
    """A sentence about layers that never fire, and one about those that always do."""
    sentences = []
    for value, what in (
        (0, "never fire on the test set: the layers behind get nothing from them"),
        (1, "always fire on the test set, whatever the input"),
    ):
        if layers := [layer for layer, mean in means.items() if mean == value]:
            sentences.append(f"Neurons of {', '.join(layers)} {what}.")
    return sentences
