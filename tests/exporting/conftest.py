"""Trained runs that fire."""

from pathlib import Path

import pytest
import torch
from quick_runs import quick

from spikedistill import evaluate, train
from spikedistill.config import DataConfig


def trained(out: Path, hard: bool = False) -> Path:
    config = quick("digits-twce", out=out, epochs=12, data=DataConfig(name="digits", batch_size=60, train_samples=600))
    lif = config.model.lif.model_copy(update={"v_reset": 0.0 if hard else None})
    run = Path(train(config.model_copy(update={"model": config.model.model_copy(update={"lif": lif, "width": 0.5})})))
    assert evaluate(run)["last"]["ensemble"][-1]["accuracy"] > 0.8
    return run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with soft reset."""
    return trained(tmp_path_factory.mktemp("exporting") / "run")


@pytest.fixture(scope="session")
def hard_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with hard reset, which NIR can hold."""
    return trained(tmp_path_factory.mktemp("exporting") / "hard", hard=True)


@pytest.fixture
def quarters() -> torch.Tensor:
    return torch.randint(5, (40, 1, 10, 10), generator=torch.Generator().manual_seed(1)) / 4
