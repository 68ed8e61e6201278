"""A page, and a table on the terminal, of logits of any library."""

import json
import re
from html import unescape

import numpy as np
import pytest
import torch
from conftest import Page
from safetensors.torch import save_file

from spikedistill.cli import main
from spikedistill.evaluation import evaluate, exit_curve
from spikedistill.report import write_report

T, N, C = 3, 60, 4
SECTIONS = ["accuracy", "calibration", "confusion", "deployment"]


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    labels = torch.randint(C, (N,))
    return torch.randn(T, N, C) + torch.nn.functional.one_hot(labels, C), labels


def page_of(path):
    return Page(path.read_text())


def test_the_page_holds_what_the_logits_hold_and_nothing_of_training(case, tmp_path):
    logits, labels = case
    names = ["cat", "dog", "<b>", "& so on"]
    out = write_report(logits, labels, out=tmp_path / "deep" / "page.html", title="Their network", classes=names)
    page, found = page_of(out), evaluate(logits, labels)
    assert page.sections == SECTIONS
    record = page.tables["record"]
    assert [row["accuracy"] for row in record.values()] == [entry["accuracy"] for entry in found["last"]["ensemble"]]
    assert [row["single_accuracy"] for row in record.values()] == [e["accuracy"] for e in found["last"]["single"]]
    assert [row["ece"] for row in page.tables["calibration"].values()] == [e["ece"] for e in found["last"]["ensemble"]]
    predicted = logits.double().mean(0).argmax(-1)
    assert page.tables["confusion"]["dog"]["2"] == ((labels == 1) & (predicted == 2)).sum()
    assert page.numbers.keys() == {"accuracy_1", f"accuracy_{T}"}
    text = page.text
    assert "Their network" in text
    assert f"Logits: {N} samples, {T} timesteps, {C} classes." in text
    assert "95 % interval" in text, "uncertainty is shown"
    assert "logits do not tell what the network computed" in text
    for word in ("epoch", "trained", "test set of", "Command to repeat", "objective"):
        assert word not in text, word
    curve = exit_curve(logits, labels, "confidence")
    assert f"{float(curve.mean_exit[-1]):.3f}" in text
    assert out.stat().st_size < 2 * 2**20


def test_the_pages_own_lines_of_python_give_the_chosen_point(case, tmp_path, capsys):
    logits, labels = case
    html = write_report(logits, labels, out=tmp_path / "page.html").read_text()
    code = re.search(r'<code id="chooser-code">(.*?)</code>', html, re.DOTALL)[1]
    point = evaluate(logits, labels)["deployment"]["policies"]["margin"][3]
    for part, value in (("policy", "margin"), ("threshold", repr(point["threshold"]))):
        code = code.replace(f'<span data-part="{part}"></span>', value)
    exec(unescape(code), {"logits": logits, "labels": labels})
    printed = [float(number) for number in re.findall(r"[\d.]+", capsys.readouterr().out)]
    assert printed == pytest.approx([point["accuracy"], point["mean_exit"]])


def test_the_same_from_files_of_numpy_and_safetensors_with_names_and_temperatures(case, tmp_path, capsys, monkeypatch):
    logits, labels = case
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"class {c}" for c in range(C)]
    held = {"holdout_logits": logits[:, :20], "holdout_labels": labels[:20]}
    arrays = {name: tensor.numpy() for name, tensor in held.items()}
    np.savez(tmp_path / "a.npz", logits=logits.numpy(), labels=labels.numpy(), classes=np.array(names), **arrays)
    tensors = {"logits": logits, "targets": labels.int(), **{name: t.contiguous() for name, t in held.items()}}
    save_file(tensors, tmp_path / "b.safetensors", {"classes": json.dumps(names)})
    pages = []
    for command in (["a.npz", "--out", str(tmp_path / "page.html")], ["b.safetensors", "--title", "a"]):
        assert main(["report", str(tmp_path / command[0]), *command[1:]]) == 0
        said = capsys.readouterr().out
        path = tmp_path / ("page.html" if "--out" in command else "b.html")
        assert f"report: {path}" in said.replace("\n", "")
        assert max(map(len, said.splitlines()[:-1])) <= 80
        accuracy = evaluate(logits, labels)["last"]["ensemble"][-1]["accuracy"]
        assert re.search(rf"{T} .* {100 * accuracy:.2f} ", said)
        pages.append(page_of(path))
    assert pages[0].tables == pages[1].tables
    expected = evaluate(logits, labels, heldout=(held["holdout_logits"], held["holdout_labels"]))["last"]["calibrated"]
    assert [row["temperature"] for row in pages[0].tables["calibration"].values()] == [
        e["temperature"] for e in expected
    ]
    assert "class 3" in pages[0].tables["confusion"]


def test_what_evaluate_wrote_of_a_network_is_reported_with_its_energy_and_rates(tmp_path):
    from spikedistill import create_model

    model = create_model("convnet", num_classes=4, in_channels=1, image_size=8, width=0.25)
    found = evaluate(model, [(torch.rand(20, 1, 8, 8), torch.arange(20) % 4)], timesteps=2, out=tmp_path)
    page = page_of(write_report(tmp_path / "logits.safetensors"))
    assert page.sections == ["accuracy", "calibration", "firing", "confusion", "deployment"]
    assert len(page.tables["firing"]) == len(found["last"]["firing_rates"])
    assert "deployment_energy" in page.tables


def test_one_timestep_and_many_classes_have_a_page_too(tmp_path):
    labels = torch.arange(30) % 25
    out = write_report(np.random.default_rng(0).normal(size=(1, 30, 25)), labels.numpy(), out=tmp_path / "p.html")
    assert page_of(out).sections == ["accuracy", "calibration", "confusion"]


def wrong(logits=None, labels=None, **more):
    arrays = {"logits": np.zeros((2, 3, 4), np.float32) if logits is None else logits, "labels": labels}
    return {name: value for name, value in (arrays | more).items() if value is not None}


Y = np.array([0, 1, 2])
BROKEN = {
    "no labels": (wrong(), "expected the labels too, as labels or targets"),
    "labels twice": (wrong(labels=Y, targets=Y[::-1].copy()), "holds labels and targets, expected one of the two"),
    "labels held out alone": (wrong(labels=Y, holdout_labels=Y), "holds holdout_labels without holdout_logits"),
    "no logits": ({"scores": Y}, r"expected the arrays logits \[T, N, C\] and labels \[N\]"),
    "one axis too few": (wrong(np.zeros((3, 4), np.float32), Y), r"expected floating-point logits \[T, N, C\]"),
    "labels of others": (wrong(labels=np.array([0, 1, 2, 3])), r"expected integer target \[3\]"),
    "time second": (
        wrong(np.zeros((3, 2, 4), np.float32), Y),
        r"time comes first, and logits.transpose\(0, 1\) puts it there",
    ),
    "float labels": (wrong(labels=Y + 0.5), r"expected integer labels \[N\], got torch.float64"),
    "integer logits": (wrong(np.zeros((2, 3, 4), int), Y), "expected floating-point logits"),
    "a label too large": (wrong(labels=Y + 2), "label 4 at place 2 of the batch is no class"),
    "NaN": (wrong(np.full((2, 3, 4), np.nan), Y), "expected finite logits, got 24 of 24"),
    "no sample": (wrong(np.zeros((2, 0, 4)), Y[:0]), "not empty"),
    "one class": (wrong(np.zeros((2, 3, 1)), 0 * Y), "one class has nothing to tell apart"),
    "two names": (
        wrong(labels=Y, classes=np.array(["a", "b"])),
        r"got 2 class names for logits \[2, 3, 4\], expected 4",
    ),
    "numbers for names": (wrong(labels=Y, classes=np.arange(4)), "expected one text for each class"),
    "objects": (wrong(labels=Y, classes=np.array([None, "a"], object)), "Python objects, which are not read"),
    "held-out of others": (
        wrong(labels=Y, holdout_logits=np.zeros((3, 3, 4)), holdout_labels=Y),
        "expected held-out logits of the same timesteps and classes",
    ),
    "held-out without labels": (
        wrong(labels=Y, holdout_logits=np.zeros((2, 3, 4))),
        "as holdout_labels or holdout_targets",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_files_that_are_wrong_are_refused_in_one_line_with_their_name(kind, tmp_path, capsys):
    arrays, message = BROKEN[kind]
    file = tmp_path / "wrong.npz"
    np.savez(file, **arrays)
    assert main(["report", str(file)]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert str(file) in said
    assert said.count("\n") == 1
    assert not file.with_suffix(".html").exists()


def test_damaged_files_and_wrong_words_are_refused(case, tmp_path, capsys):
    logits, labels = case
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    save_file({"logits": logits, "labels": labels}, tmp_path / "m.safetensors", {"energy": '{"costs": 3}'})
    save_file({"logits": logits, "labels": labels}, tmp_path / "n.safetensors", {"classes": "3"})
    estimate = json.dumps({"costs": "45nm", "samples": 3, "total_pj": [1.0]})
    save_file({"logits": logits, "labels": labels}, tmp_path / "o.safetensors", {"energy": estimate})
    (tmp_path / "words.npy").write_bytes(b"")
    words = {
        ("torn.npz",): "is no readable .npz file",
        ("torn.safetensors",): "is no readable .safetensors file",
        ("m.safetensors",): "the metadata is broken",
        ("n.safetensors",): "the metadata is broken",
        ("o.safetensors",): f"got energies of 1 timesteps for logits [{T}, {N}, {C}], expected {T}",
        ("none.npz",): "no file",
        (".", "--out", "x.html"): "--out and --title are for a file of logits",
        ("words.npy",): "ends with .npy, expected a file of logits, .npz or .safetensors",
        ("n.safetensors", "--out", str(tmp_path)): "",
    }
    for (file, *rest), message in words.items():
        assert main(["report", str(tmp_path / file), *rest]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    for call, message in (
        (lambda: write_report(logits, labels), "logits came without out, the path of the page"),
        (lambda: write_report(logits, out=tmp_path / "x.html"), "logits came without labels"),
        (lambda: write_report(tmp_path / "n.safetensors", labels), "labels, classes or heldout came with the file"),
        (lambda: write_report(tmp_path, labels), "labels, out, title, classes or heldout came for the run folder"),
        (lambda: write_report(logits, labels, out=tmp_path), "is a folder, expected the path of a page"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
