"""SpikingJelly's own networks and ours with their weights, on the same inputs."""

import sys
import types

import pytest
import torch

pytest.importorskip("spikingjelly")
pytest.importorskip("h5py", reason="SpikingJelly's models import it")
pytest.importorskip("safetensors", reason="our models import it")

from spikedistill import create_model
from spikedistill.models import load_spikingjelly

pytestmark = pytest.mark.filterwarnings("ignore")
T, B = 3, 2


@pytest.fixture(scope="module")
def spikingjelly():
    """Their modules. They import torchvision for nothing but its download function, which nobody calls here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("torchvision", "torchvision.models", "torchvision.models.utils"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["torchvision.models.utils"].load_state_dict_from_url = None
        from spikingjelly.activation_based import functional, neuron
        from spikingjelly.activation_based.model import sew_resnet, spiking_resnet
    return types.SimpleNamespace(
        functional=functional,
        neuron=neuron,
        networks={
            "sew_resnet18": lambda **kw: sew_resnet.sew_resnet18(cnf="ADD", num_classes=7, **kw),
            "sew_resnet34": lambda **kw: sew_resnet.sew_resnet34(cnf="ADD", num_classes=7, **kw),
            "spiking_resnet18": lambda **kw: spiking_resnet.spiking_resnet18(num_classes=7, **kw),
            "spiking_resnet34": lambda **kw: spiking_resnet.spiking_resnet34(num_classes=7, **kw),
        },
    )


# Their neuron and ours.
NEURONS = {
    "IFNode": ({}, {"decay": 1.0, "v_reset": 0.0}),
    "LIFNode": ({"tau": 4.0, "v_threshold": 0.5}, {"decay": 0.75, "threshold": 2.0, "v_reset": 0.0}),
    # its membrane starts, leaks and is reset to 0.25: four times the distance of 0.25 to 0.75
    "LIFNode with v_reset": (
        {"tau": 4.0, "v_threshold": 0.75, "v_reset": 0.25},
        {"decay": 0.75, "threshold": 2.0, "v_reset": 0.0},
    ),
    "LIFNode without decay_input": (
        {"tau": 2.0, "decay_input": False, "v_reset": None},
        {"decay": 0.5, "v_reset": None},
    ),
}


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("name", ["sew_resnet18", "sew_resnet34", "spiking_resnet18", "spiking_resnet34"])
def test_their_network_and_ours_with_its_weights_give_the_same_logits(spikingjelly, name, neuron):
    torch.manual_seed(0)
    theirs_options, our_options = NEURONS[neuron]
    spiking_neuron = getattr(spikingjelly.neuron, neuron.split()[0])
    theirs = spikingjelly.networks[name](spiking_neuron=spiking_neuron, **theirs_options).double()
    with torch.no_grad():
        for key, tensor in theirs.state_dict().items():
            if key.endswith("running_mean"):
                tensor.normal_()
            elif key.endswith(("running_var", "bn1.weight", "bn2.weight")):
                tensor.uniform_(0.5, 1.5)
            elif key.endswith("bias"):
                tensor.uniform_(0.0, 2.0)  # so that the last layers fire
    spikingjelly.functional.set_step_mode(theirs, "m")
    x = torch.randn(T, B, 3, 64, 64, dtype=torch.float64)
    ours = create_model(name, num_classes=7, **our_options).double()
    load_spikingjelly(ours, theirs.state_dict())
    with torch.no_grad():
        expected = theirs.eval()(x)
        logits = ours.eval()(x)
    torch.testing.assert_close(logits, expected, rtol=1e-8, atol=1e-8)
    # deep in the network there are still spikes, and not the same ones for all samples and timesteps
    deviation = logits.flatten(0, 1).std(0)
    assert (deviation > 1e-3).all()


def test_their_learned_decay_is_refused_by_name(spikingjelly):
    theirs = spikingjelly.networks["sew_resnet18"](spiking_neuron=spikingjelly.neuron.ParametricLIFNode)
    ours = create_model("sew_resnet18", num_classes=7, decay="learned")
    with pytest.raises(ValueError, match=r"20 missing \(stem.1.decay_logit, .*; 20 unknown to this network \(sn1.w, "):
        load_spikingjelly(ours, theirs.state_dict())


def test_training_starts_from_a_file_of_their_weights(spikingjelly, tmp_path):
    from safetensors.torch import save_file

    from spikedistill.models import read_weights, starting_weights

    file, spec = tmp_path / "theirs.safetensors", {"name": "sew_resnet18", "mean": [0.5] * 3, "std": [0.2] * 3}
    theirs = spikingjelly.networks["sew_resnet18"](spiking_neuron=spikingjelly.neuron.IFNode).state_dict()
    save_file(theirs, file)
    copied, started = create_model(**spec, num_classes=7), create_model(**spec, num_classes=3)
    load_spikingjelly(copied, theirs)
    spec, classes = spec | {"num_classes": 3}, ["a", "b", "c"]
    taken, said = starting_weights(started, read_weights(file), file, spec=spec, classes=classes)
    expected = copied.module.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in taken.items())
    assert expected.keys() - taken.keys() == {
        *("normalize.mean", "normalize.std", "network.head.weight", "network.head.bias"),
    }
    assert "head.bias, head.weight start anew (3 classes here)" in said
