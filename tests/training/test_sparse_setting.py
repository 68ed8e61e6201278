"""`--trainer.sparse` and `evaluate --sparse` reach the layers, and the line before a run says what was chosen."""

import pytest
from quick_runs import quick

from spikedistill import train
from spikedistill.cli import main
from spikedistill.config import TrainerConfig
from spikedistill.run_folder import RunFolder
from spikedistill.sparse import choice, kernels
from spikedistill.training.estimate import estimate_line
from spikedistill.training.plan import make_plan

pytestmark = pytest.mark.skipif(not kernels.available(), reason="needs a C++ compiler")


@pytest.fixture
def calls(monkeypatch):
    """The functions on spikes that are called."""
    made = []
    for name in ("forward", "forward_and_fire", "weight_gradient"):
        function = getattr(kernels, name)
        monkeypatch.setattr(
            kernels,
            name,
            lambda *given, name=name, function=function, **options: made.append(name) or function(*given, **options),
        )
    return made


@pytest.mark.parametrize("mode", ["always", "never"])
def test_in_training_and_evaluation(mode, calls, tmp_path, capsys):
    # digits of 8x8 are so small that neurons take the eager path, which holds no bits; event frames and larger images do not
    config = quick("digits-sce", out=tmp_path, trainer=TrainerConfig(accelerator="cpu", progress=False, sparse=mode))
    config = config.model_copy(update={"model": config.model.model_copy(update={"width": 1.0})})
    run = train(config)
    assert bool(calls) == (mode == "always")
    assert ("weight_gradient" in calls) == (mode == "always")
    assert RunFolder(run).config().trainer.sparse == mode
    calls.clear()
    for asked in ("always", "never"):
        assert main(["evaluate", str(run), "--sparse", asked]) == 0
        assert bool(calls) == (asked == "always")
        calls.clear()
    assert "report:" in capsys.readouterr().out


def test_the_line_before_a_run_says_what_was_chosen(monkeypatch):
    monkeypatch.setattr(choice, "SMALLEST", 1)
    config = quick("digits-sce", epochs=40)
    config = config.model_copy(update={"model": config.model.model_copy(update={"width": 1.0})})
    line = estimate_line(make_plan(config))
    assert line.splitlines()[0].startswith("about ")
    assert line.splitlines()[1].startswith("layers on spikes by their sizes: ")
    never = config.model_copy(update={"trainer": config.trainer.model_copy(update={"sparse": "never"})})
    assert "\n" not in estimate_line(make_plan(never))
