"""The message for a run that is out of memory: what it took, and which settings take less."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config import Config
from ..errors import UserError, is_out_of_memory, not_enough_memory
from ..objectives import create_objective


@contextmanager
def saying_what_takes_memory(config: Config, checkpoint: Path) -> Iterator[None]:
    """Inside, a run trains.

    Raises:
        UserError: if there is not enough memory, with the batch size and the settings that take less.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):
            raise
        size = config.data.batch_size
        kept = (
            f". The checkpoint in {checkpoint.parent} stays: with more memory, the same settings and --resume auto go on from it"
            if checkpoint.is_file()
            else ""
        )
        raise UserError(
            f"{not_enough_memory(error)} to train with --data.batch-size {size} and --timesteps {config.timesteps}: use "
            f"{', '.join(settings_that_take_less(config))}{kept}"
        ) from error


def settings_that_take_less(config: Config) -> list[str]:
    """Settings with which this run would take less memory, and which it does not have yet."""
    size, found = config.data.batch_size, []
    if size > 1:
        found.append(f"--data.batch-size auto or {size // 2}")
    if config.gradient in ("bptt", "sltt") and config.model.neuron == "lif":
        if not config.checkpoint:
            found.append("--checkpoint")
        # under "rate" the timesteps share one gradient path, so they cannot teach each other
        if not create_objective(config.objective.name, **config.objective.options).compares_submodels:
            found.append("--gradient rate")
    if config.gradient == "rate" and config.chunk is None and config.timesteps > 1:
        found.append("--chunk 1")
    found.append(f"--model.width {config.model.width / 2:g}")
    return [*found[:-1], f"or {found[-1]}"] if len(found) > 1 else found
