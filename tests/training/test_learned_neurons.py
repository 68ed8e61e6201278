"""Runs whose neurons learn, from the command line to the network that is loaded."""

import pytest

from spikedistill import LIF, load
from spikedistill.cli import main

SMALL = (
    "--epochs 1 --timesteps 2 --model.width 0.25 --data.train-samples 240 --data.batch-size 60 --trainer.no-progress"
)


@pytest.mark.parametrize(
    ("recipe", "flags", "learned"),
    [
        ("digits-sce", "--model.lif.threshold learned:0.8 --model.lif.decay learned", {"log_threshold", "decay_logit"}),
        (
            "digits-rate",
            "--model.lif.threshold learned_per_channel --model.lif.v-init learned",
            {"log_threshold", "v_init"},
        ),
        ("digits-dsr", "--model.lif.threshold learned", {"log_threshold"}),
    ],
)
def test_a_run_learns_what_it_is_told_to_and_its_network_is_loaded(recipe, flags, learned, tmp_path):
    before = LIF(threshold="learned:0.8").log_threshold.item() if "0.8" in flags else 0.0
    assert main(["train", recipe, "--out", str(tmp_path / "run"), *SMALL.split(), *flags.split()]) == 0
    found = {name: p for name, p in load(tmp_path / "run").named_parameters() if name.rpartition(".")[2] in learned}
    assert len(found) == 3 * len(learned), "three layers of neurons"
    for name, parameter in found.items():
        start = before if name.endswith("log_threshold") else 0.0
        assert parameter.ndim == ("per_channel" in flags)
        assert (parameter != start).any(), f"{name} was not trained"


def test_dsr_refuses_a_learned_decay_by_name(tmp_path, capsys):
    assert main(["train", "digits-dsr", "--out", str(tmp_path / "run"), "--model.lif.decay", "learned"]) == 2
    said = capsys.readouterr().err
    assert "one decay that is not learned; got LIF(decay=learned" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
