"""What a stranger tries first, with the files and the commands of the pages "Your own": a network, an objective, a package."""

import json
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from pages import DOCS, put_files
from PIL import Image
from test_documented_commands import commands

from spikedistill import cli
from spikedistill.config import Config

SMALL = ["--data.train-samples", "80", "--epochs", "1"]


@pytest.fixture
def page(request, tmp_path, monkeypatch, fresh_names):
    """The folder of somebody who has saved what the page tells to save."""
    found = DOCS / "your_own" / request.param
    put_files(found, tmp_path)
    monkeypatch.chdir(tmp_path)
    return found


def put_images(folder):
    """Images of several sizes in folders, one for each class."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for shade, name in ((40, "daisy"), (200, "rose")):
            where = folder / split / name
            where.mkdir(parents=True)
            for number in range(count):
                height, width = draws.integers(20, 40, 2)
                pixels = draws.integers(shade - 40, shade + 40, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(where / f"{number}.png")


@pytest.mark.parametrize("page", ["network.md"], indirect=True)
def test_a_network_of_ones_own_learns_ones_own_images(page, tmp_path, capsys):
    put_images(tmp_path / "flowers")
    train, evaluate, ann, taught = commands(page)
    assert cli.main([*train, "--epochs", "4"]) == 0
    assert cli.main(evaluate) == 0
    run = tmp_path / "runs" / "image_folder-twsd" / "seed0"
    results = json.loads((run / "results.json").read_text())
    assert results["classes"] == ["daisy", "rose"]
    assert results["last"]["ensemble"][-1]["accuracy"] == 1.0, "shades of grey are easy to tell apart"
    assert Config.of_run((run / "config.yaml").read_bytes(), "").imported == ("my_cnn.py",)
    assert cli.main([*ann, *SMALL]) == 0
    two_processes = [sys.executable, "-m", "spikedistill", *taught, *SMALL, "--trainer.devices", "2"]
    done = subprocess.run(two_processes, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["objective.md"], indirect=True)
def test_an_objective_of_ones_own_is_tuned_beside_others(page, tmp_path, capsys):
    train, compare, names = commands(page)
    assert cli.main([*train, *SMALL]) == 0
    one_seed = [word for word in compare if word not in ("1", "2", "digits-twsd")]
    assert cli.main([*one_seed, *SMALL, "--jobs", "2"]) == 0, "other processes import the file too"
    rows = (tmp_path / "runs" / "steady" / "tuning.csv").read_text().splitlines()
    tried = sorted(row.split(",")[1:3] for row in rows[1:] if row.startswith("digits-steady"))
    assert tried == [["0.5", "weight=0.25"], ["1.0", "weight=0.5"], ["2.0", "weight=1"]]
    assert cli.main(names) == 0
    said = capsys.readouterr().out
    assert "steady" in said
    assert "Cross-entropy of every timestep, and timesteps that agree. (From my_loss.py.)" in " ".join(said.split())


@pytest.mark.parametrize("page", ["package.md"], indirect=True)
def test_a_package_brings_a_data_set_and_is_imported_only_for_it(page, tmp_path):
    names, train = commands(page)
    script = textwrap.dedent("""
        import json, sys
        from spikedistill.cli import main
        for words in json.loads(sys.argv[1]):
            code = main(words)
            print(f"code {code}, imported: {'garden_data' in sys.modules}")
        """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    given = json.dumps([names, ["train", "digits-sce", *SMALL], train])
    done = subprocess.run(
        [sys.executable, "-c", script, given], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    listed, other, trained, rest = re.split(r"code 0, imported: .*\n", done.stdout)
    assert re.findall(r"imported: (\w+)", done.stdout) == ["False", "False", "True"]
    assert "garden" in listed
    assert "garden-data" in listed
    assert "digits-sce: loss" in other
    assert rest == ""
    config = Config.of_run((tmp_path / "runs" / "garden-twsd" / "seed0" / "config.yaml").read_bytes(), "")
    assert config.data.options == {"shades": 3}
    assert config.data.batch_size == 32
    assert "40 test samples" in trained
