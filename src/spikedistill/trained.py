"""A trained network for prediction: it takes image files, arrays or tensors, and returns the names of classes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .data.given import as_input, check_range, samples_of
from .data.preprocess import Preprocess
from .data.progress import progress
from .errors import UserError
from .models import ModelFile
from .through_time import Temporal
from .through_time.finite import has_values


class Prediction(NamedTuple):
    """The class of each of N samples.

    Attributes:
        classes: the name of each sample's class.
        labels: its number, `[N]` int64.
        confidence: its probability, `[N]`.
        probabilities: the probabilities of all classes, `[N, C]`: the softmax of the mean logits over the timesteps.
    """

    classes: tuple[str, ...]
    labels: Tensor
    confidence: Tensor
    probabilities: Tensor


class Trained(Temporal):
    """A network from `spikedistill.load`: called as `model(x, timesteps=T)`, with `step` for one timestep at a time.

    Images must be in [0, 1], because the network normalises them itself. In eval mode it refuses images far outside,
    such as bytes as floating-point numbers, or images that were normalised before. On a GPU it checks inputs only until
    one call has passed, because reading values there stops the program until the GPU has finished.
    `model.checks_range = False` turns the check off. Event counts are taken as they are.

    Attributes:
        classes: the names of the classes, in the order of the logits; None if the file has none.
        input: what the network takes; None if the file does not say.
        timesteps: T of training; None if the file does not say.
        file: the entries of the model file, without its tensors; None for a network that came from none.
        checks_range: whether images outside [0, 1] are refused.
    """

    def __init__(
        self,
        network: Temporal,
        classes: Sequence[str] | None = None,
        input: Preprocess | None = None,
        timesteps: int | None = None,
        file: ModelFile | None = None,
    ) -> None:
        axes = network.sample_axes or (f"{input.channels}, H, W" if input is not None else None)
        super().__init__(network.module, network.rule, axes)
        self.classes = None if classes is None else tuple(classes)
        self.input = input
        self.timesteps = timesteps
        self.file = file
        self.checks_range = True
        self._has_checked = False

    def preprocess(self, images: Any) -> Tensor:
        """Make a batch for the network, on its device.

        Args:
            images: one or many, in a list, an array, a tensor or a folder: paths of image files, Pillow images, bytes (uint8) or
                floating-point numbers in [0, 1]. Arrays are `[H, W]`, `[H, W, C]`, `[C, H, W]`, or batches of these. Files, Pillow
                images and bytes are turned upright, resized and made grey or coloured as in training; numbers must have the
                network's own size. For a network of events: paths of `.npz` files with an array `frames`, or counts
                `[T, 2, H, W]` or `[N, T, 2, H, W]`.

        Returns:
            Images `[N, C, H, W]` in [0, 1] for `model(x, timesteps=T)`, or event frames `[T, N, C, H, W]` for `model(x)`.

        Raises:
            FileNotFoundError: if a file is missing.
            UserError: if a sample cannot be read or does not fit, or the model file does not say what the network takes.
        """
        return self._batch(self._samples(images))

    @torch.no_grad()
    def predict(self, images: Any, *, timesteps: int | None = None, batch_size: int = 100) -> Prediction:
        """Classify images or event recordings; a terminal shows progress over batches.

        Args:
            images: as for `preprocess`.
            timesteps: how many to run, by default T of training; for event frames, the first of each recording.
            batch_size: samples per forward pass.

        Returns:
            Names, numbers and probabilities of the classes, on the CPU. `AnytimeClassifier` stops each sample as early as it can.

        Raises:
            FileNotFoundError: if a file is missing.
            UserError: for what `preprocess` refuses, for a wrong number of timesteps, for recordings of another number of
                frames than in training, or if T of training is not known.
        """
        if type(batch_size) is not int or batch_size < 1:
            raise UserError(f"batch_size is {batch_size!r}, expected a whole number of 1 or more")
        samples, was_training = self._samples(images), self.training
        self.eval()
        try:
            starts = range(0, len(samples), batch_size)
            shown = progress(starts, description="classifying") if len(starts) > 1 else starts
            logits = torch.cat([self._mean_logits(samples[start : start + batch_size], timesteps) for start in shown])
        finally:
            self.train(was_training)
        probabilities = logits.softmax(-1)
        confidence, labels = probabilities.max(-1)
        names = self.classes or tuple(map(str, range(logits.shape[-1])))
        return Prediction(tuple(names[label] for label in labels.tolist()), labels, confidence, probabilities)

    def _mean_logits(self, samples: Sequence[Any], timesteps: int | None) -> Tensor:
        """The mean logits `[B, C]` of some samples in float64, on the CPU."""
        batch, T = self._batch(samples), timesteps
        if self._taken().kind == "events":
            if self.timesteps not in (None, len(batch)):
                merge = ""
                if len(batch) % self.timesteps == 0:
                    axes = f"{self.timesteps}, {len(batch) // self.timesteps}"
                    merge = f"add up neighbouring frames if training did, frames.reshape({axes}, 2, H, W).sum(1), or "
                raise UserError(
                    f"got recordings of {len(batch)} frames, and the network was trained on {self.timesteps}: {merge}call "
                    "model(x) [T, N, 2, H, W] for any number of frames"
                )
            if T is not None and not (type(T) is int and 1 <= T <= len(batch)):
                raise UserError(
                    f"timesteps is {T!r}, expected a whole number from 1 to {len(batch)}, the frames of these recordings"
                )
            return self(batch[:T]).double().mean(0).cpu()
        if T is None and (T := self.timesteps) is None:
            raise UserError(
                "the model file does not say for how many timesteps the network was trained: give timesteps=T"
            )
        return self(batch, timesteps=T).double().mean(0).cpu()

    def _samples(self, images: Any) -> list[Any]:
        taken, shape = self._taken(), tuple(getattr(images, "shape", ()))
        if taken.kind == "events" and len(shape) == 5 and shape[1] != self.timesteps == shape[0]:
            raise UserError(
                f"got event frames {list(shape)}, which have T={self.timesteps} first: call model(x) with them, or give recordings "
                "[N, T, 2, H, W], x.transpose(0, 1)"
            )
        return samples_of(images, taken)

    def _batch(self, samples: Sequence[Any]) -> Tensor:
        weight = next(self.parameters(), None)
        batch = as_input(samples, self._taken())
        return batch if weight is None else batch.to(weight.device, weight.dtype)

    def _taken(self) -> Preprocess:
        if self.input is None:
            raise UserError(
                "the model file does not say what the network takes: call model(x, timesteps=T), or save it anew with "
                "save_model(..., input=...)"
            )
        return self.input

    def check_input(self, x: Tensor, timesteps: int | None) -> tuple[Tensor, int]:
        values, total = super().check_input(x, timesteps)
        self._check_range(x)
        return values, total

    def check_step(self, x: Tensor, state: Mapping[str, Tensor] | None) -> None:
        super().check_step(x, state)
        if not state:
            self._check_range(x)

    def _check_range(self, x: Tensor) -> None:
        """Refuse images far outside [0, 1].

        Raises:
            UserError: saying what to do.
        """
        if not self.checks_range or self.training or self.input is None or self.input.kind != "image":
            return
        if not has_values(x) or (x.device.type != "cpu" and self._has_checked):
            return
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        try:
            check_range(x)
        except UserError as error:
            raise UserError(f"{error}; model.checks_range = False takes them as they are") from None
        self._has_checked |= x.device.type != "cpu"
