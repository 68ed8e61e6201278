"""The page, the table and the figure of a comparison: what they show is what leaderboard.csv holds."""

import csv
import json
import math
import re
from dataclasses import replace
from urllib.parse import unquote

import plotly.graph_objects as go
import pytest
from conftest import CONFIG, write_run

from spikedistill.config import Config
from spikedistill.evaluation import Comparison
from spikedistill.evaluation.comparison.leaderboard import chosen_timesteps
from spikedistill.evaluation.comparison.records import LostRun, RunRecord
from spikedistill.evaluation.results import Scores
from spikedistill.files import write_rows
from spikedistill.recipe_name import RecipeName
from spikedistill.report import figures, write_comparison, write_paper_files
from spikedistill.report.blocks import duration
from spikedistill.report.comparison import latex
from spikedistill.report.comparison.headline import verdict

NASTY = "tiny-a<b>&_c%{x}$#^~\\,seed=1"


@pytest.fixture
def make_comparison(tmp_path):
    """`make_comparison(*methods)` writes their runs and everything that a comparison leaves beside them.

    `lost` are those without numbers, `{(method, seed): status}`.
    """

    def make(*methods, seeds=(0, 1), T=3, lost=None):
        folder = tmp_path / "comparison"
        records = {}
        for place, method in enumerate(methods):
            for seed in seeds:
                config = CONFIG | {"recipe": method, "seed": seed, "timesteps": T, "epochs": 5}
                config |= {"model": {"name": "convnet"}, "data": {"name": "digits"}, "objective": {"name": "sce"}}
                path = folder / method / f"seed{seed}"
                write_run(
                    path, T=T, N=60, config=Config(**config).model_dump(mode="json"), first_seed=10 * place + seed
                )
                (path / "report.html").touch()
                records.setdefault(method, []).append(RunRecord.of(path))
        for (method, seed), status in (lost or {}).items():
            place = seeds.index(seed)
            records[method][place] = LostRun(records[method][place].config, status, f"nan in step {seed} & more")
            (folder / method / f"seed{seed}" / "report.html").unlink()
        found = Comparison.of(records)
        write_rows(folder / "leaderboard.csv", found.leaderboard)
        write_paper_files(folder, found)
        write_comparison(folder, found, command="spikedistill compare --out 'a b'")
        return folder, found

    return make


@pytest.fixture
def comparison(make_comparison):
    return make_comparison("tiny-sce", "tiny-twsd", "tiny-s2w", seeds=(0, 1, 2))


def of_csv(folder):
    rows = csv.DictReader((folder / "leaderboard.csv").read_text().splitlines())
    return [
        {key: value if key == "method" else float(value) for key, value in row.items() if value != ""} for row in rows
    ]


def test_the_tables_of_the_page_are_the_leaderboard(comparison, read_page):
    folder, _ = comparison
    page = read_page(folder / "report.html")
    tables = [page.tables[name] for name in ("leaderboard", "accuracy", "differences", "against", "cost")]
    for row in of_csv(folder):
        shown = {}
        for table in tables:
            shown |= table.get(row["method"], {})
        assert shown == {key: value for key, value in row.items() if key != "method"}
    assert list(page.tables["leaderboard"]) == ["tiny-sce", "tiny-twsd", "tiny-s2w"]


def test_every_timestep_alone_has_its_plots(comparison, read_page):
    folder, _ = comparison
    page = read_page(folder / "report.html")
    assert "timesteps" in page.sections
    for key, unit in (("accuracy", 100), ("confidence", 100), ("entropy", 1)):
        drawn = page.figures[f"{key}_alone"]["data"]
        assert [trace["name"] for trace in drawn] == ["sce", "twsd", "s2w"]
        for trace in drawn:
            runs = [folder / f"tiny-{trace['name']}" / f"seed{seed}" for seed in (0, 1, 2)]
            singles = [json.loads((run / "results.json").read_text())["last"]["single"] for run in runs]
            means = [unit * sum(entries[k][key] for entries in singles) / 3 for k in range(3)]
            assert trace["y"] == pytest.approx(means)
            assert list(page.tables[f"{key}_alone"][f"tiny-{trace['name']}"].values()) == pytest.approx(means)


def test_what_is_lost_to_specialists_is_shown_where_some_are(comparison, read_page):
    folder, found = comparison
    sce, twsd = RecipeName("tiny", "sce"), RecipeName("tiny", "twsd")
    assert "regret" not in read_page(folder / "report.html").sections
    lost = [
        {"method": sce, "specialists": sce, "regret_1": 1.5, "regret_1_low": 0.5, "regret_1_high": 2.25},
        {"method": twsd, "specialists": sce}
        | {"regret_1": -0.5, "regret_1_low": -1.0, "regret_1_high": 0.25}
        | {"regret_3": 0.75, "regret_3_low": 0.0, "regret_3_high": 1.0},
    ]
    write_comparison(folder, replace(found, regrets=lost))
    page = read_page(folder / "report.html")
    own, other = "sce against sce", "twsd against sce"
    keys = [{key: value for key, value in row.items() if key not in ("method", "specialists")} for row in lost]
    shown = [page.tables["regret"][name] for name in (own, other)]
    assert [{key: value for key, value in row.items() if value is not None} for row in shown] == keys
    drawn = page.figures["regret"]["data"]
    assert [trace["name"] for trace in drawn] == [own, other]
    assert [[round(x) for x in trace["x"]] for trace in drawn] == [[1], [1, 3]]
    assert [trace["y"] for trace in drawn] == [[1.5], [-0.5, 0.75]]
    assert drawn[1]["error_y"]["array"] == [0.75, 0.25]
    assert drawn[1]["error_y"]["arrayminus"] == [0.5, 0.75]
    assert "+1.50 [+0.50, +2.25]" in page.text
    go.Figure(coloured(page.figures["regret"]))


def test_which_timestep_was_chosen_is_shown_where_some_method_ranks(comparison, read_page):
    """Two seeds of two epochs, which agree in the first and not in the second; the middle epochs of a method are in its table."""
    folder, found = comparison
    assert "chosen" not in read_page(folder / "report.html").sections
    epochs = [[(0.25, 0.75), (0.5, 0.5)], [(0.25, 0.75), (0.25, 0.75)]]
    metrics = [
        [
            {"epoch": str(e), "strongest_1": str(a), "strongest_2": str(b), "weakest_1": str(b), "weakest_2": str(a)}
            for e, (a, b) in enumerate(of_seed, 1)
        ]
        for of_seed in epochs
    ]
    config = Config(**CONFIG | {"recipe": "tiny-s2w", "timesteps": 2})
    none = Scores(ensemble=[], single=[])
    ranking = [RunRecord(config, none, {}, metrics[seed], None) for seed in (0, 1)]
    plain = RunRecord(config, none, {}, [{"epoch": "1", "train_loss": "0.5"}], None)
    chosen = chosen_timesteps({RecipeName("tiny", "sce"): [plain], config.recipe: ranking})
    share = {"strongest": [(0.25, 0.75), (0.375, 0.625)], "weakest": [(0.75, 0.25), (0.625, 0.375)]}
    assert chosen == [
        {"method": "tiny-s2w", "role": role, "epoch": epoch, "share_1": one, "share_2": two}
        for role, of_role in share.items()
        for epoch, (one, two) in enumerate(of_role, 1)
    ]
    middle = [{**row, "epoch": 3} for row in chosen if row["epoch"] == 2]
    write_comparison(folder, replace(found, chosen=[*chosen, *middle]))
    page = read_page(folder / "report.html")
    drawn = page.figures["strongest"]
    assert [trace["x"] for trace in drawn["data"]] == [[0.25, 0.375], [0.75, 0.625]]
    assert drawn["layout"]["yaxis"]["ticktext"] == ["s2w, epoch 1", "s2w, epoch 3"]
    assert page.figures["weakest"]["data"][0]["x"] == [0.75, 0.625]
    go.Figure(coloured(drawn))


def with_metrics(run, **columns):
    """A record with other columns in the rows of its metrics: `{name: value of each epoch}`."""
    rows = [{"epoch": str(e), **{key: str(of[e - 1]) for key, of in columns.items()}} for e in range(1, 6)]
    return replace(run, metrics=rows)


def test_training_curves_of_all_methods_stand_together(comparison, read_page):
    """Means over seeds with the lowest and the highest: the cross-entropy that all objectives share, accuracy in percent."""
    folder, found = comparison
    runs = {}
    for place, (method, records) in enumerate(found.methods.items()):
        loss = [[(place + 1) * (seed + 1) / e for e in range(1, 6)] for seed in (0, 1, 2)]
        first = [[0.1 * (seed + e) for e in range(1, 6)] for seed in (0, 1, 2)]
        runs[method] = [
            with_metrics(run, ce_prefix_3=loss[seed], train_accuracy_1=first[seed], train_accuracy=[0.9] * 5)
            for seed, run in enumerate(records)
        ]
    compared = Comparison.of(runs)
    sce = [row for row in compared.epochs if row["method"] == "tiny-sce"]
    assert [row["epoch"] for row in sce] == [1, 2, 3, 4, 5]
    for name, of_seeds in (("loss", 2), ("loss_low", 1), ("loss_high", 3)):
        assert [row[name] for row in sce] == pytest.approx([of_seeds / e for e in range(1, 6)])
    assert [row["accuracy_1"] for row in sce] == pytest.approx([20, 30, 40, 50, 60])
    write_comparison(folder, compared)
    page = read_page(folder / "report.html")
    *bands, baseline, other, _ = page.figures["epochs_loss"]["data"]
    assert len(bands) == 3
    assert (baseline["name"], other["name"]) == ("sce", "twsd")
    assert baseline["y"] == pytest.approx([2 / e for e in range(1, 6)], rel=1e-4)
    assert bands[0]["y"] == pytest.approx([1 / e for e in range(1, 6)] + [3 / e for e in range(5, 0, -1)], rel=1e-4)
    assert page.figures["epochs_loss"]["layout"]["yaxis"]["type"] == "log"
    assert page.tables["epochs_first"]["5"] == pytest.approx({"0": 60.0, "1": 60.0, "2": 60.0})
    assert "bands reach from the lowest to the highest seed" in page.text
    assert "Training accuracy at k = 1" in page.text

    # scored after every epoch by every run: better than the batches that were trained on
    scored = {m: [with_metrics(run, holdout_accuracy_3=[0.5] * 5) for run in of_one] for m, of_one in runs.items()}
    write_comparison(folder, Comparison.of(scored))
    page = read_page(folder / "report.html")
    assert page.figures["epochs_last"]["data"][0]["y"] == [50.0] * 5
    assert "Held-out accuracy at k = T" in page.text


def test_the_page_says_which_methods_have_no_curves(comparison, read_page):
    folder, found = comparison
    second = list(found.methods)[1]
    bare = {m: [with_metrics(run) for run in of_one] for m, of_one in found.methods.items()}
    write_comparison(folder, Comparison.of(found.methods | {second: bare[second]}))
    page = read_page(folder / "report.html")
    assert [trace["name"] for trace in page.figures["epochs_loss"]["data"] if "fill" not in trace] == ["sce", "s2w"]
    assert "There are no curves of tiny-twsd" in page.text
    write_comparison(folder, Comparison.of(bare))
    page = read_page(folder / "report.html")
    assert "epochs_loss" not in page.figures
    assert "There are no curves of tiny-sce, tiny-twsd, tiny-s2w" in page.text
    assert "training" in page.sections


def test_agreement_with_a_teacher_is_shown_for_those_that_had_one(comparison, read_page):
    folder, found = comparison
    first, second, third = found.leaderboard
    assert "teacher" not in read_page(folder / "report.html").sections
    share = {"teacher_agreement": 91.5, "teacher_agreement_where_wrong": 12.25}
    write_comparison(folder, replace(found, leaderboard=[first, second | share, third]))
    assert read_page(folder / "report.html").tables["teacher"] == {"tiny-twsd": share}


def test_what_a_reader_sees_is_rounded_and_has_its_uncertainty(comparison, read_page):
    folder, found = comparison
    rows = found.leaderboard
    text = read_page(folder / "report.html").text
    for row in rows:
        assert f"{row['accuracy_3']:.2f} ± {row['accuracy_3_std']:.2f}" in text
        assert f"{row['area']:.2f} ± {row['area_std']:.2f}" in text
    for row in rows[1:]:
        for name in ("area", "accuracy_3"):
            interval = f"{row[f'{name}_difference']:+.2f} [{row[f'{name}_low']:+.2f}, {row[f'{name}_high']:+.2f}]"
            assert interval in text
            assert f"[{row[f'{name}_test_set_low']:+.2f}, {row[f'{name}_test_set_high']:+.2f}]" in text
    assert "spikedistill compare --out 'a b'" in text


def test_the_plots_are_the_leaderboard(comparison, read_page):
    folder, compared = comparison
    rows, found = compared.leaderboard, read_page(folder / "report.html").figures
    alone = {"accuracy_alone", "confidence_alone", "entropy_alone"}
    assert set(found) == {"accuracy", "differences", *alone, "epochs_loss", "epochs_first", "epochs_last"}
    for row, trace in zip(rows, found["accuracy"]["data"], strict=True):
        assert trace["name"] == row["method"].method
        assert [round(x) for x in trace["x"]] == [1, 2, 3]
        assert trace["y"] == [row[f"accuracy_{k}"] for k in (1, 2, 3)]
        assert trace["error_y"]["array"] == [row[f"accuracy_{k}_std"] for k in (1, 2, 3)]
    for name, trace in zip(("area", "accuracy_3"), found["differences"]["data"], strict=True):
        assert trace["x"] == [row[f"{name}_difference"] for row in rows[1:]]
        ends = [trace["error_x"][end] for end in ("arrayminus", "array")]
        assert ends[0] == pytest.approx([row[f"{name}_difference"] - row[f"{name}_low"] for row in rows[1:]])
        assert ends[1] == pytest.approx([row[f"{name}_high"] - row[f"{name}_difference"] for row in rows[1:]])
    assert found["differences"]["layout"]["yaxis"]["ticktext"] == ["twsd", "s2w"]
    for figure in found.values():
        go.Figure(coloured(figure))  # raises ValueError on any unknown or ill-typed property


def coloured(figure):
    return json.loads(re.sub(r"var\(--[a-z]+\)", "#123456", json.dumps(figure)))


def test_every_run_is_there_with_a_link_to_its_own_report(comparison, read_page):
    folder, found = comparison
    page = read_page(folder / "report.html")
    names = [f"{method}/seed{seed}" for method in ("tiny-sce", "tiny-twsd", "tiny-s2w") for seed in (0, 1, 2)]
    assert list(page.tables["runs"]) == names
    for row, shown in zip(found.runs, page.tables["runs"].values(), strict=True):
        assert (shown["seed"], shown["area"]) == (row["seed"], row["area"])
    links = [address for tag, address in page.references if tag == "a" and not address.startswith("#")]
    assert links == [f"./{name}/report.html" for name in names]


def test_a_run_of_which_only_the_record_is_left_has_no_link(tmp_path, make_comparison, read_page):
    _, found = make_comparison("tiny-sce", "tiny-twsd", seeds=(0,))
    write_comparison(tmp_path, found)
    page = read_page(tmp_path / "report.html")
    assert list(page.tables["runs"]) == ["tiny-sce/seed0", "tiny-twsd/seed0"]
    assert not [address for tag, address in page.references if tag == "a" and not address.startswith("#")]


def test_what_diverged_is_counted_and_named(make_comparison, read_page):
    methods = "tiny-sce", "tiny-twsd", "tiny-s2w"
    gone = {("tiny-twsd", 1): "diverged", ("tiny-s2w", 0): "not trained", ("tiny-s2w", 1): "not trained"}
    folder, found = make_comparison(*methods, lost=gone)
    rows = found.leaderboard
    page = read_page(folder / "report.html")
    counts = ("seeds", "diverged", "not_trained")
    shown = page.tables["leaderboard"]
    assert [tuple(shown[method][key] for key in counts) for method in methods] == [(2, 0, 0), (1, 1, 0), (0, 0, 2)]
    assert [shown["tiny-s2w"][key] for key in ("accuracy_3", "area")] == [None, None]
    assert [trace["name"] for trace in page.figures["accuracy"]["data"]] == ["sce", "twsd"]
    assert list(page.tables["against"]) == ["tiny-twsd", "tiny-s2w"]
    assert page.tables["against"]["tiny-s2w"]["area_difference"] is None
    assert page.figures["differences"]["data"][0]["x"] == [rows[1]["area_difference"]]
    said = "Of 6 runs 1 diverged and 2 were not trained, because their teacher diverged."
    assert page.text.count(said) == 2, "in the first lines and beside the table"
    assert page.text.count("nan in step 1 & more") == 2
    assert page.tables["runs"]["tiny-twsd/seed1"]["status"] == "diverged"
    assert page.tables["runs"]["tiny-twsd/seed1"]["report"] is None
    assert f"{rows[0]['area']:.2f} ±" in page.text
    assert f"{rows[1]['area']:.2f} ±" not in page.text, "one seed has no spread"
    lines = [line.removesuffix(r" \\").split(" & ") for line in (folder / "leaderboard.tex").read_text().splitlines()]
    assert lines[2][:5] == ["Method", "Finished", "Diverged", "Not trained", "$k=1$"]
    assert lines[5][:4] == ["tiny-twsd", "1", "1", "0"]
    assert lines[6] == ["tiny-s2w", "0", "0", "2", *["--"] * 6]
    assert {len(cells) for cells in lines if len(cells) > 1} == {10}
    assert of_csv(folder)[2] == {
        "method": "tiny-s2w",
        **dict(zip(counts, (0, 0, 2), strict=True)),
        "timesteps": 3,
        "epochs": 5,
    }
    assert (folder / "cost.tex").read_text().count("tiny-s2w & 3 & 5 & -- & --") == 1


def test_where_the_baseline_diverged_the_page_says_why_nothing_is_compared(make_comparison, read_page):
    gone = dict.fromkeys((("tiny-sce", 0), ("tiny-sce", 1)), "diverged")
    folder, found = make_comparison("tiny-sce", "tiny-twsd", lost=gone)
    rows = found.leaderboard
    page = read_page(folder / "report.html")
    assert "differences" not in page.figures
    assert "against" not in page.tables
    reason = "There are no differences, because the baseline, tiny-sce, has no finished run."
    assert (
        verdict(rows)
        == f"Best in the mean over k is tiny-twsd with {rows[1]['area']:.2f} %. {reason} Of 4 runs 2 diverged."
    )
    assert page.text.count(reason) == 2
    assert page.numbers == {"area_best": rows[1]["area"]}
    assert "2 seeds for every method" in page.text
    assert r"tiny-sce & 0 & 2 & -- & -- & -- & -- & -- & --" in (folder / "leaderboard.tex").read_text()


def test_methods_without_a_seed_in_common_are_not_compared(make_comparison):
    _, found = make_comparison(
        "tiny-sce", "tiny-twsd", lost={("tiny-sce", 0): "diverged", ("tiny-twsd", 1): "diverged"}
    )
    assert "because no other method has finished a seed that tiny-sce has" in verdict(found.leaderboard)


def test_the_page_fetches_nothing(comparison, read_page):
    folder, _ = comparison
    page = read_page(folder / "report.html")
    assert all(address.startswith(("#", "data:", "./tiny-")) for _, address in page.references)
    assert [tag for tag, _ in page.tags].count("table") == page.captions


def test_the_same_input_gives_the_same_bytes(make_comparison):
    files = ("report.html", "leaderboard.tex", "accuracy.pdf", "accuracy.svg")
    folder, _ = make_comparison("tiny-sce", "tiny-twsd")
    first = [(folder / name).read_bytes() for name in files]
    make_comparison("tiny-sce", "tiny-twsd")
    assert [(folder / name).read_bytes() for name in files] == first


def test_a_name_is_text_in_the_page_and_in_latex(make_comparison, read_page):
    folder, _ = make_comparison("tiny-sce", NASTY)
    page = read_page(folder / "report.html")
    assert list(page.tables["leaderboard"]) == ["tiny-sce", NASTY]
    assert NASTY in page.text
    assert not any(tag == "b" for tag, _ in page.tags)
    assert page.figures["accuracy"]["data"][1]["name"].startswith("a&lt;b&gt;")
    escaped = (
        r"tiny-a\textless{}b\textgreater{}\&\_c\%\{x\}\$\#\textasciicircum{}\textasciitilde{}\textbackslash{},seed=1"
    )
    assert f"\n{escaped} & $" in (folder / "leaderboard.tex").read_text()
    assert (folder / "accuracy.pdf").read_bytes().startswith(b"%PDF")


def test_a_method_with_any_name_can_be_linked_to(make_comparison, read_page):
    folder, found = make_comparison('tiny-a,"b"=1<i>: #2', "tiny:twsd", seeds=(0,))
    write_comparison(folder, found)
    page = read_page(folder / "report.html")
    links = [address for tag, address in page.references if tag == "a" and address.startswith("./")]
    assert [unquote(link) for link in links] == [
        './tiny-a,"b"=1<i>: #2/seed0/report.html',
        "./tiny:twsd/seed0/report.html",
    ]
    assert not set('<>"# ') & set(links[0])
    assert "repeat" not in page.sections, "no command, no section"


def test_the_latex_table_has_the_leaderboard_in_as_many_columns_as_it_says(comparison):
    folder, found = comparison
    rows = found.leaderboard
    lines = (folder / "leaderboard.tex").read_text().splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrrr}"
    assert lines[-1] == r"\end{tabular}"
    assert [lines[1], lines[3], lines[-2]] == [r"\toprule", r"\midrule", r"\bottomrule"]
    head, *body = [line.removesuffix(r" \\").split(" & ") for line in lines if line.endswith(r" \\")]
    assert {len(cells) for cells in (head, *body)} == {7}
    for row, cells in zip(rows, body, strict=True):
        assert cells[0] == row["method"]
        assert cells[3] == rf"${row['accuracy_3']:.2f} \pm {row['accuracy_3_std']:.2f}$"
    assert body[0][5:] == ["--", "--"]
    low, high = rows[1]["area_low"], rows[1]["area_high"]
    assert body[1][5] == f"${rows[1]['area_difference']:+.2f}$ [${low:+.2f}$, ${high:+.2f}$]"
    for line in lines:  # mathematics ends where it begins, groups close
        bare = re.sub(r"\\[&%$#_{}]", "", line)
        assert bare.count("$") % 2 == 0
        assert bare.count("{") == bare.count("}")


def test_one_seed_has_no_spread_and_says_so(make_comparison, read_page):
    folder, _ = make_comparison("tiny-sce", "tiny-twsd", seeds=(4,))
    page = read_page(folder / "report.html")
    assert "±" not in page.text
    assert "One seed" in page.text
    assert "error_y" not in page.figures["accuracy"]["data"][0]
    assert r"\pm" not in (folder / "leaderboard.tex").read_text()


def test_two_seeds_have_differences_without_intervals_and_the_page_says_why(make_comparison, read_page):
    folder, found = make_comparison("tiny-sce", "tiny-twsd", "tiny-s2w", seeds=(0, 1))
    rows = found.leaderboard
    page = read_page(folder / "report.html")
    assert page.text.count("two methods need 3 seeds in common") == 2  # in the first sentence and under Differences
    assert set(page.tables["against"]["tiny-twsd"]) == {"area_difference", "accuracy_3_difference"}
    drawn = page.figures["differences"]["data"][0]
    assert drawn["x"] == [row["area_difference"] for row in rows[1:]]
    assert drawn["error_x"]["array"] == [None, None]
    assert drawn["customdata"] == ["", ""]
    line = (folder / "leaderboard.tex").read_text().splitlines()[5]
    assert line.endswith(rf"${rows[1]['area_difference']:+.2f}$ & -- \\")


def test_what_was_not_measured_is_a_gap_and_what_no_method_has_no_column(comparison, tmp_path, read_page):
    _, found = comparison
    rows = found.leaderboard
    unknown = dict.fromkeys(("images_per_s", "firing_rate"), math.nan)
    earlier = {key: value for key, value in rows[1].items() if key != "training_s"} | unknown
    last = rows[2] | {"firing_rate": math.nan}
    write_comparison(tmp_path, replace(found, leaderboard=[rows[0], earlier, last]))
    page = read_page(tmp_path / "report.html")
    gaps = {**dict.fromkeys(unknown), "training_s": None}
    assert page.tables["cost"]["tiny-twsd"] == {"seeds": 3, "timesteps": 3, "epochs": 5, "peak_mib": 321.25, **gaps}
    assert page.tables["cost"]["tiny-sce"]["training_s"] == 3723.0
    assert "nan" not in page.text
    write_comparison(tmp_path, replace(found, leaderboard=[row | unknown for row in rows]))
    assert not unknown.keys() & read_page(tmp_path / "report.html").tables["cost"]["tiny-twsd"].keys()


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00:00"), (3723.0, "1:02:03"), (90061.0, "25:01:01")])
def test_durations_are_hours_minutes_and_seconds_of_more_than_a_day_too(seconds, shown):
    assert duration(seconds) == shown


PUBLISHED = [
    {"ours": "tiny-sce", "ours_accuracy": 81.234, "ours_k": 3, "accuracy": "76.30", "network": "VGG_9", "T": "4"}
    | {
        "protocol": "mean of 3",
        "augmentation": "crop",
        "source": "Doe (2025), Tab. 1",
        "doubt": "best test epoch; one seed",
    },
    {"ours": "tiny-s2w", "ours_accuracy": 82.0, "ours_k": 2, "accuracy": "78.2", "network": "VGG-9", "T": ""}
    | {"protocol": "not stated", "augmentation": "none", "source": "Doe (2025), Tab. 2", "doubt": ""},
]


def test_what_papers_report_stands_beside_ours_with_its_doubts(comparison, tmp_path, read_page):
    folder, found = comparison
    assert "published" not in read_page(folder / "report.html").sections, "nothing is published on this data set"
    assert not (folder / "published.tex").exists()
    found = replace(found, published=PUBLISHED)
    write_comparison(tmp_path, found)
    page = read_page(tmp_path / "report.html")
    assert "published" in page.sections
    assert page.tables["published"]["tiny-sce"]["ours_accuracy"] == 81.234
    assert page.tables["published"]["tiny-sce"]["doubts"] == "†1 †2"
    assert page.tables["published"]["tiny-s2w"]["doubts"] is None
    assert re.search(r"†1\s+best test epoch\s+†2\s+one seed", page.text)
    write_paper_files(tmp_path, found)
    assert (tmp_path / "published.tex").read_text().splitlines()[:6] == [
        r"\begin{tabular}{lrrrlrl}",
        r"\toprule",
        r"Method & Here & at $k$ & Published & Its network & Its $T$ & Source \\",
        r"\midrule",
        r"tiny-sce & $81.23$ & 3 & $76.30^\dagger$ & VGG\_9 & 4 & Doe (2025), Tab. 1 \\",
        r"tiny-s2w & $82.00$ & 2 & $78.2$ & VGG-9 & -- & Doe (2025), Tab. 2 \\",
    ]


def test_cost_timesteps_and_regret_are_tables_for_latex_too(comparison):
    folder, found = comparison
    rows = found.leaderboard
    steps = [{"method": row["method"], "accuracy_1": 80.0, "confidence_1": math.nan, "entropy_1": 0.25} for row in rows]
    sce, twsd, s2w = found.methods
    lost = [
        {"method": twsd, "specialists": sce, "regret_2": 1.0, "regret_2_low": -0.5, "regret_2_high": 2.0},
        {"method": s2w, "specialists": sce, "regret_3": 1.0, "regret_3_low": -0.5, "regret_3_high": 2.0},
    ]
    write_paper_files(folder, replace(found, timesteps=steps, regrets=lost))
    tables = {name: (folder / f"{name}.tex").read_text().splitlines() for name in ("cost", "timesteps", "regret")}
    firing = f"{rows[1]['firing_rate']:.3f}"
    assert tables["cost"][2] == (
        "Method & T in training & Epochs & Training time, h:mm:ss & Training speed, images/s & Peak memory in training, MiB & "
        r"Firing rate, spikes per neuron and timestep \\"
    )
    assert tables["cost"][5] == rf"tiny-twsd & 3 & 5 & 1:02:03 & 1,234 & 321 & {firing} \\"
    assert tables["timesteps"][2] == r"Method & Accuracy, \%, $k=1$ & Entropy, nats, $k=1$ \\", "none was confident"
    assert tables["timesteps"][4] == r"tiny-sce & 80.00 & 0.250 \\"
    assert tables["regret"][4] == r"tiny-twsd against tiny-sce & $+1.00$ [$-0.50$, $+2.00$] & -- \\"
    write_paper_files(folder, found)
    assert not (folder / "regret.tex").exists(), "of an earlier comparison"


def row(method, area, difference=None, p=None):
    found = {"method": method, "area": area}
    if difference is not None:
        found |= {"area_difference": difference, "area_low": difference - 1, "area_high": difference + 1, "area_p": p}
    return found


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [row("a", 90.0), row("b", 92.5, 2.5, 0.0)],
            "Best in the mean over k is b with 92.50 %: +2.50 points [+1.50,\N{NO-BREAK SPACE}+3.50] from the baseline, a. "
            "The difference is larger than what chance explains.",
        ),
        (
            [row("a", 90.0), row("b", 89.5, -0.5, 0.4)],
            "No method is better in the mean over k than the baseline, a, with 90.00 %. "
            "The difference is within what chance explains.",
        ),
        (
            [row("a", 90.0), row("b", 92.0, 2.0, 0.04), row("c", 89.0, -1.0, 0.05)],
            "Best in the mean over k is b with 92.00 %: +2.00 points [+1.00,\N{NO-BREAK SPACE}+3.00] from the baseline, a. "
            "Of the 2 other methods 1 differs from the baseline by more than chance.",
        ),
    ],
)
def test_one_sentence_says_who_leads(rows, sentence):
    assert verdict(rows) == sentence


def test_many_methods_and_timesteps_have_a_figure_each_with_its_own_look():
    curves = {f"method {i}": [(80.0 + i, 0.5)] * 12 for i in range(8)}
    traces = figures.methods(curves)["data"]
    looks = {(t["line"]["color"], t["line"]["dash"], t["marker"]["symbol"]) for t in traces}
    assert len(looks) == len({trace["line"]["color"] for trace in traces}) == 8


def test_the_colours_of_methods_stand_out_on_the_light_and_the_dark_page(comparison):
    folder, _ = comparison
    style = (folder / "report.html").read_text().partition("<style>")[2].partition("</style>")[0]
    pages = re.findall(r"--(?:page|panel): (#\w{6})", style)
    assert len(pages) == 4

    def luminance(color):  # WCAG 2
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for color in figures.METHODS:
        for page in pages:
            dark, light = sorted((luminance(color), luminance(page)))
            assert (light + 0.05) / (dark + 0.05) >= 3, (color, page)


def test_a_p_below_what_the_resamples_resolve_is_written_as_such():
    difference = {"area_difference": 5.0, "area_low": 4.0, "area_high": 6.0}
    rows = [
        {"method": "a", "seeds": 1, "accuracy_1": 90.0, "area": 90.0},
        {"method": "b", "seeds": 1, "accuracy_1": 95.0, "area": 95.0} | difference | {"area_p": 0.002},
        {"method": "c", "seeds": 1, "accuracy_1": 95.0, "area": 95.0} | difference | {"area_p": 0.0126},
    ]
    table = latex.leaderboard(rows)
    # none of 2000 resamples, both sides: below 2/2000, and twice that for two comparisons
    assert r"b & $95.00$ & $95.00$ & $+5.00$ [$+4.00$, $+6.00$] & $0.002$ \\" in table
    assert r"[$+4.00$, $+6.00$] & $0.013$ \\" in table
