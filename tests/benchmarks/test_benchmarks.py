"""The harness: real processes at a tiny size, and figures worked by hand."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks.__main__ import main
from benchmarks.contenders import SUITES
from benchmarks.floors import convolutions
from benchmarks.memory import peak_bytes
from benchmarks.results import Results, machine
from benchmarks.run import summary
from benchmarks.table import rows_of, to_markdown
from benchmarks.timing import seconds
from benchmarks.workloads import LeftOut, NetworkWorkload, NeuronWorkload, Step
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

ROOT = Path(__file__).parents[2]
MIB = 2**20
TINY = ["--width", "0.1", "--batch", "2", "--image-size", "8", "--threads", "1", "--no-keep-memory"]
ASKED = ["convolutions", "rate-m2"]
WORK = NetworkWorkload(width=0.1, batch=2, image_size=8, threads=1)


def step(out, *options):
    return [
        "step",
        *TINY,
        "--timesteps",
        "1",
        "2",
        "--rounds",
        "2",
        "--contenders",
        *ASKED,
        "--out",
        str(out),
        *options,
    ]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Raw figures of a real call."""
    out = tmp_path_factory.mktemp("bench") / "step.jsonl"
    command = [sys.executable, "-m", "benchmarks", *step(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.count("rate-m2 is left out: 2 segments need as many timesteps, T is 1") == 1
    return out


def written(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Results(path)


def session(**values):
    return {
        "record": "session",
        "suite": "step",
        "workload": {},
        "machine": {},
        "versions": {},
        "dirty": False,
        "commit": "c",
        "command": "",
        "started": "",
    } | values


def timed(T, **seconds):
    return {"record": "round", "timesteps": T, "seconds": seconds}


def weighed(T, name, mib):
    return {
        "record": "fresh",
        "timesteps": T,
        "contender": name,
        "peak_bytes": mib * MIB,
        "first_step_s": 1.0,
        "first_step_warm_s": None,
    }


def test_each_line_says_what_was_measured_with_which_code_and_where(measured):
    lines = [json.loads(line) for line in measured.read_text().splitlines()]
    first = lines[0]
    assert first["record"] == "session"
    assert first["suite"] == "step"
    assert first["workload"]["width"] == 0.1
    assert first["machine"] == machine("cpu")
    assert first["machine"]["torch"] == first["versions"]["torch"] == torch.__version__
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert first["commit"] == head.stdout.strip()
    assert first["command"].startswith("python -m benchmarks step --width 0.1")
    assert [line["record"] for line in lines].count("round") == 4
    fresh = {(line["contender"], line["timesteps"]) for line in lines if line["record"] == "fresh"}
    assert fresh == {("ann", 1), ("ann", 2), ("rate-m2", 2)}


def test_every_round_has_the_reference_and_begins_with_another_contender(measured):
    results = Results(measured)
    assert [sorted(seconds) for seconds in results.rounds[1]] == [["ann", "convolutions"]] * 2
    assert [list(seconds) for seconds in results.rounds[2]] == [
        ["ann", "convolutions", "rate-m2"],
        ["convolutions", "rate-m2", "ann"],
    ]
    assert all(value > 0 for rounds in results.rounds.values() for seconds in rounds for value in seconds.values())


def test_a_second_call_measures_what_is_missing_and_no_more(measured, tmp_path):
    before = measured.read_text()
    assert main(step(measured)) == 0
    assert measured.read_text() == before
    # the last round at T=2 lacks one of them, and the memory of another went missing
    lines = [json.loads(line) for line in before.splitlines()]
    del lines[-1]["seconds"]["rate-m2"]
    stopped = tmp_path / "stopped.jsonl"
    written(stopped, [line for line in lines if (line.get("contender"), line.get("timesteps")) != ("ann", 2)])
    assert main(step(stopped)) == 0
    results = Results(stopped)
    assert len(results.sessions) == 2
    assert [len(results.rounds[T]) for T in (1, 2)] == [2, 3]
    assert results.rounds[2][-1].keys() == {"ann", "rate-m2"}, "ratios are taken within a round"
    assert results.fresh.keys() == Results(measured).fresh.keys()


def test_figures_of_another_workload_or_machine_do_not_go_into_one_file(measured, tmp_path, capsys):
    before = measured.read_text()
    assert main(["step", *TINY, "--batch", "3", "--timesteps", "1", "--out", str(measured)]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert main(["inference", *TINY, "--timesteps", "1", "--out", str(measured)]) == 2
    assert measured.read_text() == before


def test_the_table_has_every_contender_and_the_ann_is_once_itself(measured, capsys):
    assert main(["table", str(measured)]) == 0
    shown = capsys.readouterr().out
    rows = list(csv.DictReader(measured.with_suffix(".csv").read_text().splitlines()))
    assert [(row["timesteps"], row["contender"]) for row in rows] == [
        ("1", "ann"),
        ("1", "convolutions"),
        ("2", "ann"),
        ("2", "convolutions"),
        ("2", "rate-m2"),
    ]
    for row in rows:
        assert row["contender"] in shown
        assert row["rounds"] == "2"
        assert float(row["ms"]) > 0
        if row["contender"] == "ann":
            assert row["per_ann"] == row["per_ann_q1"] == row["per_ann_q3"] == "1.0"
        # what the floor works on is kept ready outside of the step
        assert (row["peak_mib"] == "") == (row["contender"] == "convolutions")
    assert "commit" in shown


@pytest.mark.parametrize(("at_least", "most_runs"), [(0.0, 1), (0.035, 4)])
def test_a_short_step_is_repeated_and_its_mean_taken(at_least, most_runs):
    weight = torch.zeros(1, requires_grad=True)
    gradients_before = []

    def run():
        gradients_before.append(weight.grad)
        weight.sum().backward()
        time.sleep(0.01)

    taken = seconds(Step(run, [weight]), "cpu", at_least=at_least)
    runs = len(gradients_before)
    assert runs == 1 if at_least == 0 else 1 < runs <= most_runs
    assert taken * runs >= at_least
    assert taken >= 0.01
    assert gradients_before == [None] * runs


def test_ratios_are_taken_within_rounds_before_the_median(tmp_path):
    results = written(
        tmp_path / "r.jsonl",
        [
            session(),
            # the machine is twice as slow in the second round, four times in the third
            timed(4, ann=1.0, bptt=4.0),
            timed(4, ann=2.0, bptt=8.2),
            timed(4, bptt=16.0, ann=4.0),
            timed(4, ann=1.0, bptt=5.0),
            timed(4, ann=1.0),  # a later round for another contender
            weighed(4, "bptt", 481),
            weighed(2, "bptt", 276),
        ],
    )
    without_time, ann, bptt = rows_of(results)
    assert (without_time["timesteps"], without_time["contender"], without_time["ms"]) == (2, "bptt", None)
    # ratios 4, 4.1, 4, 5: median 4.05, quartiles 4 and 4.1 + (5 - 4.1) / 4; the medians 6.6 s and 1.5 s would give 4.4
    assert (bptt["per_ann"], bptt["per_ann_q1"], bptt["per_ann_q3"]) == (4.05, 4.0, 4.325)
    assert bptt["ms"] == 6600
    assert bptt["peak_mib"] == 481
    assert (ann["rounds"], bptt["rounds"]) == (5, 4)
    (_, ann, bptt) = rows_of(results, to="bptt")
    assert bptt["per_bptt"] == 1
    assert ann["per_bptt"] == pytest.approx((0.25 + 1 / 4.1) / 2, abs=5e-4)
    with pytest.raises(ValueError, match=r"no figures of 'norse': choose of ann, bptt"):
        rows_of(results, to="norse")


def test_markdown_has_contenders_down_and_timesteps_across(tmp_path):
    results = written(
        tmp_path / "r.jsonl",
        [session(), timed(1, ann=0.2, bptt=0.3), timed(4, ann=0.2, bptt=0.8), weighed(4, "bptt", 481)],
    )
    milliseconds, ratios, memory = to_markdown(rows_of(results)).split("\n\n")
    assert milliseconds.splitlines() == [
        "| ms | T=1 | T=4 |",
        "|---|---|---|",
        "| ann | 200.0 | 200.0 |",
        "| bptt | 300.0 | 800.0 |",
    ]
    assert ratios.splitlines()[3] == "| bptt | 1.50 [1.50, 1.50] | 4.00 [4.00, 4.00] |"
    assert memory.splitlines()[2:] == ["| bptt |  | 481 |"]


def test_the_peak_is_of_what_the_step_allocates_at_once():
    def run():
        kept = [torch.empty(MIB, dtype=torch.uint8) for _ in range(3)]  # 3 MiB at once
        del kept[0]
        kept.append(torch.empty(MIB // 2, dtype=torch.uint8))  # 2.5 MiB

    assert peak_bytes(Step(run), "cpu") == 3 * MIB


def test_memory_held_before_a_step_counts_for_nothing_and_gradients_do():
    weight = torch.ones(MIB // 4, requires_grad=True)  # 1 MiB of float32
    gradient = torch.ones_like(weight)
    held = [torch.empty(8 * MIB, dtype=torch.uint8)]

    def run():
        product = weight * 2  # 1 MiB
        product.backward(gradient)  # 1 MiB for the gradient of weight
        held.clear()  # of before, and after the peak
        del product

    step = Step(run, [weight])
    for _ in range(2):
        assert peak_bytes(step, "cpu") == pytest.approx(2 * MIB, abs=1024)
        step.forget()
        assert weight.grad is None


class Operations(TorchDispatchMode):
    """Multiplications and additions of convolutions and matrix products, counted where torch dispatches them."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


@pytest.mark.parametrize("T", [1, 3])
def test_the_floor_is_the_work_of_the_convolutions_and_linear_layers_of_t_ann_steps(T):
    counts = {}
    for name, work in {"ann": SUITES["step"].contenders["ann"](WORK, T), "floor": convolutions(WORK, T)}.items():
        with Operations() as operations:
            work.run()
        counts[name] = operations.total
    assert counts["floor"] == T * counts["ann"] > 0


CONTENDERS = [(suite, name) for suite in SUITES for name in SUITES[suite].contenders]


# of other libraries, where they are installed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("precision", "channels_last"), [("float32", False), ("bf16", True)])
@pytest.mark.parametrize(("suite", "name"), CONTENDERS, ids=lambda value: value)
def test_every_contender_can_be_run_again_and_leaves_no_gradient(suite, name, precision, channels_last):
    options = {"precision": precision, "threads": 1}
    work = {
        "neurons": NeuronWorkload(batch=2, channels=3, size=4, **options),
    }.get(suite, NetworkWorkload(width=0.1, batch=2, image_size=8, channels_last=channels_last, **options))
    try:
        contender = SUITES[suite].contenders[name](work, 2)
    except (LeftOut, ImportError) as reason:
        pytest.skip(str(reason))
    with torch.compiler.set_stance("force_eager"):
        contender.run()
        if suite == "step" and not contender.only_time:
            gradients = [parameter.grad for parameter in contender.parameters]
            assert len(gradients) > 60
            assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        contender.forget()
        assert all(parameter.grad is None for parameter in contender.parameters)
        contender.run()


def test_the_plot_of_the_same_figures_is_the_same_file(measured, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    files = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for file in files:
        assert main(["plot", str(measured), "--out", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    for name in ("ann", *ASKED, "peak allocator memory, MiB"):
        assert name in files[0].read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["stepp"],
            "no command is called 'stepp': choose one of step, objectives",
        ),
        (["table", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["step", "--contenders", "bpt", "--no-keep-memory"], "no contender is called bpt: choose of ann"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


PAGE = (ROOT / "docs" / "performance.md").read_text()
OTHERS = "".join((ROOT / "docs" / name).read_text() for name in ("deploy/index.md", "tour/robustness.md"))
NOTHING_MEASURED = {
    **summary([dict.fromkeys(("seconds", "steps", "step", "augmentation"), 1.0)], 1),
    "us_per_image": {},
}


@pytest.mark.parametrize("command", re.findall(r"^\S+ -m benchmarks (.*)$", PAGE + OTHERS, re.MULTILINE))
def test_a_documented_command_is_understood(command, tmp_path, monkeypatch):
    words = command.split()
    if words[0] == "plot":
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr("benchmarks.__main__.measure", lambda name, *_, **plan: asked.append((name, plan)))
    monkeypatch.setattr("benchmarks.exits.measure_exits", lambda *_: {"exits": [], "anns": [], "seconds": []})
    monkeypatch.setattr("benchmarks.run.measure_run", lambda options, _: options.config(tmp_path) and NOTHING_MEASURED)
    for module, name in (
        ("over_density", "measure_layers"),
        ("over_density", "draw"),
        ("sparsity", "measure_sparsity"),
    ):
        monkeypatch.setattr(f"benchmarks.{module}.{name}", lambda *_: None)
    for module, name in (("loading", "measure_loading"), ("near", "measure_near"), ("sparsity", "table_of")):
        monkeypatch.setattr(f"benchmarks.{module}.{name}", lambda *_: [])
    monkeypatch.setattr("benchmarks.near.to_markdown", lambda _: "")
    monkeypatch.setattr("benchmarks.exports.measure_exports", lambda *_: [])
    monkeypatch.setattr("benchmarks.runtimes.measure_runtimes", lambda *_: {"rows": []})
    monkeypatch.setattr("benchmarks.robust.budget", lambda *_: "")
    monkeypatch.setattr("benchmarks.robust.study", lambda *_: {})
    monkeypatch.setattr("benchmarks.robust.to_markdown", lambda _: "")
    monkeypatch.setattr("benchmarks.sparsity.draw", lambda *_: None)
    monkeypatch.setattr("benchmarks.trained_weights.write_profile", lambda *_: {"mean": 0.0, "rates": {}})
    (tmp_path / "runs" / "bench").mkdir(parents=True)
    step = [session(), timed(1, ann=0.2, convolutions=0.1), weighed(1, "ann", 100)]
    for name in ("step", "step_over_T"):
        written(tmp_path / "runs" / "bench" / f"{name}.jsonl", step)
    written(tmp_path / "runs" / "bench" / "objectives.jsonl", [session(), timed(4, sce=0.2), weighed(4, "sce", 100)])
    assert main(words) == 0
    if words[0] in SUITES:
        ((name, plan),) = asked
        assert name == words[0]
        assert set(plan["contenders"]) <= set(SUITES[name].contenders)


def test_the_page_says_who_takes_part():
    table = PAGE.split("## Who takes part")[1].split("All contenders run the same network")[0]
    described = [
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", row)
    ]
    assert described == list(SUITES["step"].contenders)


def test_the_checks_of_a_step_are_timed_beside_it(capsys):
    assert (
        main(["checks", "--model", "convnet", "--batch", "2", "--timesteps", "1", "--rounds", "2", "--threads", "1"])
        == 0
    )
    assert re.search(r"percent of a step, .* over 2 rounds", capsys.readouterr().out)
