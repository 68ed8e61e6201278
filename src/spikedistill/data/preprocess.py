"""The conversion of an image of any size to the input of a network, as a value that model files store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import UserError
from ..setting_types import MOST_PIXELS

Resize = Literal["crop", "pad", "stretch", "centre"]
RESIZES: tuple[str, ...] = get_args(Resize)


def check_resize(resize: str) -> None:
    """Refuse an unknown way to resize.

    Raises:
        UserError: if it is none of `RESIZES`.
    """
    if resize not in RESIZES:
        raise UserError(f"resize is {resize!r}, expected one of {', '.join(RESIZES)}")


@dataclass(frozen=True)
class Preprocess:
    """The input of a network, and how an image of another size is converted to it.

    Attributes:
        kind: "image", or "events" for event frames, which keep their size.
        channels: channels of one image or event frame: 1 for grey, 3 for colour, 2 for the polarities of events.
        size: height and width in pixels.
        resize: "crop" scales an image until it covers `size` and cuts off what is too much, evenly on both sides; "pad" scales it
            until it fits into `size` and fills the rest; "stretch" scales height and width by different factors; "centre" scales
            it until it covers 8/7 of `size` and takes the middle, as published networks for ImageNet do (256 and 224 pixels).
        fill: the value in [0, 1] of each channel that "pad" fills with: the mean of the training images.
    """

    kind: Literal["image", "events"]
    channels: int
    size: tuple[int, int]
    resize: Resize = "crop"
    fill: tuple[float, ...] = ()

    def written(self) -> dict[str, Any]:
        """The values for a JSON file; `resize` and `fill` only if they are not the default."""
        values: dict[str, Any] = {"kind": self.kind, "channels": self.channels, "size": list(self.size)}
        if self.resize != "crop":
            values |= {"resize": self.resize} | ({"fill": list(self.fill)} if self.resize == "pad" else {})
        return values

    @classmethod
    def from_written(cls, values: Mapping[str, Any]) -> "Preprocess":
        """The value that `written` returned.

        Raises:
            UserError: if a value is missing or of another kind.
        """
        try:
            height, width = (int(side) for side in values["size"])
            found = cls(
                kind=values["kind"],
                channels=int(values["channels"]),
                size=(height, width),
                resize=values.get("resize", "crop"),
                fill=tuple(float(value) for value in values.get("fill", ())),
            )
            if not (found.channels >= 1 and all(1 <= side <= MOST_PIXELS for side in found.size)):
                raise ValueError("out of range")
            if not all(0 <= value <= 1 for value in found.fill) or len(found.fill) not in (0, found.channels):
                raise ValueError("a fill outside [0, 1]")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"the input of a network is described by {str(dict(values))[:160]}, expected kind, channels and size"
            ) from error
        if found.kind not in ("image", "events") or found.resize not in RESIZES:
            raise UserError(
                f"the input of a network has kind {found.kind!r} and resize {found.resize!r}: use a newer version"
            )
        return found
