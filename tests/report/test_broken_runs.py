"""A run folder that is missing something or broken: one line that says what, and what to do."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from spikedistill.report import write_report


def edit_results(folder, change):
    results = json.loads((folder / "results.json").read_text())
    change(results)
    (folder / "results.json").write_text(json.dumps(results))


def edit_tensors(folder, name, **changes):
    tensors = load_file(folder / name) | changes
    save_file({key: value for key, value in tensors.items() if value is not None}, folder / name)


def message_of(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        write_report(tmp_path / "none")
    assert (
        message_of(error)
        == f"no run folder {tmp_path}/none: train first with `spikedistill train RECIPE --out {tmp_path}/none`"
    )


def test_an_empty_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"no config\.yaml in .*: train first with `spikedistill train RECIPE --out .*` and let it finish",
    ):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_has_not_been_evaluated(make_run):
    folder = make_run(without=["results.json"])
    with pytest.raises(FileNotFoundError, match=r"no results\.json in .*: train first") as error:
        write_report(folder)
    message_of(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [1, 2", r"config\.yaml is not valid YAML \(.*\): train the run again"),
        ("", r"config\.yaml holds no settings"),
        ("just words", r"config\.yaml holds no settings"),
    ],
)
def test_a_broken_configuration(make_run, text, message):
    folder = make_run()
    (folder / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        write_report(folder)
    message_of(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(schema=2), r"schema: Input should be less than or equal to 1"),
        (lambda r: r.pop("last"), r"last: Field required"),
        (lambda r: r["last"].pop("single"), r"last\.single: Field required"),
        (lambda r: r["last"]["ensemble"].pop(), r"expected last\.ensemble at k = \[1, 2, 3, 4\], got \[1, 2, 3\]"),
        (lambda r: r["last"]["single"].reverse(), r"expected last\.single at k = \[1, 2, 3, 4\], got \[4, 3, 2, 1\]"),
        (lambda r: r["selected"]["ensemble"].pop(0), r"expected selected\.ensemble at k = .*, got \[2, 3, 4\]"),
        (lambda r: r["last"]["calibrated"].pop(), r"expected last\.calibrated at k = .*, got \[1, 2, 3\]"),
        (
            lambda r: r["last"]["ensemble"][1].update(accuracy=89.5),
            r"last\.ensemble\.1\.accuracy: .* less than or equal to 1",
        ),
        (lambda r: r["last"]["ensemble"][0].update(nll="low"), r"last\.ensemble\.0\.nll: .* valid number"),
        (lambda r: r["last"]["firing_rates"][2]["rates"].pop(), r"expected 4 firing rates of layer layer3\.lif, got 3"),
        (lambda r: r["last"]["reliability"]["4"].pop(), r"expected 15 bins at k = 4, got 14"),
        (lambda r: r["last"]["beyond"][0].update(k=4), r"expected last\.beyond at k above 4, got \[4, 6\]"),
        (lambda r: r.update(timesteps=0), r"timesteps: .* greater than or equal to 1"),
    ],
)
def test_broken_results_are_named_with_what_to_do(make_run, change, message):
    folder = make_run()
    edit_results(folder, change)
    with pytest.raises(ValueError, match=message) as error:
        write_report(folder)
    assert message_of(error).endswith(f"evaluate the run again with `spikedistill evaluate {folder}`")
    assert str(folder / "results.json") in str(error.value)


def test_results_cut_short(make_run):
    folder = make_run()
    text = (folder / "results.json").read_text()
    (folder / "results.json").write_text(text[: len(text) // 2])
    with pytest.raises(
        ValueError, match=r"results\.json is broken \(Invalid JSON: .*\): evaluate the run again"
    ) as error:
        write_report(folder)
    message_of(error)


@pytest.mark.parametrize("row", ["2,low,0.5", "2,0.5", "2,0.5,0.5,0.5"])
def test_broken_metrics(make_run, row):
    folder = make_run()
    (folder / "metrics.csv").write_text(f"epoch,ce_single_1,ce_single_2\n1,0.5,0.5\n{row}\n")
    with pytest.raises(
        ValueError, match=r"metrics\.csv is broken \(line 3 is not a row of numbers\): train the run again"
    ) as error:
        write_report(folder)
    message_of(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": None}, "holds no tensor 'targets'"),
        ({"logits": torch.zeros(4, 120)}, r"expected floating-point logits \[T, N, C\]"),
        ({"targets": torch.zeros(7).long()}, r"expected integer target \[120\]"),
        (
            {"logits": torch.zeros(3, 120, 4)},
            r"expected \(timesteps, classes\) \(4, 4\) as in results\.json, got \(3, 4\)",
        ),
        (
            {"logits": torch.zeros(4, 120, 5)},
            r"expected \(timesteps, classes\) \(4, 4\) as in results\.json, got \(4, 5\)",
        ),
        ({"logits": torch.full((4, 120, 4), torch.nan)}, "1920 of 1920 that are not"),
        (
            {"logits": torch.zeros(4, 120, 4)},
            r"does not belong to results\.json \(accuracy at k = 4: 0\.\d+ and 0\.\d+\)",
        ),
    ],
)
def test_logits_that_do_not_fit(make_run, changes, message):
    folder = make_run()
    edit_tensors(folder, "logits.safetensors", **changes)
    with pytest.raises(ValueError, match=message) as error:
        write_report(folder)
    assert message_of(error).startswith(str(folder / "logits.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": None}, "holds no tensor 'indices'"),
        (
            {"images": torch.zeros(20, 1, 8, 8)},
            r"expected uint8 images \[n, C, H, W\] and indices \[n\], got torch\.float32",
        ),
        ({"images": torch.zeros(20, 8, 8, dtype=torch.uint8)}, r"got torch\.uint8 \[20, 8, 8\]"),
        ({"indices": torch.arange(19)}, r"and \[19\]"),
        ({"indices": torch.arange(20) + 101}, r"expected indices into 120 test samples, got 101 to 120"),
    ],
)
def test_samples_that_do_not_fit(make_run, changes, message):
    folder = make_run()
    edit_tensors(folder, "samples.safetensors", **changes)
    with pytest.raises(ValueError, match=message) as error:
        write_report(folder)
    assert message_of(error).startswith(str(folder / "samples.safetensors"))


@pytest.mark.parametrize("name", ["logits.safetensors", "samples.safetensors"])
def test_tensors_cut_short(make_run, name):
    folder = make_run()
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(
        ValueError, match=rf"{name} is damaged \(.*\): spikedistill evaluate .* writes it anew"
    ) as error:
        write_report(folder)
    message_of(error)
