"""What `against.py` asks of the code of one commit, one line of JSON each; it uses nothing but the public interface.

`where` tells the file of the package, `losses` trains twenty steps, `prepare` makes a training step, and `step` times it.
"""

import contextlib
import csv
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import spikedistill
from spikedistill.recipes import recipe

STEPS = 20
BATCH = 128  # with which the sequences of the first layers are long enough for compiled loops
REPEATS = 3  # of a step, of which the quickest counts


def where() -> dict[str, Any]:
    return {"file": spikedistill.__file__}


def twenty_steps(recipe_name: str, out: Path, options: dict[str, Any]) -> Path:
    """Train a recipe on one batch, again and again."""
    config = recipe(recipe_name)
    update = {
        "epochs": STEPS,
        "out": out,
        "data": config.data.model_copy(update={"train_samples": BATCH, "batch_size": BATCH}),
        "trainer": config.trainer.model_copy(update={"progress": False}),
    }
    return spikedistill.train(config.model_copy(update=update | options))


def losses(recipe_name: str, options: dict[str, Any], taught: bool) -> dict[str, Any]:
    """The loss of each step and a digest of the weights after the last, or why the two do not go together."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        try:
            teacher = {"teacher": twenty_steps("digits-ann", runs / "ann", {})} if taught else {}
            run = twenty_steps(recipe_name, runs / "run", options | teacher)
        except ValueError as error:
            return {"refused": str(error).replace(folder, "")}
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        digest = hashlib.sha256()
        for name, value in sorted(spikedistill.load(run).state_dict().items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return {"losses": [row["train_loss"] for row in rows], "weights": digest.hexdigest()}


class Step:
    """One training step of a network on images of noise."""

    def __init__(self, options: dict[str, Any], width: float = 1.0, batch: int = 16, size: int = 32) -> None:
        torch.manual_seed(0)
        network = spikedistill.create_model("resnet18", num_classes=10, width=width, image_size=size, **options).train()
        self.network, self.optimizer = network, torch.optim.SGD(network.parameters(), lr=0.01)
        self.images, self.labels = torch.rand(batch, 3, size, size), torch.randint(10, (batch,))
        self.seconds()

    def seconds(self) -> float:
        taken = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            self.optimizer.zero_grad()
            F.cross_entropy(self.network(self.images, timesteps=4).mean(0), self.labels).backward()
            self.optimizer.step()
            taken.append(time.perf_counter() - begun)
        return min(taken)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # for whatever else is printed goes to the other stream
    os.dup2(2, 1)
    step: Step | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        what = asked.pop("ask")
        answer: dict[str, Any] = {}
        with contextlib.redirect_stdout(sys.stderr):
            if what == "where":
                answer = where()
            elif what == "losses":
                answer = losses(**asked)
            elif what == "prepare":
                step = Step(**asked)
            else:
                assert step is not None
                answer = {"seconds": step.seconds()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
