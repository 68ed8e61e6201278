"""The page stands alone: it fetches nothing, takes names for names, can be read without eyes, and repeats to the byte."""

import json
import re

import plotly.graph_objects as go
import pytest

from spikedistill.report import write_report

PLOTS = [
    "accuracy",
    "accuracy_epochs",
    "loss_single",
    "loss_prefix",
    "loss_terms",
    "reliability_1",
    "reliability_2",
    "reliability_4",
    "firing",
    "confusion",
]


def test_the_page_fetches_nothing(full_run, page):
    outside = [reference for _, reference in page.references if not reference.startswith(("#", "data:"))]
    assert outside == []
    assert {tag for tag, _ in page.references} == {"link", "a", "img"}
    style = (full_run / "report.html").read_text().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(found["content"] for tag, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_the_page_can_be_read_without_seeing_the_plots(page):
    tags = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert tags.count("h1") == 1
    assert tags.count("h2") == len(page.sections)
    assert tags.count("table") == page.captions
    assert all(found["alt"] for tag, found in page.tags if tag == "img")
    plots = [found for _, found in page.tags if found.get("class") == "plot"]
    assert [found["id"].removeprefix("plot-") for found in plots] == PLOTS
    assert set(page.figures) == set(PLOTS)
    for found in plots:
        assert found["role"] == "img"
        assert len(found["aria-label"]) > 20
        assert found["id"].removeprefix("plot-") in page.tables


def test_every_plot_is_a_valid_plotly_figure(page):
    for figure in page.figures.values():
        coloured = json.loads(re.sub(r"var\(--[a-z]+\)", "#123456", json.dumps(figure)))
        go.Figure(coloured)  # raises ValueError on any unknown or ill-typed property
    styles = (
        page.figures["accuracy"]["data"],
        page.figures["loss_single"]["data"],
        page.figures["reliability_4"]["data"][1:],
    )
    for found in styles:  # told apart without colour
        traces = [trace for trace in found if trace.get("fill") != "toself"]  # bands belong to lines
        assert len({(trace["line"]["dash"], trace["marker"]["symbol"]) for trace in traces}) == len(traces)


def test_every_colour_of_the_plots_is_one_of_the_page_in_both_schemes(full_run, page):
    style = (full_run / "report.html").read_text().partition("<style>")[2].partition("</style>")[0]
    light, dark = style.split("prefers-color-scheme: dark")
    used = set(re.findall(r"var\((--[a-z]+)\)", page.unpacked("figures")))
    assert used == {"--accent", "--muted", "--ink", "--line", "--panel"}
    for name in used:
        assert f"{name}: #" in light
        assert f"{name}: #" in dark


def test_names_are_text_and_never_markup(make_run, read_page):
    nasty = [
        "<script>alert(1)</script>",
        "</script><img src=x onerror=alert(1)>",
        "a & b \"quoted\" 'too'",
        "{{ 7 * 7 }}",
    ]
    folder = make_run(classes=nasty, config={"recipe": "<i>x</i>", "model": "</pre><script>alert(2)</script>"})
    path = write_report(folder)
    page = read_page(path)
    assert [found.get("id") for tag, found in page.tags if tag == "script"] == ["plotly", "figures", None]
    assert all(found["src"].startswith("data:") for tag, found in page.tags if tag == "img")
    assert not any("onerror" in found for _, found in page.tags)
    for name in nasty:
        assert name in page.text
    assert page.figures["confusion"]["data"][0]["x"][0] == "&lt;script&gt;aler…1)&lt;/script&gt;"


def test_classes_of_one_shortened_name_keep_their_own_rows(make_run, read_page):
    names = [f"the very same beginning {i} and the very same end" for i in range(4)]
    x = read_page(write_report(make_run(classes=names))).figures["confusion"]["data"][0]["x"]
    assert len(set(x)) == 4


def test_the_same_files_give_the_same_bytes(make_run):
    folder = make_run()
    first = write_report(folder).read_bytes()
    assert write_report(str(folder)) == folder / "report.html"
    assert (folder / "report.html").read_bytes() == first


def test_a_report_that_fails_leaves_the_old_one(make_run):
    folder = make_run()
    before = write_report(folder).read_bytes()
    files = sorted(folder.iterdir())
    (folder / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json is broken"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert sorted(folder.iterdir()) == files
