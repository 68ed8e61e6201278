"""What an exported file says of itself, as JSON that a reader without this library understands."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

from ..data import Preprocess
from ..evaluation.exits import Policy
from .flat import StateTensor

KEY = "spikedistill"
Form = Literal["step", "sequence"]
INPUT, LOGITS = "input", "logits"
HELD_OUT, TRAINED_ON = "samples held out of training", "training samples"


class Exit(NamedTuple):
    """When a sample may stop.

    Attributes:
        policy: the score, see `spikedistill.evaluation.exits`.
        threshold: a sample stops when its score reaches it; None runs all timesteps.
        chosen: by what it was chosen.
    """

    policy: Policy = "confidence"
    threshold: float | None = None
    chosen: str = ""


class Description(NamedTuple):
    """A network for other runtimes.

    Attributes:
        form: "step": `input, state.* -> logits, next.*` of one timestep; the logits of timesteps are averaged by the caller. Or
            "sequence": all T timesteps at once, logits `[T, B, C]`.
        timesteps: T of training.
        classes: names, in the order of the logits.
        input: what the network takes; images are in [0, 1], which the network normalises itself.
        state: the tensors of the state, in order.
        exit: when a sample may stop.
    """

    form: Form
    timesteps: int
    classes: Sequence[str]
    input: Preprocess
    state: Sequence[StateTensor]
    exit: Exit

    def written(self) -> dict[str, Any]:
        """As it is in files."""
        state = [
            {
                "input": each.before,
                "output": each.after,
                "shape": list(each.shape),
                "dtype": each.dtype,
                "start": each.start,
            }
            for each in self.state
        ]
        return {
            "schema": 1,
            "form": self.form,
            "timesteps": self.timesteps,
            "classes": list(self.classes),
            "input": self.input.written(),
            "state": state,
            "exit": self.exit._asdict(),
            "made_by": f"spikedistill {version('spikedistill')}",
        }

    def text(self) -> str:
        """As one line of JSON."""
        return json.dumps(self.written())
