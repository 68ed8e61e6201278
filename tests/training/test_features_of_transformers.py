"""Features of a spiking transformer's stages learn from those of its ANN twin, like those of convolutional networks."""

import csv
import math

import pytest
from quick_runs import quick

from spikedistill import train
from spikedistill.run_folder import RunFolder
from spikedistill.training.plan import make_plan


@pytest.mark.parametrize("name", ["sdt", "qkformer"])
def test_the_stages_learn_from_those_of_the_twin(name, tmp_path):
    def small(method, **changes):
        config = quick(f"digits-{method}", **changes)
        neuron = {"threshold": 0.5} if method != "ann" else {}
        lif = config.model.lif.model_copy(update=neuron)
        model = config.model.model_copy(update={"name": name, "width": 0.125, "lif": lif})
        return config.model_copy(update={"model": model})

    teacher = train(small("ann", out=tmp_path / "ann"))
    config = small("kdsnn", out=tmp_path / "run", teacher=teacher)
    assert make_plan(config).layers
    run = RunFolder(train(config))
    with run.metrics.open() as file:
        (row,) = csv.DictReader(file)
    terms = {key: float(value) for key, value in row.items() if key.startswith("loss/")}
    assert len(terms) == 3, "labels, logits and features"
    assert all(math.isfinite(value) and value > 0 for value in terms.values()), terms
