"""What all tests share."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

if importlib.util.find_spec("triton") and not torch.cuda.is_available():
    # Triton decides as it is imported, which PyTorch's compiler may do at any time, whether kernels can be interpreted
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module("triton.language")


@pytest.fixture
def fresh_names(monkeypatch):
    """Whatever a test registers or imports from files of users is forgotten after it."""
    from spikedistill import registry
    from spikedistill.data import AUGMENTATIONS, DATASETS
    from spikedistill.models import MODELS
    from spikedistill.neurons import NEURONS, SURROGATES
    from spikedistill.objectives import OBJECTIVES
    from spikedistill.recipes.catalogue import METHODS, RECIPES

    for names in (AUGMENTATIONS, DATASETS, METHODS, MODELS, NEURONS, OBJECTIVES, RECIPES, SURROGATES):
        monkeypatch.setattr(names, "_known", dict(names._known))
        monkeypatch.setattr(names, "_origins", dict(names._origins))
    known, registered, path = dict(registry.USER_MODULES), set(registry._MODULES), list(sys.path)
    loaded = set(sys.modules)
    registry._declared.cache_clear()
    yield
    for module in (registry.USER_MODULES.keys() - known.keys()) | (registry._MODULES - registered):
        if "." not in module and module not in loaded:
            sys.modules.pop(module, None)
    registry.USER_MODULES.clear()
    registry.USER_MODULES.update(known)
    registry._MODULES.clear()
    registry._MODULES.update(registered)
    registry._declared.cache_clear()
    sys.path[:] = path


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets, for tests marked `data`; they are skipped where $SPIKEDISTILL_DATA is unset."""
    root = os.environ.get("SPIKEDISTILL_DATA")
    if not root:
        pytest.skip("$SPIKEDISTILL_DATA is not set")
    return Path(root)
