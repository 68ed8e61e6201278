"""`--init-from`: training starts from the weights of a file, and says which it took and which it did not."""

import re

import pytest
import torch
from quick_runs import assert_resumes_to_the_same_bytes, quick, stopped
from safetensors.torch import load_file, save_file
from torch import nn

from spikedistill import create_model, load, temporal, train
from spikedistill.models import read_weights, save_model, starting_weights
from spikedistill.run_folder import RunFolder
from spikedistill.training.plan import make_plan

TEN = [str(k) for k in range(10)]
SPEC = {"name": "convnet", "num_classes": 10, "in_channels": 1, "image_size": 8, "width": 0.25}
IMAGES = SPEC | {"mean": [0.3], "std": [0.4]}


def moved(spec, seed=1):
    """A network whose weights and statistics are unlike those of a new one."""
    torch.manual_seed(seed)
    network = create_model(**spec)
    with torch.no_grad():
        for name, tensor in network.module.state_dict().items():
            if tensor.is_floating_point() and not name.startswith("normalize."):
                tensor.add_(torch.rand_like(tensor))
    return network


def start(tmp_path, theirs, ours, *, classes=TEN, here=TEN):
    save_model(moved(theirs), theirs, tmp_path / "start.safetensors", classes=classes)
    path = tmp_path / "start.safetensors"
    return starting_weights(create_model(**ours), read_weights(path), path, spec=ours, classes=here)


def bare(state):
    return {name.removeprefix("network."): tensor for name, tensor in state.items() if "normalize" not in name}


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    return RunFolder(train(quick("digits-ann", out=tmp_path_factory.mktemp("ann") / "run")))


def test_an_ann_s_run_starts_its_spiking_twin(ann, tmp_path, capsys):
    config = quick("digits-twsd", out=tmp_path / "snn", init_from=ann.path)
    found, taught = make_plan(config).build_network(), ann.load_network(ann.model)
    assert any(isinstance(module, nn.ReLU) for module in taught.modules())
    assert bare(found.module.state_dict()).keys() == bare(taught.module.state_dict()).keys()
    for name, tensor in found.module.state_dict().items():
        assert torch.equal(tensor, taught.module.state_dict()[name]), name
    run = RunFolder(train(config))
    said = capsys.readouterr().out
    assert f"training starts from the weights of {ann.path} (" in said
    assert "images are normalised by the mean and std of this data set" in said
    assert "anew" not in said
    assert run.config().init_from == ann.path
    assert load(run.path).module.state_dict().keys() == taught.module.state_dict().keys()


def test_the_run_goes_on_from_its_checkpoint_and_notices_another_file(ann, tmp_path, monkeypatch):
    file = tmp_path / "start.safetensors"
    file.write_bytes(ann.model.read_bytes())
    assert_resumes_to_the_same_bytes(quick("digits-sce", out=tmp_path / "runs", init_from=file), monkeypatch)
    config = quick("digits-sce", out=tmp_path / "run", epochs=2, resume="auto", init_from=file)
    stopped(config, monkeypatch, epoch=1, step=0)
    with pytest.raises(ValueError, match=r"init_from was '.*start\.safetensors' and is now None"):
        train(config.model_copy(update={"init_from": None}))
    save_file({name: tensor + 1 for name, tensor in load_file(ann.model).items()}, file)
    with pytest.raises(ValueError, match="cannot go on, because the file of --init-from changed since it was begun"):
        train(config)


def test_other_classes_start_the_classifier_anew(tmp_path):
    ours = IMAGES | {"num_classes": 3}
    taken, said = start(tmp_path, IMAGES, ours, here=["a", "b", "c"])
    torch.manual_seed(0)
    assert bare(create_model(**ours).module.state_dict()).keys() - bare(taken).keys() == {"head.weight", "head.bias"}
    assert "head.bias, head.weight start anew (10 classes there, 3 here)" in said
    # as many classes with other names are other classes, and a file without names is taken at its word
    assert "network.head.weight" not in start(tmp_path, IMAGES, IMAGES, here=[*"abcdefghij"]).tensors
    assert "network.head.weight" in start(tmp_path, IMAGES, IMAGES, classes=None, here=[*"abcdefghij"]).tensors
    assert "network.head.weight" in start(tmp_path, IMAGES, IMAGES).tensors


def test_the_normalisation_stays_that_of_the_data_set(tmp_path):
    taken, said = start(tmp_path, IMAGES | {"mean": [0.9]}, IMAGES)
    assert not any(name.startswith("normalize.") for name in taken)
    assert "images are normalised by the mean and std of this data set" in said
    # to and from networks that normalise nothing, as those of events
    events = SPEC | {"num_classes": 10}
    assert start(tmp_path, IMAGES, events).tensors.keys() == create_model(**events).module.state_dict().keys()
    assert all(name.startswith("network.") for name in start(tmp_path, events, IMAGES).tensors)


def test_parameters_of_neurons_that_a_file_lacks_start_at_their_values_and_are_named(tmp_path):
    ours = SPEC | {"decay": "learned:0.7"}
    taken, said = start(tmp_path, SPEC | {"neuron": "relu"}, ours)
    assert not any("decay_logit" in name for name in taken)
    assert re.search(r"features\.1\.decay_logit, features\.3\.decay_logit, .* start anew", said)
    assert any("decay_logit" in name for name in start(tmp_path, ours, ours).tensors)
    with pytest.raises(
        ValueError, match=r"the first difference is features\.1\.decay_logit, a number there and missing here"
    ):
        start(tmp_path, ours, SPEC)


def test_statistics_of_all_timesteps_become_those_of_each_and_not_the_other_way(tmp_path):
    each = SPEC | {"norm": "timestep_batch", "norm_timesteps": 3}
    taken = start(tmp_path, SPEC, each).tensors
    theirs = moved(SPEC).module.state_dict()
    for kind in ("running_mean", "running_var"):
        assert torch.equal(taken[f"features.0.1.{kind}"], theirs[f"features.0.1.{kind}"].expand(3, -1))
    # more timesteps repeat the last, as in evaluation
    longer = start(tmp_path, each, each | {"norm_timesteps": 5}).tensors["features.0.1.running_mean"]
    rows = moved(each).module.state_dict()["features.0.1.running_mean"]
    assert torch.equal(longer, rows[[0, 1, 2, 2, 2]])
    with pytest.raises(ValueError, match="norm is 'timestep_batch' there and 'batch' here; the first difference is"):
        start(tmp_path, each, SPEC | {"norm": "batch"})


def test_a_network_from_python_is_named(tmp_path):
    path = tmp_path / "own.safetensors"
    save_model(temporal(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), {"python": "my_nets.Net"}, path)
    with pytest.raises(
        ValueError, match=r"does not fit this network: it holds my_nets\.Net, which was made in Python; the first"
    ):
        starting_weights(create_model(**SPEC), read_weights(path), path, spec=SPEC, classes=TEN)
    own = temporal(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    with pytest.raises(ValueError, match="holds only a classifier of other classes, so no weight fits this network"):
        starting_weights(own, read_weights(path), path, spec={"python": "other.Net"}, classes=["a", "b", "c"])


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (
            {"name": "resnet18"},
            r"name is 'resnet18' there and 'convnet' here; the first difference is features\.0\.0\.weight",
        ),
        ({"width": 0.5}, r"width is 0\.5 there and 0\.25 here; .* \[8, 1, 3, 3\] there and \[4, 1, 3, 3\] here"),
        ({"in_channels": 3}, "in_channels is 3 there and 1 here"),
        ({"image_size": 16}, "image_size is 16 there and 8 here; the first difference is head"),
    ],
)
def test_another_network_is_refused_by_its_first_difference(tmp_path, theirs, said):
    with pytest.raises(ValueError, match=f"does not fit this network: {said}"):
        start(tmp_path, SPEC | theirs, SPEC)


def test_a_plain_file_with_our_names_or_those_of_spikingjelly_is_taken(tmp_path):
    path, spec = tmp_path / "plain.safetensors", {"name": "sew_resnet18", "num_classes": 10, "width": 0.05}
    state = moved(spec).module.state_dict()
    ours = spec | {"mean": [0.1] * 3, "std": [1.0] * 3}
    theirs = {
        name.replace("stem.0.0", "conv1").replace("stem.0.1", "bn1").replace("stages.", "layer").replace("head", "fc")
        .replace("body.0.0", "conv1").replace("body.0.1", "bn1").replace("body.2.0", "conv2").replace("body.2.1", "bn2")
        .replace("shortcut", "downsample"): tensor
        for name, tensor in state.items()
    }  # fmt: skip
    theirs = {re.sub(r"layer(\d)", lambda found: f"layer{int(found[1]) + 1}", name): t for name, t in theirs.items()}
    assert "layer4.0.downsample.0.weight" in theirs
    for tensors in (state, theirs):
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
        taken = starting_weights(create_model(**ours), read_weights(path), path, spec=ours, classes=TEN).tensors
        assert {name.removeprefix("network."): t.sum() for name, t in taken.items()} == {
            n: t.sum() for n, t in state.items()
        }
    state["head.weight"][0, 0] = torch.nan
    save_file(state, path)
    with pytest.raises(ValueError, match=r"1 of \d+ numbers in head\.weight that are NaN"):
        starting_weights(create_model(**ours), read_weights(path), path, spec=ours, classes=TEN)


def test_what_is_no_start_is_refused(ann, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"PK")
    (tmp_path / "empty").mkdir()
    for init_from, error, said in (
        (tmp_path / "gone", FileNotFoundError, "does not exist: expected a run folder or a .safetensors file"),
        (tmp_path / "weights.pth", ValueError, "is no safetensors file: .* writes one from a state dict of PyTorch"),
        (tmp_path / "empty", FileNotFoundError, "holds no config.yaml"),
        (tmp_path / "own", ValueError, "is the folder that this run writes to: choose another --out"),
    ):
        with pytest.raises(error, match=said):
            make_plan(quick("digits-sce", out=tmp_path / "own", init_from=init_from))
    with pytest.raises(ValueError, match="singular vectors that both networks share: omit --init-from"):
        make_plan(quick("digits-joint-asnn-unofficial", out=tmp_path / "own", init_from=ann.path))
