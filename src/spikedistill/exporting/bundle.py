"""A bundle: one folder with the network, its threshold and a card, to share and to load again.

    model.safetensors   weights, how to build the network, preprocessing, classes, and when samples stop
    README.md           the card, whose first lines the Hugging Face Hub reads
    config.json         what it takes and gives, for readers without this library
    results.json        accuracy at every k
    config.yaml         settings of training, without paths
    export.json         the names of the files, with checksums

Loading never executes code: the network is built by name.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..config import Config
from ..errors import UserError
from ..evaluation.results import Results, read_results
from ..models import load_model, save_model
from ..run_folder import RunFolder
from ..through_time import Temporal
from ..trained import Trained
from .description import Description

_PATHS = ("out", "teacher", "init_from")


def bundle_of(folder: RunFolder, network: Trained, description: Description, licence: str | None) -> dict[str, bytes]:
    """The files of a bundle, by name.

    Args:
        folder: of the run.
        network: its network.
        description: of it.
        licence: of the weights, such as "apache-2.0"; the card says if it is not known.

    Raises:
        UserError: for a network that was made in Python, which nobody could build again, or a run without results.
    """
    file = network.file
    if file is None or "python" in file.network:
        raise UserError(
            "the network was made in Python, so that a bundle could not say how to build it: register it by name"
        )
    if file.imports:
        raise UserError(
            f"the network needs names from {', '.join(file.imports)}, and loading a bundle never executes code: export it as onnx"
        )
    results = read_results(folder)
    threshold = description.exit.threshold
    exit = {"policy": description.exit.policy, "threshold": threshold, "max_timesteps": description.timesteps}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.safetensors"
        save_model(
            network,
            file.network,
            path,
            classes=list(description.classes),
            input=description.input.written(),
            timesteps=description.timesteps,
            exit=exit,
        )
        weights = path.read_bytes()
    config = folder.config()
    return {
        "model.safetensors": weights,
        "README.md": card(config, results, description, licence).encode(),
        "results.json": json.dumps(_scores(results), indent=1).encode(),
        "config.json": description.text().encode(),
        "config.yaml": yaml.safe_dump(_without_paths(config), sort_keys=False).encode(),
    }


def network_in(made: Mapping[str, bytes]) -> Temporal:
    """The network of a bundle's files, as `load` would read it."""
    return load_model("model.safetensors", made["model.safetensors"])


def _without_paths(config: Config) -> dict[str, Any]:
    settings: dict[str, Any] = config.model_dump(mode="json")
    for name in _PATHS:
        if settings.get(name) is not None:
            settings[name] = None
    settings["data"]["root"] = None
    return settings


def _scores(results: Results) -> dict[str, Any]:
    return {
        "recipe": results.recipe,
        "dataset": results.dataset,
        "samples": results.samples,
        "timesteps": results.timesteps,
        "accuracy": [score.accuracy for score in results.last.ensemble],
    }


def card(config: Config, results: Results, description: Description, licence: str | None) -> str:
    """The card in Markdown: what the network does, how well at every k, what it costs, its limits, and how to use it."""
    T, N = description.timesteps, results.samples
    head: Mapping[str, Any] = {
        "library_name": "spikedistill",
        "pipeline_tag": "image-classification" if description.input.kind == "image" else None,
        "license": licence,
        "tags": ["spiking-neural-network", "early-exit"],
        "datasets": [results.dataset],
    }
    shown = yaml.safe_dump({key: value for key, value in head.items() if value}, sort_keys=False).strip()
    height, width = description.input.size
    kind = "images" if description.input.kind == "image" else "event frames"
    rows = "\n".join(
        f"| {k} | {100 * score.accuracy:.2f} | {score.nll:.3f} |" for k, score in enumerate(results.last.ensemble, 1)
    )
    exit = description.exit
    rule = (
        f"By default a sample stops when its {exit.policy.replace('_', ' ')} reaches {exit.threshold:.4g}, chosen on {exit.chosen}."
        if exit.threshold is not None
        else "All samples run all timesteps."
    )
    energy = _energy(results)
    trained_by = f"network `{config.model.name}`, objective `{config.objective.name}`, {config.epochs} epochs, seed {config.seed}"
    what = (
        f"A spiking network that classifies {kind} of {height} x {width} pixels into {len(description.classes)} classes, trained "
        f"with `spikedistill` for {T} timesteps. It gives an answer after every timestep."
    )
    return f"""---
{shown}
---

# {config.recipe}

{what} {rule}

```python
from spikedistill.evaluation import AnytimeClassifier

classifier = AnytimeClassifier.load("PATH_OF_THIS_FOLDER")
model = classifier.model
out = classifier(model.preprocess("sample.png"))
print(model.classes[out.predictions[0]], "after", int(out.exit_times[0]), "timesteps")
```

## Accuracy

On {f"{N:,}" if N else "the"} test samples of `{results.dataset}`, from the mean of the logits of the first k timesteps:

| k | accuracy, % | negative log-likelihood |
|--:|--:|--:|
{rows}

## Energy

{energy}

## Training

Recipe `{config.recipe}`: {trained_by}. To repeat it, with the data set in place:

```sh
spikedistill train config.yaml --out another/folder
```

## Limits

- Its accuracy holds for samples like those of `{results.dataset}`. Its confidence can be high on others too.
- Its classes are {", ".join(description.classes[:20])}{" and others" if len(description.classes) > 20 else ""}.
- Small changes of an image that nobody sees can change its answer, unless it was trained against them.

## Licence

{f"`{licence}`" if licence else "Not stated by who exported it."}
"""


def _energy(results: Results) -> str:
    estimate = results.deployment.energy if results.deployment is not None else None
    if estimate is None:
        return "Not estimated: the operations of the network cannot be counted, or it has one timestep."
    return (
        f"An estimate, not a measurement: {sum(estimate.total_pj) / 1e6:.2f} microjoules for all {len(estimate.total_pj)} "
        f"timesteps of one sample, from {estimate.samples} test samples and the costs of `{estimate.costs}` (32-bit operations and "
        "on-chip memory). A real chip differs."
    )
