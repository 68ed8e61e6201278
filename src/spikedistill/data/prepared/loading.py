"""A prepared data set as a `Dataset`; what is not prepared yet is, if its recordings are at hand."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ...errors import UserError
from ...options import OptionValue
from ..dataset import Dataset
from ..files import MOST_VALUES, data_error
from ..progress import progress
from ..recordings import SLICINGS
from ..recordings.frames import Slicing
from .clips import Asked, Clips
from .manifest import SPLITS, PreparedManifest
from .preparing import prepare, source_of
from .samples import PreparedSamples

Find = Callable[[Path, Asked], Clips]

OWN: dict[str, OptionValue] = {"source": "", "milliseconds": 0.0, "normalise": False, "workers": 0, "skip_bad": False}
"""Options of every prepared data set: see `Kind.load`."""


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
        T, slicing = self.timesteps if timesteps is None else timesteps, slicing or "number"
        if slicing not in SLICINGS:
            raise UserError(f"slicing is one of {', '.join(SLICINGS)}; got {slicing!r}")
        milliseconds = own.pop("milliseconds", 0.0)
        if (slicing == "duration") != (milliseconds > 0) or milliseconds < 0:
            raise UserError(
                "frames of a fixed duration need --data.slicing duration and --data.options.milliseconds above 0; got "
                f"{slicing} and {milliseconds:g}"
            )
        sides = self.size
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else size
            sides = height, width
        values = T * 2 * math.prod(sides or (1, 1))
        if T < 1 or values > MOST_VALUES or min(sides or (1,)) < 1:
            raise UserError(f"frames [T, 2, H, W] have 1 to {MOST_VALUES} values; got T {T} and size {sides}")
        return Asked(self.name, T, cast(Slicing, slicing), milliseconds or None, sides, own)

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
        folder, recordings = asked.folder(root), Path(source).expanduser() if source else root / self.place
        try:
            manifest = PreparedManifest.read(folder)
            self._check_current(asked, manifest, folder, recordings)
        except FileNotFoundError:
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
                track=partial(progress, description=f"preparing {self.name}"),
            )
        return self._dataset(folder, manifest, asked, normalise)

    def _check_current(self, asked: Asked, manifest: PreparedManifest, folder: Path, recordings: Path) -> None:
        """Refuse samples that this version would cut otherwise, or that are of other recordings than those at hand.

        Raises:
            UserError: naming the folder to remove.
        """
        again = f"remove {folder}, and they are prepared anew"
        if int(manifest.made_with["slicing"]) < SLICINGS[asked.slicing].since:
            raise data_error(folder, f"holds frames that an older version has cut by {asked.slicing!r}", again)
        try:
            source = source_of(self.find(recordings, asked)) if recordings.is_dir() else manifest.source
        except FileNotFoundError:  # samples are used without their recordings too
            return
        if source != manifest.source:
            raise data_error(folder, f"was prepared from other recordings than those in {recordings}", again)

    def _dataset(self, folder: Path, manifest: PreparedManifest, asked: Asked, normalise: bool) -> Dataset:
        change = divided_by_largest if normalise else None
        train, test = (replace(PreparedSamples.of(folder, manifest, split), change=change) for split in SPLITS)
        _, channels, H, W = manifest.shape
        own = {key: value for key, value in asked.options().items() if value is not None}
        own |= {"slicing": SLICINGS[asked.slicing].identity} | ({"normalise": True} if normalise else {})
        notes = [f"prepared in {folder}"]
        if train.lengths is not None:
            notes.append(
                f"recordings of {int(train.lengths.min())} to {int(train.lengths.max())} frames are padded to {manifest.shape[0]}"
            )
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
