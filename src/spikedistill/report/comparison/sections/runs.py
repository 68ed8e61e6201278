"""Every run of a comparison, and the command that repeats them."""

from pathlib import Path
from urllib.parse import quote

from ....run_folder import RunFolder
from ...blocks import Code, Column, Section, Table, decimals
from ..shown import Shown


def runs_section(shown: Shown) -> Section:
    """A table of the runs with their status, and links to the reports that exist."""
    comparison, last, rows = shown.comparison, shown.comparison.longest, []
    some_lost = any("reason" in row for row in comparison.runs)
    for row in comparison.runs:
        path = Path(row["method"]) / f"seed{row['seed']}"
        report = RunFolder(path).report
        figures_of_row = {key: row.get(key) for key in (f"accuracy_{last}", "area", "status", "reason")}
        link = report.as_posix() if (shown.folder / report).is_file() else None
        rows.append({"run": path.as_posix(), "seed": row["seed"], "report": link, **figures_of_row})
    columns = [
        Column("run", "Run"),
        Column("seed", "Seed"),
        Column(f"accuracy_{last}", f"k = {last}", "%", decimals(2)),
        Column("area", "Mean over k", "%", decimals(2)),
        *([Column("status", "Status"), Column("reason", "Reason", words=True)] if some_lost else []),
        Column("report", "Its own report", write=_link),
    ]
    table = Table("runs", "Every run, with a link to its own report", columns, rows)
    return Section("runs", "Every run", [table])


def repeat_section(shown: Shown) -> Section | None:
    """The command that repeats the comparison; None if it is not known."""
    if not shown.command:
        return None
    caption = "Command to repeat the comparison. Finished runs in its folder are kept; another --out trains all again"
    return Section("repeat", "Repeat", [Code(caption, shown.command)])


def _link(path: str) -> str:
    from markupsafe import Markup

    # without "./" a browser would read a name with a colon as a scheme
    return Markup('<a href="./{}">report</a>').format(quote(path))
