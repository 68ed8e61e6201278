"""A folder's manifest lists what is whole, and readers hold files against it."""

import contextlib
import json
import os

import pytest

from spikedistill.config import Config
from spikedistill.files import alone_in, clear_partial, parse_json, parse_yaml, sha256, write_atomically
from spikedistill.manifest import Manifest
from spikedistill.recipes import recipe
from spikedistill.run_folder import RunFolder


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.begin(recipe("digits-sce"))
    return folder


def test_a_run_that_begins_lists_its_configuration_with_size_and_checksum(run):
    content = run.config_file.read_bytes()
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["files"] == {"config.yaml": {"size": len(content), "sha256": sha256(content)}}
    assert manifest["kind"] == "run"
    assert manifest["made_with"].keys() == {"spikedistill", "augmentation", "slicing"}
    assert run.config() == recipe("digits-sce")


def test_a_file_is_taken_out_while_it_is_written_and_listed_again_when_all_are_whole(run):
    with run.rewriting(run.results, run.cost):
        write_atomically(run.cost, '{"images_per_s": 3.0}')
        assert run.manifest().files.keys() == {"config.yaml"}
    assert run.manifest().files.keys() == {"config.yaml", "cost.json"}, "what is not there is not listed"
    with contextlib.suppress(InterruptedError), run.rewriting(run.cost):
        raise InterruptedError
    assert run.manifest().files.keys() == {"config.yaml"}, "a process that is stopped in the middle leaves it out"


def test_results_of_an_evaluation_that_was_killed_are_not_read(run):
    with run.rewriting(run.results):
        write_atomically(run.results, "{}")
    with contextlib.suppress(InterruptedError), run.rewriting(run.results):
        write_atomically(run.results, '{"last": 1}')
        raise InterruptedError
    with pytest.raises(ValueError, match=r"results\.json is not whole: .* spikedistill evaluate .* writes it anew"):
        run.read(run.results)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content + b"\n",
        lambda content: b"",
        lambda content: content.replace(b"timesteps: 4", b"timesteps: 8"),
        lambda content: content.splitlines(keepends=True)[0],
    ],
    ids=["a byte less", "a byte more", "empty", "another value", "cut after the first line"],
)
def test_a_changed_file_is_named(run, change):
    run.config_file.write_bytes(change(run.config_file.read_bytes()))
    with pytest.raises(ValueError, match=r"config\.yaml is damaged: it is not the file that manifest\.json lists"):
        run.config()


def test_every_bit_of_the_manifest_counts(run):
    path = run.path / "manifest.json"
    whole, manifest = path.read_bytes(), run.manifest()
    found = []
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        # a space more or less is none; every value is checked
        with contextlib.suppress(ValueError):
            found.append(run.manifest())
    assert all(read == manifest for read in found)
    assert len(found) < 0.1 * len(whole)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "holds a list"),
        ("{", "it is not valid JSON"),
        ("[" * 100_000, "it is not valid JSON"),
        ('{"name": "a web page", "icons": []}', "no manifest of spikedistill"),
        ("", "it is not valid JSON"),
    ],
)
def test_another_manifest_json_is_none_of_ours(tmp_path, content, said):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        Manifest.read(tmp_path, "run")
    assert not RunFolder(tmp_path).is_run()


def test_a_manifest_of_a_newer_version_and_one_of_another_folder_are_refused(tmp_path):
    Manifest.new("run").model_copy(update={"schema_version": 2}).write(tmp_path)
    with pytest.raises(ValueError, match="schema 2, and this version of spikedistill reads up to 1"):
        Manifest.read(tmp_path, "run")
    Manifest.new("comparison").write(tmp_path)
    with pytest.raises(ValueError, match="the folder of a comparison, expected that of a run"):
        Manifest.read(tmp_path, "run")


def test_a_folder_of_the_first_version_is_read_and_called_unverified_once(run, caplog):
    (run.path / "manifest.json").unlink()
    assert run.config() == recipe("digits-sce")
    assert run.config() == recipe("digits-sce")
    assert [record.message for record in caplog.records] == [
        f"{run.path} has no manifest.json, as in version 0.1.0: its files are read unverified"
    ]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir])
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_not_waited_for(run, make):
    for file in (run.config_file, run.path / "manifest.json"):
        file.unlink()
        make(file)
    with pytest.raises(FileNotFoundError, match=r"holds no config\.yaml"):
        run.config()
    assert not run.is_run()


@pytest.mark.parametrize("lines", [1, 2, 12, 20, 40, -1])
def test_a_configuration_cut_short_is_refused_without_a_manifest_too(run, lines):
    (run.path / "manifest.json").unlink()
    text = "".join(run.config_file.read_text().splitlines(keepends=True)[:lines])
    run.config_file.write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml (is cut short|is no configuration)"):
        run.config()


NESTED = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NESTED, "has an alias"),
        ("a: &a [*a]", "has an alias"),
        ("x: " + "[" * 3000, "nests values deeper than 16 levels"),
        ("x: " + "{a: " * 3000, "nests values deeper than 16 levels"),
        ("x: 'y'\n" * 20_000, "expected at most 65536"),
        ("x: !!python/object/apply:os.system ['touch /tmp/never']", "is not valid YAML"),
        ("!!python/name:os.system", "is not valid YAML"),
        ("x: \x00", "is not valid YAML"),
        ("- a\n- b", "holds no settings"),
        ("", "holds no settings"),
        ("x: 2001-99-99", "is not valid YAML"),
    ],
)
def test_yaml_that_is_no_settings_file_is_refused_before_it_is_built(text, said):
    with pytest.raises(ValueError, match=said) as error:
        parse_yaml(text.encode(), "config.yaml")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"^config\.yaml"):
        Config.from_yaml(text, "config.yaml")


def test_bytes_that_are_no_text_are_refused():
    for parse in (parse_yaml, parse_json):
        with pytest.raises(ValueError, match="the file"):
            parse(b"\xff\xfe\x00", "the file")


def test_a_file_keeps_its_old_content_where_writing_fails_and_leaves_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    assert path.read_text() == "old"


def test_leftovers_of_killed_writers_are_cleared_by_name(tmp_path):
    ours = [tmp_path / ".model.safetensors.0123456789ab.partial", tmp_path / "model.safetensors.partial"]
    theirs = [tmp_path / ".thesis.0123456789ab.partial", tmp_path / "model.safetensors"]
    for file in (*ours, *theirs):
        file.write_text("x")
    clear_partial(tmp_path, ["model.safetensors"])
    assert sorted(tmp_path.iterdir()) == sorted(theirs)


def test_whoever_is_alone_in_a_folder_may_ask_again(tmp_path):
    with alone_in(tmp_path), alone_in(tmp_path), alone_in(tmp_path, wait=True):
        pass
