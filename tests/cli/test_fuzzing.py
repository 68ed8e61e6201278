"""Random configurations, command lines and files: refused in a line, or taken for what they say; never anything else."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from quick_runs import quick

from spikedistill import train
from spikedistill.cli import main
from spikedistill.comparisons.speeds import relative_speeds
from spikedistill.config import Config
from spikedistill.errors import UserError
from spikedistill.evaluation.comparison.records import Records
from spikedistill.evaluation.results import read_results
from spikedistill.files import sha256
from spikedistill.manifest import Manifest
from spikedistill.models import load_model
from spikedistill.recipes import recipe
from spikedistill.report.run.reading import read_run
from spikedistill.run_folder import RunFolder
from spikedistill.training.checkpoints import _MARK, read_checkpoint

fuzz = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WORDS = st.sampled_from(
    ["", "auto", "digits", "sce", "s2w", "rate", "half", "relu", "true", "nan", "-", "--", "a b", "..", "/"]
)
NUMBERS = st.sampled_from([0, 1, 2, -1, 3.5, 0.5, 10**6, 2**63, 10**30, 1e-300, 1e300, math.inf, -math.inf, math.nan])
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def flat(values: dict[str, Any], place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The places of all settings, sections included."""
    inner = [flat(value, (*place, name)) if isinstance(value, dict) else [] for name, value in values.items()]
    return [*((*place, name) for name in values), *(found for part in inner for found in part)]


WHOLE = recipe("digits-twsd").model_dump(mode="json")
PLACES = flat(WHOLE)
FLAGS = ["--" + ".".join(place).replace("_", "-") for place in PLACES if place != ("objective", "options")]


class NothingTrained(UserError):
    """A configuration went as far as training."""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder to stand in, where what would train is planned and ends there."""
    from spikedistill.training.plan import make_plan

    def only_planned(config: Config) -> None:
        # wide networks take minutes to be made
        if config.model.width <= 1 and config.data.name == "digits":
            make_plan(config)
        raise NothingTrained("nothing is trained here")

    def not_compared(configs: list[Config], *_, **options: Any) -> None:
        raise NothingTrained("nothing is compared here")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPIKEDISTILL_DATA", raising=False)
    monkeypatch.setattr("spikedistill.training.train", only_planned)
    monkeypatch.setattr("spikedistill.comparisons.compare", not_compared)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != ".lock")


def check_refused(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command does what it can do without training, or says in short why not; it writes nothing."""
    before = names(folder)
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err
    assert code in (0, 2)
    assert code == 0 or 0 < len(said.splitlines()) < 20
    assert "Traceback" not in said
    assert names(folder) == before


@fuzz
@given(
    changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES), max_size=3), drop=st.none() | st.sampled_from(PLACES)
)
def test_a_configuration_with_other_values(place, capsys, changes, drop):
    values = json.loads(json.dumps(WHOLE))
    for where, value in [*changes, *([] if drop is None else [(drop, "__gone__")])]:
        section = values
        for name in where[:-1]:
            section = section.get(name) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[where[-1]] = value
            if value == "__gone__":
                del section[where[-1]]
    text = yaml.safe_dump(values, allow_unicode=True)
    try:
        config = Config.from_yaml(text, "x.yaml")
        assert Config.from_yaml(config.to_yaml()) == config
    except UserError as error:
        message = str(error)
        assert message.startswith("x.yaml ")
        assert "\n" not in message
    file = place / "x.yaml"
    file.write_text(text)
    check_refused(["train", "x.yaml"], place, capsys)


@fuzz
@given(cut=st.integers(0, 2000), inserted=st.text(max_size=10), length=st.integers(0, 30))
def test_a_configuration_with_other_text(place, capsys, cut, inserted, length):
    text = yaml.safe_dump(WHOLE)
    file = place / "x.yaml"
    file.write_text(text[:cut] + inserted + text[cut + length :])
    check_refused(["train", "x.yaml"], place, capsys)


ARGUMENTS = st.sampled_from(FLAGS) | WORDS | NUMBERS.map(str) | st.text(max_size=8) | st.sampled_from(
    ["--verify", "--seeds", "--recipes", "--jobs", "--out", "--tune", "--equal-time", "--batches", "digits-twsd"]
)  # fmt: skip


@fuzz
@given(
    flags=st.lists(st.tuples(st.sampled_from(FLAGS), WORDS | NUMBERS.map(str) | st.text(max_size=8)), max_size=3),
    name=st.sampled_from(["digits-twsd", "digits-rate", "digits-ann", "digits-esd"]),
)
def test_flags_with_any_value(place, capsys, flags, name):
    arguments = [part for flag in flags for part in flag]
    assume("--trainer.precision" not in arguments)  # auto would measure
    check_refused(["train", name, *arguments], place, capsys)


@fuzz
@given(
    command=st.sampled_from(["evaluate", "compare", "gradients", "report", "list", "data", "train"]),
    arguments=st.lists(ARGUMENTS, max_size=6),
)
def test_any_command_line(place, capsys, command, arguments):
    check_refused([command, *arguments], place, capsys)


@fuzz
@example(arguments=["--recipes"], first="1", second="--seed")
@given(arguments=st.lists(ARGUMENTS, max_size=4), first=WORDS | NUMBERS.map(str), second=ARGUMENTS)
def test_any_comparison(place, capsys, arguments, first, second):
    recipes = [f"digits-sce,epochs={first}", f"digits-twce,{second.removeprefix('--')}={first}"]
    check_refused(["compare", "--recipes", *recipes, "--out", "runs", *arguments], place, capsys)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with every file that a run can have, and no manifest: its readers have to check by themselves."""
    folder = train(quick("digits-twsd", out=tmp_path_factory.mktemp("trained") / "run"))
    assert main(["gradients", str(folder), "--timesteps", "2", "--batches", "1", "--batch-size", "20"]) == 0
    Records(folder.parent).keep([folder])
    shutil.move(folder.parent / "records.jsonl", folder)
    shutil.move(folder / "checkpoints" / "last.ckpt", folder)
    shutil.move(folder / "manifest.json", folder.parent)
    (folder / "speeds.csv").write_text("method,images_per_s,against_first,faster,slower\ndigits-sce,90.0,1.0,0,0\n")
    return folder


def run_of(read: Callable[[RunFolder], object]) -> Callable[[Path], object]:
    return lambda path: read(RunFolder(path.parent))


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "the configuration": ("config.yaml", run_of(RunFolder.config)),
    "the results": ("results.json", run_of(read_results)),
    "the costs": ("cost.json", run_of(RunFolder.read_cost)),
    "the metrics": ("metrics.csv", lambda path: read_run(path.parent)),
    "the gradients": ("gradients.csv", lambda path: read_run(path.parent)),
    "the results, for a report": ("results.json", lambda path: read_run(path.parent)),
    "the logits": ("logits.safetensors", lambda path: read_run(path.parent)),
    "the samples": ("samples.safetensors", lambda path: read_run(path.parent)),
    "the network": ("model.safetensors", load_model),
    "a checkpoint": ("last.ckpt", read_checkpoint),
    "records": ("records.jsonl", lambda path: Records(path.parent).runs()),
    "speeds": ("speeds.csv", lambda path: relative_speeds([recipe("digits-sce")], path)),
    "a manifest": ("manifest.json", lambda path: Manifest.read(path.parent, "run")),
}  # fmt: skip


def check_reads(path: Path, content: bytes, read: Callable[[Path], object]) -> None:
    """The reader returns, or names the file in a line; it changes nothing."""
    path.write_bytes(content)
    before = names(path.parent)
    try:
        read(path)
    except (UserError, OSError) as error:
        message = str(error)
        assert path.name in message
        assert "\n" not in message
        assert len(message) < 1000
    assert names(path.parent) == before
    assert path.read_bytes() == content


@pytest.fixture(scope="module")
def reading(trained, tmp_path_factory) -> Path:
    return shutil.copytree(trained, tmp_path_factory.mktemp("reading") / "run")


BYTES = st.binary(max_size=60) | st.sampled_from(
    [b"{}", b"[]", b"null", b"[" * 4000, b'{"a":' * 4000, b"NaN", b"1e999", b"\xff\xfe", b"\0" * 8, b'"', b"\n", b",", b"9" * 5000]
)  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@settings(parent=fuzz, max_examples=40)
@given(share=st.floats(0, 1), inserted=BYTES, left_out=st.integers(0, 40) | st.just(10**9))
def test_any_bytes_in_the_place_of_a_file(reading, trained, name, share, inserted, left_out):
    file, read = READERS[name]
    path = reading / file
    source = trained.parent / file if name == "a manifest" else trained / file
    whole = source.read_bytes()
    cut = round(share * len(whole))
    try:
        check_reads(path, whole[:cut] + inserted + whole[cut + left_out :], read)
    finally:
        if name == "a manifest":
            path.unlink()
        else:
            path.write_bytes(whole)


def sealed(content: dict[str, Any]) -> bytes:
    digest = sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    return json.dumps({**content, "sha256": digest}).encode()


@fuzz
@given(
    change=st.dictionaries(st.sampled_from(["kind", "files", "schema_version", "made_with", "x"]), VALUES, max_size=2)
)
def test_a_manifest_with_a_checksum_of_any_values(tmp_path, trained, change):
    whole = json.loads((trained.parent / "manifest.json").read_text())
    del whole["sha256"]
    check_reads(tmp_path / "manifest.json", sealed(whole | change), lambda path: Manifest.read(path.parent, "run"))


@fuzz
@given(value=VALUES, data=st.data())
def test_results_with_any_values(reading, trained, value, data):
    whole = (trained / "results.json").read_bytes()
    path, results = reading / "results.json", json.loads(whole)
    places = {".".join(where): where for where in flat(results)}
    *sections, name = places[data.draw(st.sampled_from(sorted(places)))]
    section = results
    for step in sections:
        section = section[step]
    section[name] = value
    try:
        for read in (run_of(read_results), lambda path: read_run(path.parent)):
            check_reads(path, json.dumps(results).encode(), read)
    finally:
        path.write_bytes(whole)


@fuzz
@given(share=st.floats(0, 1), inserted=st.binary(max_size=8), left_out=st.integers(0, 8))
def test_a_checkpoint_of_any_bytes_with_a_checksum(tmp_path, trained, share, inserted, left_out):
    """The bytes are those that the checksum says, so that PyTorch reads them."""
    payload = (trained / "last.ckpt").read_bytes().rpartition(_MARK)[0]
    # what pickle says of the tensors is in the first kilobytes
    cut = round(share * 6000)
    payload = payload[:cut] + inserted + payload[cut + left_out :]
    check_reads(tmp_path / "last.ckpt", payload + _MARK + sha256(payload).encode() + b"\n", read_checkpoint)
