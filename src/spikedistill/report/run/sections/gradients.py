"""How far the gradient of each rule is from backpropagation through time."""

from collections.abc import Sequence

from ....evaluation.gradients import ALL
from ....evaluation.results import GradientRow
from ... import figures
from ...blocks import Column, Plot, Plots, Section, Table, Terms, Text, decimals
from ..reading import Run

TERMS = (
    (
        "Cosine",
        "The cosine of the angle between a rule's gradient and BPTT's: 1 is the same direction, 0 unrelated, below 0 opposite.",
    ),
    (
        "Norm ratio",
        "The norm of a rule's gradient over that of BPTT's. Under SGD, 2 acts like twice the learning rate.",
    ),
    ("SLTT", "BPTT without the path through the previous membrane."),
    (
        "Rate, m",
        "Gradients through the mean rates of m segments of time. With one segment for each timestep it is SLTT.",
    ),
    ("BPTT with", "All paths through time, with another surrogate in place of the network's own."),
)
RECORD = (
    Column("rule", "Rule"),
    Column("cosine", "Cosine", write=decimals(4)),
    Column("cosine_std", "±", write=decimals(4)),
    Column("ratio", "Norm ratio", write=decimals(3)),
    Column("ratio_std", "±", write=decimals(3)),
    Column("least", "Least cosine of a layer", write=decimals(4)),
    Column("least_layer", "That layer"),
)


class Comparison:
    """The rows of gradients.csv by timesteps, rule and layer."""

    def __init__(self, rows: Sequence[GradientRow]) -> None:
        self.rows = {(row.timesteps, row.rule, row.layer): row for row in rows}
        self.timesteps = sorted({T for T, _, _ in self.rows})
        self.longest = self.timesteps[-1]
        # at the largest T no rule has more segments than timesteps
        self.rules = list(dict.fromkeys(rule for T, rule, _ in self.rows if self.longest == T))
        self.layers = list(dict.fromkeys(layer for _, _, layer in self.rows if layer != ALL))

    def value(self, timesteps: int, rule: str, layer: str, name: str = "cosine") -> float | None:
        """One number; None if the rule is impossible at this T, or the number is undefined."""
        row = self.rows.get((timesteps, rule, layer))
        return None if row is None else getattr(row, name)

    @property
    def span(self) -> str:
        """The furthest and the closest rule at the largest T, in a sentence."""
        cosines = {rule: self.value(self.longest, rule, ALL) for rule in self.rules}
        known = {rule: cosine for rule, cosine in cosines.items() if cosine is not None}
        if not known:
            return "BPTT's gradient is zero."
        least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        between = f"{known[least]:.3f} ({least}) and {known[most]:.3f} ({most})"
        return f"For all parameters together the cosines at T = {self.longest} lie between {between}."


def gradients_section(run: Run) -> Section | None:
    """Cosines over layers and over T, and the numbers of all parameters together."""
    if not run.gradients:
        return None
    comparison, batches = Comparison(run.gradients), run.gradients[0].batches
    words = (
        "The gradient of the trained network's loss, the cross-entropy of its mean output, by every rule, against that of "
        "backpropagation through time (BPTT) with the network's own surrogate. Means and standard deviations (±) over "
        f"{batches} batch{'es' if batches > 1 else ''} of training samples, with batch statistics. {comparison.span}"
    )
    records = [_record(comparison, T) for T in reversed(comparison.timesteps)]
    plots = Plots([_over_layers(comparison), _over_timesteps(comparison)])
    return Section(
        "gradients", "Gradients against BPTT", [Text(words), plots, *records, _ratios(comparison), Terms(TERMS)]
    )


def _over_layers(comparison: Comparison) -> Plot:
    layers = comparison.layers
    lines = {rule: [comparison.value(comparison.longest, rule, x) for x in layers] for rule in comparison.rules}
    title = f"Cosine of every layer at T = {comparison.longest}"
    return Plot(
        name="gradient_layers",
        title=title,
        note="Layers from input, at the left, to output.",
        alt=f"Line plot of cosines over {len(layers)} layers. {comparison.span}",
        figure=figures.cosines(lines, layers, "layer"),
        height=_height(comparison),
        table=_by_rule("gradient_layers", title, "Layer", layers, lines),
    )


def _over_timesteps(comparison: Comparison) -> Plot:
    timesteps = comparison.timesteps
    lines = {rule: [comparison.value(T, rule, ALL) for T in timesteps] for rule in comparison.rules}
    title = "Cosine of all parameters together over T"
    return Plot(
        name="gradient_timesteps",
        title=title,
        note="A rule with m segments starts at T = m.",
        alt=f"Line plot of cosines over T. {comparison.span}",
        figure=figures.cosines(lines, [str(T) for T in timesteps], "T, timesteps"),
        height=_height(comparison),
        table=_by_rule("gradient_timesteps", title, "T", timesteps, lines),
    )


def _height(comparison: Comparison) -> int:
    return 300 + 12 * len(comparison.rules)  # room for the legend


def _by_rule(
    name: str, title: str, first: str, places: Sequence[object], lines: dict[str, list[float | None]], summary: str = ""
) -> Table:
    """A row for each layer or T, a column for each rule."""
    columns = [Column("place", first), *(Column(rule, rule, write=decimals(4)) for rule in lines)]
    rows = [{"place": place} | {rule: lines[rule][i] for rule in lines} for i, place in enumerate(places)]
    return Table(name, title, columns, rows, summary)


def _record(comparison: Comparison, timesteps: int) -> Table:
    """All parameters together, and the layer that is furthest from BPTT; folded except for the largest T."""
    rows = []
    for rule in comparison.rules:
        of_rule = [row for (T, name, _), row in comparison.rows.items() if (T, name) == (timesteps, rule)]
        # a layer without a cosine comes last
        layers = sorted((row for row in of_rule if row.layer != ALL), key=lambda row: (row.cosine is None, row.cosine))
        for joined in (row for row in of_rule if row.layer == ALL):
            least = {"least": layers[0].cosine, "least_layer": layers[0].layer} if layers else {}
            rows.append(joined.model_dump() | least)
    title = f"All parameters together at T = {timesteps}, and the layer furthest from BPTT"
    return Table(f"gradients_{timesteps}", title, RECORD, rows, "" if timesteps == comparison.longest else title)


def _ratios(comparison: Comparison) -> Table:
    title = f"Norm ratio of every layer at T = {comparison.longest}"
    values = {
        rule: [comparison.value(comparison.longest, rule, layer, "ratio") for layer in comparison.layers]
        for rule in comparison.rules
    }
    return _by_rule("gradient_ratios", title, "Layer", comparison.layers, values, summary=title)
