"""One pass of the student over a batch."""

from torch import Tensor, nn

from ..models import Branched
from ..through_time import Temporal, mean_rate
from ..through_time.features import outputs_of


class StudentPass(nn.Module):
    """From a batch to all outputs of the network that an objective uses, as one tuple of tensors.

    Args:
        network: the network.
        timesteps: T for images, which are shown at every timestep; None for event frames, which have T of their own.
        layers: names of the layers whose features are compared.
    """

    def __init__(self, network: Temporal, timesteps: int | None, layers: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.timesteps = timesteps
        self.layers = layers

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Logits of images `[B, C, H, W]` in [0, 1] or event frames `[T, B, C, H, W]`.

        Returns:
            The logits `[T, B, C]` of the timesteps; the logits `[S, B, C]` of the heads, if there are some; and the mean rates
            `[B, ...]` of the layers.
        """
        with outputs_of(self.network.module, self.layers) as outputs:
            run = self.network.heads if isinstance(self.network, Branched) else self.network
            found = run(inputs, self.timesteps)
            logits = found if isinstance(found, tuple) else (found,)
            return *logits, *(mean_rate(outputs[layer]) for layer in self.layers)
