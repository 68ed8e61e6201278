"""The section on gradients: what it shows is what gradients.csv holds."""

import json
import re

import plotly.graph_objects as go
import pytest

from spikedistill.report import write_report

HEADER = "timesteps,rule,layer,cosine,cosine_std,ratio,ratio_std,batches\n"
LAYERS = ["stem.0", "head", "all parameters"]


def cosine_of(T, rule, layer):
    """Any numbers that differ from cell to cell: 0.5 to 0.99."""
    return 0.5 + 0.01 * T + 0.1 * len(rule) / 10 + 0.03 * LAYERS.index(layer)


def write_gradients(folder, text=None):
    rows = [
        f"{T},{rule},{layer},{cosine_of(T, rule, layer)},0.01,{2 * cosine_of(T, rule, layer)},0.02,3\n"
        for T, rules in ((2, ["sltt", "rate m=1"]), (8, ["sltt", "rate m=1", "rate m=8", "bptt with arctan"]))
        for rule in rules
        for layer in LAYERS
    ]
    (folder / "gradients.csv").write_text(HEADER + "".join(rows) if text is None else text)
    return folder


def test_the_section_stands_where_there_are_gradients(make_run, read_page, page):
    assert "gradients" not in page.sections
    shown = read_page(write_report(write_gradients(make_run())))
    assert shown.sections == [*page.sections[:6], "gradients", *page.sections[6:]]
    least, most = cosine_of(8, "sltt", "all parameters"), cosine_of(8, "bptt with arctan", "all parameters")
    assert f"at T = 8 lie between {least:.3f} (sltt) and {most:.3f} (bptt with arctan)" in shown.text
    assert "over 3 batches" in shown.text


def test_tables_and_plots_hold_the_numbers_of_the_file(make_run, read_page):
    page = read_page(write_report(write_gradients(make_run())))
    rules = ["sltt", "rate m=1", "rate m=8", "bptt with arctan"]
    for T, of_T in ((8, rules), (2, rules[:2])):
        assert page.tables[f"gradients_{T}"] == {
            rule: {
                "cosine": cosine_of(T, rule, "all parameters"),
                "cosine_std": 0.01,
                "ratio": 2 * cosine_of(T, rule, "all parameters"),
                "ratio_std": 0.02,
                "least": cosine_of(T, rule, "stem.0"),
                "least_layer": "stem.0",
            }
            for rule in of_T
        }
    at_eight = {layer: {rule: cosine_of(8, rule, layer) for rule in rules} for layer in LAYERS[:2]}
    assert page.tables["gradient_layers"] == at_eight
    assert page.tables["gradient_ratios"] == {
        layer: {rule: 2 * cosine for rule, cosine in row.items()} for layer, row in at_eight.items()
    }
    together = {
        str(T): {rule: cosine_of(T, rule, "all parameters") if T == 8 or rule in rules[:2] else None for rule in rules}
        for T in (2, 8)
    }
    assert page.tables["gradient_timesteps"] == together

    for name, rows in (("gradient_layers", at_eight), ("gradient_timesteps", together)):
        figure = page.figures[name]
        assert [trace["name"] for trace in figure["data"]] == rules
        for trace in figure["data"]:
            assert trace["x"] == list(rows)
            assert trace["y"] == [row[trace["name"]] for row in rows.values()]
        go.Figure(json.loads(re.sub(r"var\(--[a-z]+\)", "#123456", json.dumps(figure))))
    looks = {(trace["line"]["dash"], trace["marker"]["symbol"]) for trace in figure["data"]}
    assert len(looks) == len(rules), "lines differ by more than their colour"


def of_one_rule(cosines, ratios):
    """The file of one rule and one batch at T = 2."""
    rows = zip(LAYERS, cosines, ratios, strict=True)
    return HEADER + "".join(f"2,sltt,{layer},{cosine},0.0,{ratio},0.0,1\n" for layer, cosine, ratio in rows)


def test_an_undefined_number_is_a_gap(make_run, read_page):
    text = of_one_rule(["nan"] * 3, [0.0, "nan", 0.5])
    page = read_page(write_report(write_gradients(make_run(), text)))
    assert page.tables["gradient_layers"] == {"stem.0": {"sltt": None}, "head": {"sltt": None}}
    assert page.tables["gradient_ratios"] == {"stem.0": {"sltt": 0.0}, "head": {"sltt": None}}
    assert page.figures["gradient_layers"]["data"][0]["y"] == [None, None]
    assert "over 1 batch of" in page.text


def test_a_layer_without_a_cosine_is_not_the_furthest(make_run, read_page):
    text = of_one_rule(["nan", 0.25, 0.5], [1.0, 1.0, 1.0])
    page = read_page(write_report(write_gradients(make_run(), text)))
    assert page.tables["gradients_2"]["sltt"]["least"] == 0.25


def test_a_file_without_rows_is_no_section(make_run, read_page):
    assert "gradients" not in read_page(write_report(write_gradients(make_run(), HEADER))).sections


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,sltt,head,1,0,1,0,1", r"line 2, timesteps: .* greater than or equal to 1"),
        ("2,sltt,head,high,0,1,0,1", r"line 2, cosine: .* valid number"),
        ("2,sltt", r"line 2, layer: .* valid string"),
    ],
)
def test_a_broken_file_is_named_with_what_to_do(make_run, row, message):
    folder = write_gradients(make_run(), f"{HEADER}{row}\n")
    with pytest.raises(ValueError, match=message) as error:
        write_report(folder)
    assert str(error.value).startswith(f"{folder}/gradients.csv is broken")
    assert str(error.value).endswith(f"write it anew with `spikedistill gradients {folder}`")
    assert "\n" not in str(error.value)
