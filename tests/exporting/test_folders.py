"""Bundles, classifiers in one file, the Hub's mixin, pages, and exports that are killed or damaged."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from quick_runs import quick
from torch import nn

from spikedistill import LIF, UserError, export, load, temporal, train
from spikedistill.cli import main
from spikedistill.data import load_dataset
from spikedistill.evaluation import AnytimeClassifier
from spikedistill.evaluation.results import read_results
from spikedistill.exporting import Options
from spikedistill.exporting.hub import HubClassifier, from_hub, push_to_hub
from spikedistill.files import sha256
from spikedistill.models import read_model
from spikedistill.run_folder import RunFolder


def images(count: int = 60) -> torch.Tensor:
    return load_dataset("digits").test.inputs(torch.arange(count)) / 255


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "digits"
    export(run, "bundle", out, Options(threshold=0.8, licence="apache-2.0"))
    return out


def test_a_bundle_is_loaded_again_with_its_threshold(run: Path, bundle: Path):
    assert sorted(path.name for path in bundle.iterdir()) == [
        "README.md", "config.json", "config.yaml", "export.json", "model.safetensors", "results.json",
    ]  # fmt: skip
    listed = json.loads((bundle / "export.json").read_text())
    assert listed["sha256"] == {name: sha256((bundle / name).read_bytes()) for name in listed["sha256"]}
    assert torch.equal(load(bundle)(images(), 3), load(run)(images(), 3))
    classifier = AnytimeClassifier.load(bundle)
    assert (classifier.policy, classifier.threshold, classifier.max_timesteps) == ("confidence", 0.8, 3)
    expected = AnytimeClassifier(load(run), "confidence", 0.8, 3)(images())
    found = classifier(images())
    assert torch.equal(found.exit_times, expected.exit_times)
    assert torch.equal(found.logits, expected.logits)
    assert len(set(found.exit_times.tolist())) > 1, "exits of a batch are mixed"
    assert load(bundle).predict(images(3)).classes == load(run).predict(images(3)).classes


def test_the_card_says_what_is_known(run: Path, bundle: Path):
    text = (bundle / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    about = yaml.safe_load(head)
    assert about["license"] == "apache-2.0"
    assert about["library_name"] == "spikedistill"
    assert about["datasets"] == ["digits"]
    for k, score in enumerate(read_results(RunFolder(run)).last.ensemble, 1):
        assert f"| {k} | {100 * score.accuracy:.2f} | {score.nll:.3f} |" in body
    for words in (
        "## Energy",
        "An estimate, not a measurement",
        "## Limits",
        "## Licence",
        "digits-twce",
        "reaches 0.8",
    ):
        assert words in body
    settings = yaml.safe_load((bundle / "config.yaml").read_text())
    assert settings["out"] is None
    assert settings["data"]["root"] is None
    everything = b"".join(path.read_bytes() for path in bundle.iterdir())
    assert str(run).encode() not in everything, "no paths of this machine"


def test_an_export_replaces_its_own_and_nothing_else(run: Path, tmp_path: Path):
    out = tmp_path / "out"
    export(run, "bundle", out, Options(threshold=0.5))
    export(run, "bundle", out, Options(threshold=0.9))
    assert AnytimeClassifier.load(out).threshold == 0.9
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match="exists and no export wrote it"):
        export(run, "bundle", mine)
    assert (mine / "thesis.tex").read_text() == "years"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"], "no temporary folder stays"


def test_a_network_that_needs_code_is_refused(run: Path, tmp_path: Path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), LIF(), nn.Linear(32, 10))
    config = quick("digits-sce", out=tmp_path / "own", epochs=10)
    own = train(config.model_copy(update={"model": config.model.model_copy(update={"width": 1.0})}), model=net)
    with pytest.raises(UserError, match=r"export\(run, format, out"):
        export(own, "onnx", tmp_path / "own.onnx")
    with pytest.raises(UserError, match="made in Python, so that a bundle could not say how to build it"):
        export(own, "bundle", tmp_path / "bundle", model=net)
    assert not (tmp_path / "bundle").exists()
    assert export(own, "onnx", tmp_path / "own.onnx", model=net).verified.different == 0


def test_damaged_and_hostile_files_are_refused(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    raw = bytearray((damaged / "model.safetensors").read_bytes())
    raw[-5] ^= 1
    (damaged / "model.safetensors").write_bytes(raw)
    with pytest.raises(UserError, match="checksum does not fit"):
        load(damaged)
    hostile = tmp_path / "hostile"
    shutil.copytree(bundle, hostile)
    (hostile / "config.yaml").write_text("!!python/object/apply:os.system ['touch /tmp/owned']")
    (hostile / "conftest.py").write_text("raise SystemExit")
    (hostile / "config.json").write_text('{"classifier": "os.system"}')
    assert torch.equal(load(hostile)(images(2), 3), load(bundle)(images(2), 3)), "only the model file is read"
    assert HubClassifier.from_pretrained(hostile).classifier.threshold == 0.8
    file = read_model(hostile / "model.safetensors")
    from spikedistill.models import save_model

    model = load(bundle)
    for exit in (
        {"policy": "os.system", "threshold": 1, "max_timesteps": 3},
        {"policy": "confidence"},
        {"policy": "conformal"},
    ):
        save_model(
            model, file.network, hostile / "model.safetensors", classes=file.classes, input=file.input, exit=exit
        )
        with pytest.raises(UserError, match="policy"):
            AnytimeClassifier.load(hostile)


def test_a_classifier_is_saved_and_loaded(run: Path, tmp_path: Path):
    classifier = AnytimeClassifier(load(run), "margin", math.inf, 3)
    classifier.save(tmp_path / "all.safetensors")
    again = AnytimeClassifier.load(tmp_path / "all.safetensors")
    assert (again.policy, again.threshold, again.max_timesteps) == ("margin", math.inf, 3)
    targets = load_dataset("digits").test.targets[:60]
    classifier.calibrate([(images(), targets)], max_drop=5)
    classifier.save(tmp_path / "some.safetensors")
    again = AnytimeClassifier.load(tmp_path / "some.safetensors")
    assert again.threshold == classifier.threshold < 1
    for mine, other in zip(again(images()), classifier(images()), strict=True):
        assert torch.equal(mine, other)
    assert again.model.classes == tuple(map(str, range(10)))
    with pytest.raises(UserError, match="does not say when samples stop"):
        AnytimeClassifier.load(run)
    own = temporal(nn.Sequential(nn.Linear(4, 4), LIF(), nn.Linear(4, 2)))
    with pytest.raises(UserError, match="does not say how to build it again"):
        AnytimeClassifier(own, "margin", 0.5, 3).save(tmp_path / "own.safetensors")


def test_a_threshold_for_each_timestep_and_a_conformal_rule_are_saved_and_loaded(run: Path, tmp_path: Path):
    classifier = AnytimeClassifier(load(run), "gap", [0.5, math.inf, 2.0], 3)
    classifier.save(tmp_path / "each.safetensors")
    again = AnytimeClassifier.load(tmp_path / "each.safetensors")
    assert (again.policy, again.threshold, again.max_timesteps) == ("gap", (0.5, math.inf, 2.0), 3)
    targets = load_dataset("digits").test.targets[:60]
    rule = classifier.calibrate_conformal([(images(), targets)], coverage=0.8, stops=[1])
    classifier.save(tmp_path / "rule.safetensors")
    again = AnytimeClassifier.load(tmp_path / "rule.safetensors")
    assert (again.policy, again.max_timesteps) == (rule, 3)
    for mine, other in zip(again(images()), classifier(images()), strict=True):
        assert torch.equal(mine, other)


def test_the_hubs_own_mixin_saves_and_loads(run: Path, bundle: Path, tmp_path: Path):
    classifier = AnytimeClassifier(load(run), "confidence", 0.7, 3)
    HubClassifier(classifier).save_pretrained(tmp_path / "hub")
    again = HubClassifier.from_pretrained(tmp_path / "hub")
    assert torch.equal(again(images()).logits, classifier(images()).logits)
    assert from_hub(str(tmp_path / "hub")).threshold == 0.7
    assert from_hub(str(bundle)).threshold == 0.8
    with pytest.raises(UserError, match="is no bundle"):
        push_to_hub(tmp_path, "me/digits")


@pytest.mark.parametrize("format", ["onnx", "bundle"])
def test_an_export_that_is_killed_at_any_moment_leaves_nothing_that_looks_complete(
    run: Path, tmp_path: Path, format: str
):
    out = tmp_path / "out"
    program = Path(__file__).with_name("kill_exports.py")
    command = [sys.executable, str(program), str(run), format, str(out), "6"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    whole = told["whole"]
    assert whole
    assert all(left in ([], whole) for left in told["left"])
    assert [] in told["left"], "some were killed before the end"
    assert told["after"] == whole
    assert [path for path in tmp_path.iterdir() if path != out] == [], "what killed processes left is gone"


def test_a_page_needs_its_runtime_and_images(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["export", str(run), "--format", "web", "--out", str(tmp_path / "page"), "--runtime", str(tmp_path)]
    assert main(words) == 2
    assert "is not the package onnxruntime-web" in capsys.readouterr().err
    package = tmp_path / "package"
    (package / "dist").mkdir(parents=True)
    for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        (package / "dist" / name).write_bytes(b"a stand-in of " + name.encode())
    (package / "README.md").write_text("its licence")
    assert main([*words[:-1], str(package)]) == 0
    page = tmp_path / "page"
    assert {path.name for path in page.iterdir()} == {
        "index.html", "app.js", "model.js", "runtime.js", "ort.wasm.min.js", "onnxruntime-web.md", "export.json",
    }  # fmt: skip
    model = json.loads((page / "model.js").read_text().removeprefix("window.MODEL = ").removesuffix(";\n"))
    assert model["description"]["classes"] == [str(c) for c in range(10)]
    assert len(model["examples"]) == 12
    for name in ("index.html", "app.js"):
        assert "http" not in (page / name).read_text(), "the page asks for nothing from elsewhere"
