"""The section on deployment: every figure is that of the logits, at every threshold."""

import json
import math
import re

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from exit_replay import replay, scores_and_answers
from quick_runs import quick
from safetensors.torch import load_file
from torch import nn

from spikedistill import load, temporal
from spikedistill.data import Dataset, TensorSamples, load_dataset
from spikedistill.errors import UserError
from spikedistill.evaluation import AnytimeClassifier, count_operations, energy, evaluate
from spikedistill.evaluation.deployment import deployment, energy_per_timestep
from spikedistill.report import write_report
from spikedistill.report.run.sections.deployment import pareto_front
from spikedistill.training import train

POLICIES = ["confidence", "sum_confidence", "entropy", "margin", "gap", "stability"]
ENERGY = {"costs": "45nm", "samples": 32, "uncounted_macs": 0, "total_pj": [5000.0, 2500.0, 3000.0, 3500.0]}


def add_deployment(folder, estimate):
    """Write into a run's results.json what evaluation would."""
    saved, results = load_file(folder / "logits.safetensors"), json.loads((folder / "results.json").read_text())
    accuracy = [entry["accuracy"] for entry in results["last"]["ensemble"]]
    results["deployment"] = deployment(saved["logits"], saved["targets"], accuracy, estimate)
    (folder / "results.json").write_text(json.dumps(results))
    return results["deployment"]


def points_of(page):
    return json.loads(page.unpacked("chooser"))


@pytest.fixture
def run(make_run):
    folder = make_run()
    add_deployment(folder, ENERGY)
    return folder


@pytest.fixture
def found(run):
    return json.loads((run / "results.json").read_text())["deployment"]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_point_is_what_the_logits_give_at_its_threshold(run, found, policy):
    saved = load_file(run / "logits.safetensors")
    logits, targets = saved["logits"].numpy(), saved["targets"].numpy()
    points = found["policies"][policy]
    for point in points:
        times, accuracy, mean_exit, leaving = replay(logits, targets, policy, point["threshold"])
        assert point["accuracy"] == pytest.approx(accuracy, abs=1e-12)
        assert point["mean_exit"] == pytest.approx(mean_exit, abs=1e-12)
        assert point["leaving"] == pytest.approx(leaving, abs=1e-12)
        # to leave at 1, 2, 3 or 4 costs 5000, 7500, 10500 or 14000 pJ
        spent = sum({1: 5000, 2: 7500, 3: 10500, 4: 14000}[t] for t in times) / len(times)
        assert point["energy_pj"] == pytest.approx(spent, rel=1e-12)
    means = [point["mean_exit"] for point in points]
    assert 2 <= len(points) <= 50
    assert means == sorted(means)
    assert (means[0], points[0]["leaving"]) == (1.0, [1.0, 0.0, 0.0, 0.0]) or policy == "stability"
    assert (points[-1]["threshold"], points[-1]["mean_exit"]) == (None, 4.0)
    if policy == "stability":  # after 1, 2 or 3 equal answers, or never
        assert [point["threshold"] for point in points] == [1.0, 2.0, 3.0, None]
    else:  # no gap that the 360 scores could have filled: 3 / 49 apart, and a few samples
        assert max(np.diff(means)) < 0.15
        assert len(points) == 50


def test_thresholds_keep_away_from_every_score(run, found):
    logits = load_file(run / "logits.safetensors")["logits"].numpy()
    for policy in POLICIES[:-1]:
        scores = scores_and_answers(logits, policy)[0][:-1]
        for point in found["policies"][policy][:-1]:
            assert np.abs(scores - point["threshold"]).min() > 1e-12
            assert 0 < point["threshold"] < (math.inf if policy == "gap" else 1)


def test_a_fixed_k_costs_the_timesteps_before_it_as_well(run, found):
    ensemble = json.loads((run / "results.json").read_text())["last"]["ensemble"]
    assert [entry["accuracy"] for entry in found["fixed"]] == [entry["accuracy"] for entry in ensemble]
    assert [entry["energy_pj"] for entry in found["fixed"]] == [5000.0, 7500.0, 10500.0, 14000.0]


def test_tables_and_plots_hold_every_point_and_mark_the_front(run, found, read_page):
    page = read_page(write_report(run))
    assert page.sections[5:7] == ["samples", "deployment"]
    entries = [(f"k = {e['k']}", float(e["k"]), e["accuracy"], e["energy_pj"]) for e in found["fixed"]]
    for policy, points in found["policies"].items():
        for p in points:
            threshold = math.inf if p["threshold"] is None else p["threshold"]
            name = f"{policy} {int(threshold) if threshold in (1.0, 2.0, 3.0) else threshold}"
            entries.append((name, p["mean_exit"], p["accuracy"], p["energy_pj"]))
    latency, joules = page.tables["deployment_latency"], page.tables["deployment_energy"]
    for plane, column, place, scale in ((latency, "mean_exit", 1, 1), (joules, "energy", 3, 1000)):
        assert list(plane) == [name for name, *_ in entries if name in plane], "in their order"
        for policy, points in found["policies"].items():
            assert sum(name.startswith(f"{policy} ") for name in plane) >= min(12, len(points))
        for entry in entries:
            name, accuracy, cost = entry[0], entry[2], entry[place]
            if name not in plane:  # a table has some points of each policy, and all of the front
                assert any(o[place] <= cost and o[2] >= accuracy and o is not entry for o in entries)
                continue
            assert plane[name]["accuracy"] == accuracy
            assert plane[name][column] == cost / scale  # nanojoules: the largest is 14 nJ
            beaten = any(
                (other[place] <= cost and other[2] > accuracy) or (other[place] < cost and other[2] >= accuracy)
                for other in entries
            )
            assert plane[name]["front"] == (None if beaten else "yes")
    for name in ("latency", "energy"):
        figure = page.figures[f"deployment_{name}"]
        fixed, *curves, _front, _chosen = figure["data"]
        assert fixed["y"] == [100 * entry["accuracy"] for entry in found["fixed"]]
        assert [curve["name"] for curve in curves] == POLICIES
        for curve in curves:
            assert curve["y"] == [100 * point["accuracy"] for point in found["policies"][curve["name"]]]
        looks = [(trace["marker"]["symbol"], trace["line"]["dash"]) for trace in figure["data"]]
        assert len(set(looks)) == len(looks)
        go.Figure(json.loads(re.sub(r"var\(--[a-z]+\)", "#123456", json.dumps(figure))))
    assert "an estimate, no measurement: operations of 32 test samples" in page.text


def test_the_front_keeps_what_nothing_beats():
    # (2, 0.7) costs more than (1, 0.8) and is worse; of two at cost 3 the better one stays; (4, 0.9) gains nothing
    points = [(3.0, 0.85), (1.0, 0.8), (2.0, 0.7), (3.0, 0.9), (4.0, 0.9), (5.0, 0.95)]
    assert pareto_front(points) == [(1.0, 0.8), (3.0, 0.9), (5.0, 0.95)]


def test_the_slider_has_the_points_of_the_results_and_when_each_image_leaves(run, found, read_page):
    page = read_page(write_report(run))
    data, saved = points_of(page), load_file(run / "logits.safetensors")
    shown = list(page.samples)
    assert len(shown) == 12
    for policy, points in found["policies"].items():
        assert len(data["policies"][policy]) == len(points)
        for given, point in zip(data["policies"][policy], points, strict=True):
            assert {k: given[k] for k in point if k != "threshold"} == {
                k: v for k, v in point.items() if k != "threshold"
            }
            assert float(given["threshold"]) == (math.inf if point["threshold"] is None else point["threshold"])
            times = replay(saved["logits"].numpy(), saved["targets"].numpy(), policy, point["threshold"])[0]
            assert given["exits"] == [times[index] for index in shown]
    # it starts at the quickest point that loses no more than half a point
    enough = [
        i
        for i, p in enumerate(found["policies"]["confidence"])
        if p["accuracy"] >= found["fixed"][-1]["accuracy"] - 0.005
    ]
    assert data["start"] == {"policy": "confidence", "index": enough[0]}


def test_results_from_before_a_policy_was_there_are_read(run, read_page):
    results = json.loads((run / "results.json").read_text())
    del results["deployment"]["policies"]["sum_confidence"]
    (run / "results.json").write_text(json.dumps(results))
    assert list(points_of(read_page(write_report(run)))["policies"]) == [p for p in POLICIES if p != "sum_confidence"]


def test_the_page_says_of_which_logits_the_confidences_are(run, read_page):
    text = read_page(write_report(run)).text
    assert "Probabilities are the softmax of the mean of its logits so far" in text
    assert "the softmax of the sum of the logits so far" in text


def test_the_controls_have_names_and_speak(run, read_page):
    page = read_page(write_report(run))
    labels = {found["for"] for tag, found in page.tags if tag == "label"}
    assert labels == {"chooser-policy", "chooser-threshold"}
    controls = {found["id"]: (tag, found.get("type")) for tag, found in page.tags if found.get("id") in labels}
    assert controls == {"chooser-policy": ("select", None), "chooser-threshold": ("input", "range")}
    assert [found["aria-live"] for tag, found in page.tags if tag == "output"] == ["polite"]
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == page.captions
    assert all(found["alt"] for tag, found in page.tags if tag == "img")
    outside = [reference for _, reference in page.references if not reference.startswith(("#", "data:"))]
    assert outside == []


def test_the_same_files_give_the_same_page(run):
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_a_run_evaluated_before_has_a_report_without_the_section(make_run, read_page):
    page = read_page(write_report(make_run()))
    assert "deployment" not in page.sections
    assert "chooser" not in page.scripts


def test_a_run_without_logits_or_images_has_the_figures_alone(run, read_page):
    for name in ("logits.safetensors", "samples.safetensors"):
        (run / name).unlink()
    page = read_page(write_report(run))
    assert "deployment" in page.sections
    assert points_of(page)["policies"]["margin"][0]["exits"] == []


def test_an_unknown_energy_is_left_out(make_run, read_page):
    folder = make_run()
    found = add_deployment(folder, None)
    assert {entry["energy_pj"] for entry in found["fixed"]} == {None}
    page = read_page(write_report(folder))
    assert "deployment_latency" in page.tables
    assert "deployment_energy" not in page.tables
    assert "The energy is left out" in page.text
    assert points_of(page)["unit"] == ""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda found: found["fixed"].pop(), r"deployment\.fixed at k = \[1, 2, 3, 4\], got \[1, 2, 3\]"),
        (lambda found: found["policies"]["margin"][3]["leaving"].pop(), "4 shares that leave under margin, got 3"),
        (
            lambda found: found["policies"]["entropy"][0].update(energy_pj=None),
            "an energy at every point of deployment",
        ),
        (lambda found: found["policies"].update(luck=[]), "is broken"),
    ],
)
def test_a_damaged_entry_is_refused(run, found, damage, message):
    results = json.loads((run / "results.json").read_text())
    damage(results["deployment"])
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=message):
        write_report(run)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(quick("digits-twsd", epochs=6, out=tmp_path_factory.mktemp("trained") / "run"))


def test_evaluation_writes_the_same_figures_twice_and_those_of_the_saved_logits(trained, read_page):
    before = (trained / "results.json").read_bytes()
    evaluate(trained)
    assert (trained / "results.json").read_bytes() == before
    found, saved = json.loads(before)["deployment"], load_file(trained / "logits.safetensors")
    for policy, points in found["policies"].items():
        for point in points:
            _, accuracy, mean_exit, leaving = replay(
                saved["logits"].numpy(), saved["targets"].numpy(), policy, point["threshold"]
            )
            assert (point["accuracy"], point["mean_exit"]) == pytest.approx((accuracy, mean_exit), abs=1e-12)
            assert point["leaving"] == pytest.approx(leaving, abs=1e-12)
    assert "deployment" in read_page(trained / "report.html").sections


def test_the_energy_is_that_of_32_samples_from_all_over_the_test_set(trained):
    test = load_dataset("digits").test
    N = len(test)
    chosen = torch.tensor([round(i * (N - 1) / 31) for i in range(32)])
    model = load(trained)
    estimate = energy(count_operations(model, [test.inputs(chosen).float() / 255], timesteps=3))
    found = json.loads((trained / "results.json").read_text())["deployment"]
    assert found["energy"]["samples"] == 32
    assert found["energy"]["total_pj"] == pytest.approx(estimate.total_pj, rel=1e-9)
    assert found["energy"]["synaptic_pj"] == pytest.approx(estimate.synaptic_pj, rel=1e-9)
    points = found["policies"]["margin"]
    point = points[len(points) // 2]
    stay = [sum(point["leaving"][t:]) for t in range(3)]
    assert point["energy_pj"] == pytest.approx(sum(a * e for a, e in zip(stay, estimate.total_pj, strict=True)))


def test_the_classifier_does_what_a_point_says(trained):
    test = load_dataset("digits").test
    points = json.loads((trained / "results.json").read_text())["deployment"]["policies"]["confidence"]
    point = points[len(points) // 2]
    out = AnytimeClassifier(load(trained), "confidence", point["threshold"], 3)(
        test.inputs(torch.arange(len(test))).float() / 255
    )
    # a score next to the threshold may fall to the other side in smaller batches
    one = 1.5 / len(test)
    assert float((out.predictions == test.targets).double().mean()) == pytest.approx(point["accuracy"], abs=one)
    assert float(out.exit_times.double().mean()) == pytest.approx(point["mean_exit"], abs=2 * one)


@pytest.mark.parametrize(("name", "timesteps"), [("digits-twce", 1), ("digits-ann", 3)])
def test_one_timestep_or_relu_has_no_such_entry(name, timesteps, tmp_path, read_page):
    run = train(quick(name, timesteps=timesteps, out=tmp_path / "run"))
    assert "deployment" not in json.loads((run / "results.json").read_text())
    assert "deployment" not in read_page(run / "report.html").sections


def test_an_entry_of_one_timestep_makes_no_section(make_run, read_page):
    folder = make_run(T=1, without=["beyond"])
    add_deployment(folder, {**ENERGY, "total_pj": [5000.0]})
    assert "deployment" not in read_page(write_report(folder)).sections


def events(network, batch_size):
    """The energy entry of a network on 40 recordings of 3 frames."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 2, (40, 3, 2, 4, 4), generator=generator).float()
    samples = TensorSamples(frames, torch.arange(40) % 2)
    dataset = Dataset("events", samples, samples, ("a", "b"), (0.0, 0.0), (1.0, 1.0), "events", 2, (4, 4))
    return energy_per_timestep(temporal(network), dataset, 3, batch_size), frames


def test_the_energy_of_events_is_counted_in_batches_of_any_size():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    found, frames = events(network, 250)
    chosen = frames[[round(i * 39 / 31) for i in range(32)]]
    # binary frames: each active input meets 2 weights at 0.9 pJ
    expected = [0.9 * 2 * float(chosen[:, t].sum()) / 32 for t in range(3)]
    assert found["synaptic_pj"] == pytest.approx(expected, rel=1e-9)
    assert events(network, 5)[0] == found


def test_a_network_that_cannot_be_counted_has_no_energy():
    class Odd(nn.Module):
        def forward(self, x):
            raise UserError("no such input")

    assert events(Odd(), 250)[0] is None
