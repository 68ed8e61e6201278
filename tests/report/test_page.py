"""The page of a run: what it shows is what the run's files hold."""

import base64
import csv
import io
import json
import re
from itertools import pairwise

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from spikedistill.evaluation.calibration import reliability
from spikedistill.evaluation.intervals import wilson
from spikedistill.evaluation.results import Score
from spikedistill.files import write_rows
from spikedistill.report import figures, write_report
from spikedistill.report.figures.drawing import span
from spikedistill.report.run.sections.samples import to_data_uri

SECTIONS = ["accuracy", "training", "calibration", "firing", "confusion", "samples", "cost", "configuration"]


def of_columns(table, *names):
    return {k: {name: row[name] for name in names} for k, row in table.items()}


def by_k(entries, *names):
    return {str(entry["k"]): {name: entry[name] for name in names} for entry in entries}


def test_the_table_of_record_is_the_last_epoch_of_the_results(page, results):
    names = ("accuracy", "balanced_accuracy", "nll", "ece", "confidence", "entropy", "brier")
    record, last = page.tables["record"], results["last"]
    assert of_columns(record, *names) == by_k(last["ensemble"], *names)
    assert {k: row["single_accuracy"] for k, row in record.items()} == {
        str(e["k"]): e["accuracy"] for e in last["single"]
    }
    assert page.tables["single"] == by_k(last["single"], *names)
    assert page.numbers["accuracy_1"] == last["ensemble"][0]["accuracy"]
    assert page.numbers["accuracy_4"] == last["ensemble"][-1]["accuracy"]


def test_the_selected_epoch_stands_beside_and_the_best_test_epoch_only_under_its_name(page, results):
    record, selected = page.tables["record"], results["selected"]["ensemble"]
    assert {k: row["selected_accuracy"] for k, row in record.items()} == {str(e["k"]): e["accuracy"] for e in selected}
    assert page.tables["selected"] == by_k(selected, "accuracy", "nll", "ece", "confidence", "entropy", "brier")
    assert [row["best_test_accuracy"] for row in record.values()] == [None, None, None, 0.925]
    elsewhere = {
        value
        for table in page.tables.values()
        for row in table.values()
        for column, value in row.items()
        if column != "best_test_accuracy"
    }
    assert 0.925 not in elsewhere
    assert "Best test epoch (optimistic)" in page.text


def test_the_curve_of_accuracy_has_wilson_intervals_and_an_axis_wider_than_they_are(page, results):
    shown, counted = page.tables["accuracy"], 120
    for entry in results["last"]["ensemble"]:
        low, high = wilson(entry["accuracy"], counted)
        row = shown[str(entry["k"])]
        assert (row["low"], row["high"]) == (low, high)
    figure = page.figures["accuracy"]
    band = next(trace for trace in figure["data"] if trace.get("fill") == "toself")
    ends = [shown[str(k)]["low"] for k in (1, 2, 3, 4)] + [shown[str(k)]["high"] for k in (4, 3, 2, 1)]
    assert band["y"] == [100 * end for end in ends]
    assert band["x"] == [1, 2, 3, 4, 4, 3, 2, 1]
    low, high = figure["layout"]["yaxis"]["range"]
    widest = max(100 * (row["high"] - row["low"]) for row in shown.values())
    assert high - low >= 3 * widest


def test_the_axis_of_a_flat_curve_is_not_narrower_than_its_noise(make_run, read_page):
    """Of 10,000 samples an accuracy of 98.9 percent is known to 0.4 points: a wiggle of 0.1 must not fill the plot."""
    scores = [Score(k=k, accuracy=a, nll=0, ece=0, confidence=a) for k, a in ((1, 0.989), (2, 0.990))]
    low, high = figures.accuracy(scores, scores, [], 10_000)["layout"]["yaxis"]["range"]
    assert high - low >= 3 * 0.4
    assert low < 98.9 < 99.0 < high
    assert figures.accuracy(scores, scores, [], None)["layout"]["yaxis"]["range"][0] < 95.5, (
        "5 points where it is unknown"
    )


@pytest.mark.parametrize(
    ("values", "least", "ends"),
    [
        ([50.0, 60.0], 4.0, (50.0, 60.0)),  # wide enough
        ([50.0, 51.0], 4.0, (48.5, 52.5)),  # grown on both sides
        ([99.5, 99.9], 4.0, (96.0, 100.0)),  # not beyond 100
        ([0.5, None], 4.0, (0.0, 4.0)),
        ([], 4.0, (0.0, 100.0)),
        ([10.0], 400.0, (0.0, 100.0)),
    ],
)
def test_an_axis_spans_at_least_what_it_must(values, least, ends):
    margin = 0.05 * (ends[1] - ends[0])
    assert span(values, least) == pytest.approx([ends[0] - margin, ends[1] + margin])


def test_accuracy_over_the_epochs_is_drawn_at_the_first_and_the_last_timestep(make_run, read_page):
    """Of the training batches, and of held-out and test samples where they were scored after every epoch."""
    run = make_run()
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    scored = {"holdout_accuracy_1": 0.5, "holdout_accuracy_2": 0.6, "holdout_accuracy_4": 0.75, "test_accuracy_4": 0.7}
    write_rows(run / "metrics.csv", [row | scored for row in rows])
    page = read_page(write_report(run))
    drawn = {trace["name"]: trace["y"] for trace in page.figures["accuracy_epochs"]["data"]}
    assert list(drawn) == ["training, k = 1", "training, k = 4", "held-out, k = 1", "held-out, k = 4", "test, k = 4"]
    assert drawn["training, k = 1"] == pytest.approx([25.0, 62.5, 75.0, 81.25, 85.0])  # 1 - 0.75 / epoch
    assert drawn["held-out, k = 4"] == [75.0] * 5
    assert page.tables["accuracy_epochs"]["5.0"]["train_accuracy"] == 0.9
    assert "The test set is only watched here" in page.text


def test_losses_have_a_logarithmic_axis_if_all_are_above_0(make_run, read_page):
    run = make_run()
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    write_rows(run / "metrics.csv", [row | {"loss/twsd": -0.5} for row in rows])
    page = read_page(write_report(run))
    kinds = {name: page.figures[name]["layout"]["yaxis"].get("type") for name in ("loss_single", "loss_terms")}
    assert kinds == {"loss_single": "log", "loss_terms": None}
    assert page.text.count("The axis is logarithmic") == 2


def test_a_long_training_is_thinned_in_the_page(make_run, read_page):
    run = make_run()
    write_rows(run / "metrics.csv", [{"epoch": e, "ce_single_1": 1 / e} for e in range(1, 1001)])
    page = read_page(write_report(run))
    (trace,) = page.figures["loss_single"]["data"]
    assert len(trace["x"]) == 200
    assert (trace["x"][0], trace["x"][-1]) == (1, 1000)
    assert len(page.tables["loss_single"]) == 20
    assert "20 of 1000 epochs, all are in metrics.csv" in page.text


def test_accuracy_beyond_training_is_dashed_and_not_in_the_record(page, results):
    assert list(page.tables["record"]) == ["1", "2", "3", "4"]
    shown = page.tables["accuracy"]
    assert {k: row["beyond"] for k, row in shown.items() if row["beyond"] is not None} == {"5": 0.875, "6": 0.8875}
    *bands, together, alone, beyond = page.figures["accuracy"]["data"]
    last = results["last"]
    assert len(bands) == 3
    assert together["y"] == [100 * entry["accuracy"] for entry in last["ensemble"]]
    assert alone["y"] == [100 * entry["accuracy"] for entry in last["single"]]
    assert (beyond["x"], beyond["line"]["dash"]) == ([4, 5, 6], "dash")
    assert beyond["y"] == [together["y"][-1], 87.5, 88.75]
    assert together["line"]["dash"] == "solid"


def test_calibration_shows_the_results_before_and_after_temperature(full_run, page, results):
    table, last = page.tables["calibration"], results["last"]
    assert of_columns(table, "accuracy", "confidence", "ece", "nll") == by_k(
        last["ensemble"], "accuracy", "confidence", "ece", "nll"
    )
    after = {
        str(e["k"]): {"temperature": e["temperature"], "ece_after": e["ece"], "nll_after": e["nll"]}
        for e in last["calibrated"]
    }
    assert of_columns(table, "temperature", "ece_after", "nll_after") == after
    assert table["2"]["gap"] == last["ensemble"][1]["confidence"] - last["ensemble"][1]["accuracy"]

    tensors = load_file(full_run / "logits.safetensors")
    for k in (1, 2, 4):
        rows = list(page.tables[f"reliability_{k}"].values())
        raw = last["reliability"][str(k)]
        calibrated = reliability(
            tensors["logits"][:k].double().mean(0) / last["calibrated"][k - 1]["temperature"], tensors["targets"]
        )
        assert [row["count"] for row in rows] == [entry["count"] for entry in raw]
        assert [row["count_after"] for row in rows] == [entry["count"] for entry in calibrated]
        for row, entry, entry_after in zip(rows, raw, calibrated, strict=True):
            assert row["accuracy"] == (entry["accuracy"] if entry["count"] else None)
            assert row["confidence"] == (entry["confidence"] if entry["count"] else None)
            assert row["accuracy_after"] == pytest.approx(entry_after["accuracy"]) or not entry_after["count"]
    assert "reliability_3" not in page.tables


def test_firing_rates_loss_and_cost_are_those_of_the_files(full_run, page, results):
    for entry in results["last"]["firing_rates"]:
        assert list(page.tables["firing"][entry["layer"]].values()) == entry["rates"]
    assert page.figures["firing"]["data"][0]["z"] == [entry["rates"] for entry in results["last"]["firing_rates"]]
    for kind in ("single", "prefix"):
        table = page.tables[f"loss_{kind}"]
        # ce_kind_k = (1 + 1/k) / epoch, so 1.5 / 4 at epoch 4, k = 2
        assert table["4.0"][f"ce_{kind}_2"] == 0.375
        assert [trace["name"] for trace in page.figures[f"loss_{kind}"]["data"]] == ["k = 1", "k = 2", "k = 3", "k = 4"]
        assert page.figures[f"loss_{kind}"]["data"][1]["y"][3] == 0.375
    assert page.tables["loss_terms"]["5.0"] == {"loss/twce": 0.2, "loss/twsd": 0.1}
    assert "strongest" not in page.figures
    assert (page.numbers["images_per_s"], page.numbers["peak_mib"]) == (1234.5, 321.25)


def test_which_timestep_was_strongest_is_drawn_over_the_epochs(make_run, read_page):
    run = make_run(T=2)
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    chosen = {"strongest_1": 0.25, "strongest_2": 0.75, "weakest_1": 1.0, "weakest_2": 0.0}
    write_rows(run / "metrics.csv", [row | chosen for row in rows])
    page = read_page(write_report(run))
    for role in ("strongest", "weakest"):
        drawn = {trace["name"]: trace["y"] for trace in page.figures[role]["data"]}
        assert drawn == {f"timestep {k}": [chosen[f"{role}_{k}"]] * 5 for k in (1, 2)}


def test_the_confusion_matrix_counts_predictions_of_all_timesteps(full_run, page):
    tensors = load_file(full_run / "logits.safetensors")
    expected = [[0] * 4 for _ in range(4)]
    for sample in range(120):
        predicted = int(tensors["logits"][:, sample].double().mean(0).argmax())
        expected[int(tensors["targets"][sample])][predicted] += 1
    assert [list(row.values()) for row in page.tables["confusion"].values()] == expected
    assert page.figures["confusion"]["data"][0]["customdata"] == expected


def test_many_classes_are_listed_by_their_most_frequent_mistakes(make_run, read_page):
    names = [f"class {chr(65 + i)}" for i in range(30)]
    page = read_page(write_report(make_run(classes=names, N=900)))
    counts = page.figures["confusion"]["data"][0]["customdata"]
    mistakes = sorted((n for t, row in enumerate(counts) for p, n in enumerate(row) if t != p), reverse=True)
    table = page.tables["confusion"]
    assert [row["count"] for row in table.values()] == mistakes[:30]
    for row in table.values():
        assert counts[names.index(row["true"])][names.index(row["predicted"])] == row["count"]
    assert "text" not in page.figures["confusion"]["data"][0]


def test_of_very_many_classes_the_plot_shows_those_that_are_mistaken_most(make_run, read_page):
    names = [f"class {i:03}" for i in range(150)]
    page = read_page(write_report(make_run(classes=names, N=600)))
    shown = page.figures["confusion"]["data"][0]
    mistaken = {row[name] for row in page.tables["confusion"].values() for name in ("true", "predicted")}
    assert shown["x"] == shown["y"] == sorted(mistaken)
    assert f"Shown are {len(mistaken)} of 150 classes" in page.text


def test_samples_that_change_come_first_with_the_prediction_at_every_k(full_run, page):
    tensors = load_file(full_run / "logits.safetensors")
    stored = load_file(full_run / "samples.safetensors")
    classes = ["T-shirt/top", "Trouser", "Pullover", "Dress"]
    changes = []
    for index in stored["indices"].tolist():
        answers = [int(tensors["logits"][:k, index].double().mean(0).argmax()) for k in range(1, 5)]
        changes.append(sum(a != b for a, b in pairwise(answers)))
    order = sorted(range(20), key=lambda i: -changes[i])[:12]  # sorted is stable: equal ones in their order
    assert list(page.samples) == [int(stored["indices"][i]) for i in order]
    assert max(changes) > 0
    assert f"{sum(c > 0 for c in changes)} of the 20 stored test samples change" in page.text

    images = [found["src"] for tag, found in page.tags if tag == "img"]
    for i, source, (index, rows) in zip(order, images, page.samples.items(), strict=True):
        pixels = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
        assert pixels.mode == "L"
        assert list(pixels.tobytes()) == stored["images"][i].flatten().tolist()
        for k, row in rows.items():
            p = tensors["logits"][: int(k), index].double().mean(0).softmax(0)
            assert row["confidence"] == pytest.approx(float(p.max()))
    first = order[0]
    index = int(stored["indices"][first])
    truth = classes[int(tensors["targets"][index])]
    said = classes[int(tensors["logits"][:1, index].double().mean(0).argmax())]
    mark = "✓ right" if said == truth else "✗ wrong"
    assert re.search(
        rf"{truth} true class, sample {index} k prediction confidence right or wrong 1 {said} \d+ % {mark} 2", page.text
    )


def test_a_large_image_is_shrunk_to_the_size_that_the_page_shows():
    head, _, content = to_data_uri((torch.rand(3, 300, 200) * 255).to(torch.uint8)).partition(",")
    assert head == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert picture.size == (75, 112)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "RGB"), (3, "RGB"), (5, "L")])
def test_images_of_any_number_of_channels_are_shown(make_run, read_page, channels, mode):
    folder = make_run(channels=channels)
    page = read_page(write_report(folder))
    source = next(found["src"] for tag, found in page.tags if tag == "img")
    image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert (image.mode, image.size) == (mode, (8, 8))
    if channels == 2:  # events: the first polarity red, the second green and blue
        place = load_file(folder / "samples.safetensors")["indices"].tolist().index(next(iter(page.samples)))
        on, off = load_file(folder / "samples.safetensors")["images"][place][:, 0, 0].tolist()
        assert image.getpixel((0, 0)) == (on, off, off)


def test_a_full_run_has_every_section(page):
    assert page.sections == SECTIONS
    assert [found["href"] for tag, found in page.tags if tag == "a"][1:] == [f"#{name}" for name in SECTIONS]


@pytest.mark.parametrize(
    ("without", "gone"),
    [
        (["metrics.csv"], ["training"]),
        (["firing_rates"], ["firing"]),
        (["logits.safetensors"], ["confusion", "samples"]),
        (["samples.safetensors"], ["samples"]),
        (["cost"], ["cost"]),
        (["selected", "best_test", "beyond", "calibrated", "classes"], []),
        (
            [
                "metrics.csv",
                "logits.safetensors",
                "samples.safetensors",
                "cost",
                "firing_rates",
                "reliability",
                "calibrated",
            ],
            ["training", "firing", "confusion", "samples", "cost"],
        ),
    ],
)
def test_a_section_appears_only_with_its_data(make_run, read_page, without, gone):
    page = read_page(write_report(make_run(without=without)))
    assert page.sections == [name for name in SECTIONS if name not in gone]
    record = next(iter(page.tables["record"].values()))
    assert ("selected_accuracy" in record) == ("selected" not in without)
    assert ("best_test_accuracy" in record) == ("best_test" not in without)
    assert ("temperature" in page.tables["calibration"]["1"]) == ("calibrated" not in without)
    lines = [trace for trace in page.figures["accuracy"]["data"] if trace.get("fill") != "toself"]
    assert len(lines) == (2 if "beyond" in without else 3)
    assert ("Dashed" in page.text) == ("beyond" not in without)


def test_reliability_comes_from_the_logits_where_the_results_have_none(make_run, read_page, page):
    other = read_page(write_report(make_run(without=["reliability"])))
    assert other.tables["reliability_4"] == page.tables["reliability_4"]
    neither = read_page(write_report(make_run(without=["reliability", "logits.safetensors", "samples.safetensors"])))
    assert "reliability_4" not in neither.tables
    assert "calibration" in neither.tables


def test_reliability_of_the_results_is_shown_as_it_stands_there(make_run, read_page):
    folder = make_run()
    results = json.loads((folder / "results.json").read_text())
    results["last"]["reliability"] = {"4": [{"count": 0, "accuracy": None, "confidence": None}] * 14}
    results["last"]["reliability"]["4"].append({"count": 120, "accuracy": 0.75, "confidence": 0.96875})
    (folder / "results.json").write_text(json.dumps(results))
    page = read_page(write_report(folder))
    assert [name for name in page.tables if name.startswith("reliability")] == ["reliability_4"]
    assert page.tables["reliability_4"]["93.3 to 100.0"]["accuracy"] == 0.75
    assert page.tables["reliability_4"]["0.0 to 6.7"]["accuracy"] is None
    assert page.figures["reliability_4"]["data"][1]["x"] == [96.875]


def test_one_timestep_makes_a_page(make_run, read_page):
    page = read_page(write_report(make_run(T=1, without=["beyond"])))
    assert "accuracy_1" in page.numbers
    assert "a single timestep" in page.text
    assert page.sections == SECTIONS


def test_a_cell_that_is_not_finite_is_a_gap(make_run, read_page):
    folder = make_run()
    (folder / "metrics.csv").write_text("epoch,ce_single_1,ce_single_2\n1,0.5,nan\n2,,inf\n")
    page = read_page(write_report(folder))
    assert page.tables["loss_single"] == {
        "1.0": {"ce_single_1": 0.5, "ce_single_2": None},
        "2.0": {"ce_single_1": None, "ce_single_2": None},
    }
    assert [trace["y"] for trace in page.figures["loss_single"]["data"]] == [[0.5, None], [None, None]]


def test_columns_of_timesteps_are_in_the_order_of_k(make_run, read_page):
    folder = make_run()
    (folder / "metrics.csv").write_text("epoch,ce_single_10,ce_single_2\n1,0.5,0.25\n")
    page = read_page(write_report(folder))
    assert [trace["name"] for trace in page.figures["loss_single"]["data"]] == ["k = 2", "k = 10"]


def test_the_headline_says_what_was_trained(page):
    expected = (
        "A convnet of width 0.5 trained on tiny to answer within 4 timesteps: "
        "objective twce+twsd, gradients by bptt, 5 epochs, seed 3."
    )
    assert expected in page.text


def test_the_page_says_how_to_repeat_the_run(make_run, read_page):
    page = read_page(write_report(make_run()))
    assert "spikedistill train config.yaml --out another/folder" in page.text


def test_a_rounding_flip_of_one_sample_is_no_mismatch(make_run):
    folder = make_run()
    results = json.loads((folder / "results.json").read_text())
    results["last"]["ensemble"][-1]["accuracy"] -= 1 / 120
    (folder / "results.json").write_text(json.dumps(results))
    write_report(folder)


def test_runs_of_half_precision_logits_are_read(make_run):
    folder = make_run(without=["reliability"])
    tensors = load_file(folder / "logits.safetensors")
    tensors["logits"] = tensors["logits"].to(torch.bfloat16).float().to(torch.bfloat16)
    results = json.loads((folder / "results.json").read_text())
    right = tensors["logits"].double().mean(0).argmax(-1) == tensors["targets"]
    results["last"]["ensemble"][-1]["accuracy"] = float(right.double().mean())
    (folder / "results.json").write_text(json.dumps(results))
    save_file(tensors, folder / "logits.safetensors")
    write_report(folder)


def test_a_page_of_a_hundred_classes_and_a_long_training_is_below_2_megabytes(make_run):
    run = make_run(T=10, N=2000, classes=[f"class number {i:03}" for i in range(100)], channels=3)
    per_epoch = {
        f"{kind}_{k}": 0.123456789 / k for kind in ("ce_single", "ce_prefix", "strongest") for k in range(1, 11)
    }
    write_rows(
        run / "metrics.csv", [{"epoch": e} | {name: v / e for name, v in per_epoch.items()} for e in range(1, 301)]
    )
    images = torch.nn.functional.interpolate(torch.rand(20, 3, 9, 9), size=(224, 224), mode="bicubic").clamp(0, 1)
    save_file({"images": (255 * images).to(torch.uint8), "indices": torch.arange(20)}, run / "samples.safetensors")
    assert write_report(run).stat().st_size < 2_000_000
