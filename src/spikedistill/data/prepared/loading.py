"""A prepared data set as a `Dataset`; what is not prepared yet is, if its recordings are at hand."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import UserError
from ...options import OptionValue
from ..dataset import Dataset
from ..files import MOST_VALUES
from ..recordings import SLICINGS
from ..recordings.frames import Slicing
from .clips import Asked, Clips
from .manifest import SPLITS, Part, PreparedManifest
from .preparing import prepare
from .samples import PreparedSamples

Find = Callable[[Path, Asked], Clips]

OWN: dict[str, OptionValue] = {"source": "", "milliseconds": 0.0, "normalise": False, "workers": 0, "skip_bad": False}
"""Options of every prepared data set: see `Kind.load`."""
_NOT_ASKED = ("source", "normalise", "workers", "skip_bad")


@dataclass(frozen=True)
class Kind:
    """A data set of recordings, and what it is like unless one asks for something else.

    Attributes:
        name: the name.
        find: finds its recordings in a folder.
        place: the folder of its recordings below the data root; "" for the root itself.
        timesteps, size: T, and height and width of frames; None for those of the sensor.
    """

    name: str
    find: Find
    place: str = ""
    timesteps: int = 10
    size: tuple[int, int] | None = None

    def asked(
        self,
        timesteps: int | None = None,
        slicing: str | None = None,
        size: int | Sequence[int] | None = None,
        **own: Any,
    ) -> Asked:
        """What is asked for, with the defaults of the data set.

        Raises:
            UserError: for options that no frames have.
        """
        T, slicing = timesteps or self.timesteps, slicing or "number"
        if slicing not in SLICINGS:
            raise UserError(f"slicing is one of {', '.join(SLICINGS)}; got {slicing!r}")
        milliseconds = own.pop("milliseconds", 0.0)
        if (slicing == "duration") != (milliseconds > 0) or milliseconds < 0:
            raise UserError(
                "frames of a fixed duration need --data.slicing duration and --data.options.milliseconds above 0; got "
                f"{slicing} and {milliseconds:g}"
            )
        sides = self.size if size is None else (size, size) if isinstance(size, int) else tuple(size)
        values = T * 2 * int(np.prod(sides or (1, 1)))
        if (timesteps is not None and timesteps < 1) or values > MOST_VALUES or min(sides or (1,)) < 1:
            raise UserError(f"frames [T, 2, H, W] have 1 to {MOST_VALUES} values; got T {timesteps} and size {sides}")
        asked_for = {key: value for key, value in own.items() if key not in _NOT_ASKED}
        kept: Any = sides
        checked: Slicing = slicing  # type: ignore[assignment]
        return Asked(self.name, T, checked, milliseconds or None, kept, asked_for)

    def load(
        self,
        root: Path,
        timesteps: int | None = None,
        slicing: str | None = None,
        size: int | Sequence[int] | None = None,
        source: str = "",
        normalise: bool = False,
        workers: int = 0,
        skip_bad: bool = False,
        **own: Any,
    ) -> Dataset:
        """The prepared data set, which is prepared first where its recordings are at hand.

        Args:
            root: the data root.
            timesteps: T.
            slicing: how recordings become frames.
            size: height and width of frames, or one number for both.
            source: the folder of recordings; default below the root.
            normalise: divide each frame by its largest count.
            workers: processes that prepare; default one for each core.
            skip_bad: leave out recordings that cannot be read.
            own: `milliseconds`, and options of this data set.

        Raises:
            FileNotFoundError: it is neither prepared nor are its recordings there.
            UserError: for wrong options, and for what is wrong with recordings.
        """
        asked = self.asked(timesteps, slicing, size, **own)
        folder = asked.folder(root)
        try:
            manifest = PreparedManifest.read(folder)
        except FileNotFoundError:
            recordings = Path(source).expanduser() if source else root / self.place
            if not recordings.is_dir():
                raise FileNotFoundError(
                    f"{self.name} is not prepared for these options, and there is no {recordings}: run spikedistill data prepare "
                    f"{self.name} --source FOLDER, with the folder of its recordings"
                ) from None
            manifest = prepare(
                asked,
                self.find(recordings, asked),
                root,
                workers=workers or None,
                skip_bad=skip_bad,
                track=partial(_bar, f"preparing {self.name}"),
            )
        return self._dataset(folder, manifest, asked, normalise)

    def _dataset(self, folder: Path, manifest: PreparedManifest, asked: Asked, normalise: bool) -> Dataset:
        change = divided_by_largest if normalise else None
        train, test = (replace(PreparedSamples.of(folder, manifest, split), change=change) for split in SPLITS)
        _, channels, H, W = manifest.shape
        own = {key: value for key, value in asked.options().items() if value is not None}
        own |= {"slicing": SLICINGS[asked.slicing].identity} | ({"normalise": True} if normalise else {})
        notes = [f"prepared in {folder}"]
        if bad := manifest.bad():
            notes.append(f"{len(bad)} recordings could not be read and are left out: {'; '.join(bad[:3])}")
        return Dataset(
            name=self.name,
            train=train,
            test=test,
            classes=manifest.classes,
            mean=(0.0, 0.0),
            std=(1.0, 1.0),
            kind="events",
            channels=channels,
            size=(H, W),
            augmentations=("flip", "nda"),
            options=own,
            describe=partial(list, notes),
        )


def divided_by_largest(frames: Tensor) -> Tensor:
    """Frames `[T, 2, H, W]`, each divided by its largest value; empty ones stay."""
    return frames / frames.amax((1, 2, 3), keepdim=True).clamp_min(1e-9)


def _bar(title: str, parts: Iterable[Part], total: int) -> Iterable[Part]:
    """Progress over parts, on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(file=sys.stderr)
    return track(parts, title, total, console=console, disable=not console.is_terminal)
