"""The values that settings take: their limits and short forms, checked as pydantic checks them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from .errors import UserError
from .learned import Learned
from .recipe_name import RecipeName

# A number beyond these limits is a typing error, and is refused before a machine tries it.
WIDEST = 64
MOST_TIMESTEPS = 10_000
MOST_EPOCHS = 1_000_000
MOST_PIXELS = 4096
MOST_SAMPLES = 1_000_000_000
MOST_DEVICES = 1024
SEEDS = 2**32

Positive = Annotated[float, Field(gt=0, le=1e30)]
NotNegative = Annotated[float, Field(ge=0, le=1e9)]
Timesteps = Annotated[int, Field(ge=1, le=MOST_TIMESTEPS)]
Length = Annotated[int, Field(le=MOST_TIMESTEPS)]
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
Count = Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
Devices = Annotated[int, Field(ge=1, le=MOST_DEVICES)]


def _below_runs(name: str) -> str:
    """The name of a recipe, which also names a folder inside the folder of all runs."""
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute() or "\0" in name:
        raise UserError(f"recipe is {name!r}, expected the name of a folder below runs, without '..'")
    return name


def _named(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Keep a `RecipeName`, which pydantic would turn into plain text."""
    return value if isinstance(value, RecipeName) else check(value)


if TYPE_CHECKING:
    Name = RecipeName
else:
    # the command line takes a text
    Name = Annotated[str, WrapValidator(_named), AfterValidator(_below_runs)]


def _learned(text: object) -> str:
    """The short form of a learned option."""
    try:
        found = Learned.of(text)
    except UserError:
        found = None
    if found is None:
        raise PydanticCustomError("learned", "expected 'learned' or 'learned:0.8'")
    return str(found)


LearnedText = Annotated[str, PlainValidator(_learned)]

# The class weights that follow the number of training samples of each class.
BALANCED = ("balanced",)


def _class_weights(value: Any) -> Any:
    """Class weights as texts of a command line, from such texts, a list of numbers, or a mapping from class names to numbers."""
    if isinstance(value, Mapping):
        value = [f"{name}={number}" for name, number in value.items()]
    texts = (value,) if isinstance(value, str) else tuple(map(str, value)) if isinstance(value, list | tuple) else value
    if not isinstance(texts, tuple) or texts == BALANCED:
        return texts
    numbers = [text.rpartition("=") for text in texts]
    are_named = {bool(sign) and bool(name) for name, sign, _ in numbers}
    if len(are_named) != 1 or not all(_is_weight(number) for *_, number in numbers):
        raise PydanticCustomError(
            "class_weights", "expected 'balanced', numbers of at least 0, or NAME=number for classes"
        )
    return texts


def _is_weight(text: str) -> bool:
    try:
        return 0 <= float(text) <= MOST_SAMPLES
    except ValueError:
        return False


# A batch size that is chosen before training, such as "auto" or "auto:512", whose number is the limit.
AUTO = "auto"


def _auto(text: object) -> str:
    """A batch size such as "auto", chosen before training."""
    name, colon, most = text.partition(":") if isinstance(text, str) else ("", "", "")
    if name != AUTO or (colon and not (most.isdecimal() and 1 <= int(most) <= MOST_SAMPLES)):
        raise PydanticCustomError("auto", "expected 'auto' or 'auto:512'")
    return str(text)


if TYPE_CHECKING:
    BatchSize = int  # after it has been chosen
else:
    BatchSize = Count | Annotated[str, PlainValidator(_auto)]

if TYPE_CHECKING:
    ClassWeights = tuple[str, ...]
else:
    ClassWeights = Annotated[tuple[str, ...], BeforeValidator(_class_weights)]


def _size(value: object, _: ValidatorFunctionWrapHandler) -> int | tuple[int, int] | None:
    """Height and width, as one number if they are equal, so that the same size is the same setting."""
    if value is None:
        return None
    sides: list[Any] = [*value] if isinstance(value, tuple | list) else [value, value]
    if any(isinstance(side, float) and not math.isfinite(side) for side in sides):
        raise PydanticCustomError("size", "expected a finite number")
    sides = [int(side) if isinstance(side, float) and side.is_integer() else side for side in sides]
    if len(sides) != 2 or any(type(side) is not int for side in sides):
        raise PydanticCustomError("size", "expected a whole number, or two: height and width")
    if min(sides) < 1:
        raise PydanticCustomError("size", "expected at least 1")
    if max(sides) > MOST_PIXELS:
        raise PydanticCustomError("size", f"expected at most {MOST_PIXELS}")
    return sides[0] if sides[0] == sides[1] else (sides[0], sides[1])


Size = Annotated[int | tuple[int, int] | None, WrapValidator(_size)]
