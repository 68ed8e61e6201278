"""Where the names of a configuration come from: the files and modules of users that registered them."""

from ..config import Config, ModelConfig
from ..data import AUGMENTATIONS, DATASETS
from ..models import MODELS
from ..neurons import NEURONS, SURROGATES
from ..objectives import OBJECTIVES


def origins_of(config: Config) -> tuple[str, ...]:
    """The files and modules that registered names of a configuration, sorted; none for names of this library and of packages."""
    found = [
        DATASETS.origin(config.data.name),
        OBJECTIVES.origin(config.objective.name),
        *map(AUGMENTATIONS.origin, config.data.augment or ()),
    ]
    return _sorted([*found, *origins_of_network(config.model)])


def origins_of_network(model: ModelConfig) -> tuple[str, ...]:
    """The files and modules that registered the names of a network, its neurons and their surrogate, sorted."""
    return _sorted([MODELS.origin(model.name), NEURONS.origin(model.neuron), SURROGATES.origin(model.lif.surrogate)])


def _sorted(origins: list[str | None]) -> tuple[str, ...]:
    return tuple(sorted({origin for origin in origins if origin is not None}))
