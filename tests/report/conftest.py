"""Small run folders of real files, and a reader for the pages made from them."""

import base64
import csv
import gzip
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml
from browser_pages import browser  # noqa: F401
from safetensors.torch import save_file

from spikedistill.evaluation.timesteps import calibrated_metrics, timestep_metrics, timestep_reliability

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress"]
CONFIG = {
    "recipe": "tiny-twsd",
    "seed": 3,
    "epochs": 5,
    "timesteps": 4,
    "gradient": "bptt",
    "model": {"name": "convnet", "width": 0.5},
    "data": {"name": "tiny"},
    "objective": {"name": "twce+twsd", "options": {"temperature": 3.0}},
}


def number_or_text(value):
    try:
        return None if value is None else float(value)
    except ValueError:
        return value


class Page(HTMLParser):
    """What a page holds, by its own marks: tables by name, row and column; large numbers; sections; what it refers to."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.numbers, self.sections, self.samples = {}, {}, [], {}
        self.references, self.tags, self.captions, self.scripts = [], [], 0, {}
        self.words, self.bytes = [], {}
        self._rows = self._cells = self._script = None
        self._columns, self._place, self._reads_text = [], 0, False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.references += [(tag, found[name]) for name in ("src", "href", "action", "data", "poster") if name in found]
        if tag == "table":
            name = found.get("data-table")
            self._rows = (
                self.tables.setdefault(name, {}) if name else self.samples.setdefault(int(found["data-sample"]), {})
            )
        elif tag == "th" and found.get("scope") == "col":
            self._columns.append(found.get("data-metric", ""))
        elif tag == "tr":
            self._cells = self._rows.setdefault(found["data-row"], {}) if "data-row" in found else None
            self._columns = self._columns if "data-row" in found else []
            self._place = 0
        elif tag == "td":
            self._place += 1
            # of a cell without a value of its own the text is all of it
            self._cell = found.get("data-metric") or self._columns[self._place]
            self._cells[self._cell] = number_or_text(found.get("data-value"))
            self._reads_text = self._cell and "data-value" not in found
        elif "data-number" in found:
            self.numbers[found["data-number"]] = float(found["data-value"])
        elif tag == "section":
            self.sections.append(found["id"])
        elif tag == "caption":
            self.captions += 1
        elif tag == "script":
            self._script = found.get("id", "")
            self.bytes[self._script] = int(found.get("data-bytes", 0))

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None
        elif tag == "td":
            self._reads_text = False

    def handle_data(self, data):
        if self._reads_text and data.strip():
            self._cells[self._cell] = None if data == "–" else number_or_text(data)
        if self._script is not None:
            self.scripts[self._script] = data
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def unpacked(self, name):
        """What a packed script holds: base85 with a comma for "<", padded, of gzip."""
        content = base64.b85decode(self.scripts[name].replace(",", "<"))[: self.bytes[name]]
        return gzip.decompress(content).decode()

    @property
    def figures(self):
        return json.loads(self.unpacked("figures"))


def logits_of(T, N, C, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, C, (N,), generator=generator)
    noise = torch.randn(T, N, C, generator=generator)
    return 2.0 * noise + 2.5 * torch.nn.functional.one_hot(target, C), target


def write_run(folder: Path, *, T=4, N=120, classes=CLASSES, channels=1, without=(), config=None, first_seed=0) -> Path:
    """A run folder with everything a report can show, but for the files and the keys of results.json in `without`."""
    folder.mkdir(parents=True, exist_ok=True)
    logits, target = logits_of(T, N, len(classes), seed=first_seed)
    heldout = logits_of(T, N, len(classes), seed=1)
    last = timestep_metrics(logits, target)
    selected = timestep_metrics(*logits_of(T, N, len(classes), seed=2))
    last |= {
        "calibrated": calibrated_metrics(logits, target, *heldout),
        "beyond": [{"k": T + 1, "accuracy": 0.875}, {"k": T + 2, "accuracy": 0.8875}],
        "reliability": timestep_reliability(logits, target),
        "firing_rates": [
            {"layer": f"layer{place}.lif", "rates": [0.1 * place + 0.01 * k for k in range(T)]} for place in range(1, 4)
        ],
    }
    results = {
        "schema": 1,
        "timesteps": T,
        "recipe": "tiny-twsd",
        "dataset": "tiny",
        "classes": list(classes),
        "last": last,
        "selected": selected,
        "best_test": {"epoch": 4, "accuracy": 0.925},
        "cost": {"training_s": 3723.0, "images_per_s": 1234.5, "peak_mib": 321.25},
    }
    for part in (results, last):
        for key in without:
            part.pop(key, None)
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "config.yaml").write_text(yaml.safe_dump(config or CONFIG, sort_keys=False))
    steps = range(1, T + 1)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        kinds = [f"ce_{kind}_{k}" for kind in ("single", "prefix") for k in steps]
        accuracies = ["train_accuracy", "train_accuracy_1"]
        writer.writerow(["epoch", "lr", "train_loss", *accuracies, "loss/twce", "loss/twsd", *kinds])
        writer.writerows(
            [
                epoch,
                0.1,
                2 / epoch,
                1 - 0.5 / epoch,
                1 - 0.75 / epoch,
                1 / epoch,
                0.5 / epoch,
                *[(1 + 1 / k) / epoch for k in (*steps, *steps)],
            ]
            for epoch in range(1, 6)
        )
    images = torch.arange(20 * channels * 64).view(20, channels, 8, 8).remainder(256).to(torch.uint8)
    save_file({"logits": logits, "targets": target}, folder / "logits.safetensors")
    save_file({"images": images, "indices": torch.arange(20) * 3}, folder / "samples.safetensors")
    for name in ("config.yaml", "results.json", "metrics.csv", "logits.safetensors", "samples.safetensors"):
        if name in without:
            (folder / name).unlink()
    return folder


@pytest.fixture
def make_run(tmp_path):
    """`make_run(**options)` writes a run folder; see `write_run`."""
    return lambda **options: write_run(tmp_path / "run", **options)


@pytest.fixture
def read_page():
    """`read_page(path)` parses a page."""
    return lambda path: Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """One run folder with everything, and its report."""
    from spikedistill.report import write_report

    folder = write_run(tmp_path_factory.mktemp("full") / "run")
    write_report(folder)
    return folder


@pytest.fixture
def page(full_run, read_page):
    return read_page(full_run / "report.html")


@pytest.fixture
def results(full_run):
    return json.loads((full_run / "results.json").read_text())
