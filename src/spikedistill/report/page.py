"""What all pages share: blocks become one web page that needs nothing else."""

from .blocks import Page, Plots


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("spikedistill.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    blocks = [block for section in page.sections for block in section.blocks]
    figures = {plot.name: plot.figure for block in blocks if isinstance(block, Plots) for plot in block.plots}
    template = environment.get_template("report.html.j2")
    return template.render(page=page, figures=figures)
