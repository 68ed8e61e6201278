"""A model file says whether it is whole, and is never the reason for code to run or memory to be taken."""

import json
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import nn

from spikedistill import LIF, Bptt, Learned, temporal
from spikedistill.models import Normalize, create_model, load_model, load_weights, read_model, save_model
from spikedistill.models.files import _checksum
from spikedistill.through_time import Temporal

SPEC = {"name": "convnet", "num_classes": 10, "in_channels": 1, "image_size": 8, "width": 0.1}
KEY = "spikedistill"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    taken = {"kind": "image", "channels": 1, "size": [8, 8]}
    save_model(create_model(**SPEC), SPEC, path, classes=[str(n) for n in range(10)], input=taken, timesteps=4)
    return path


def described(path) -> dict:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"][KEY])


def rewritten(path, to, **changes):
    """The same file with other entries, its checksum left as it was."""
    save_file(load_file(path), to, metadata={KEY: json.dumps(described(path) | changes)})
    return to


def signed(path, to, entries):
    """The same tensors with these entries, and the checksum that fits them."""
    tensors = load_file(path)
    save_file(tensors, to, metadata={KEY: json.dumps({**entries, "sha256": _checksum(entries, tensors)})})
    return to


def entries_of(path) -> dict:
    return {name: value for name, value in described(path).items() if name != "sha256"}


def test_it_holds_network_classes_input_and_timesteps(saved):
    file = read_model(saved)
    assert file.network == SPEC
    assert file.classes == [str(n) for n in range(10)]
    assert file.input == {"kind": "image", "channels": 1, "size": [8, 8]}
    assert (file.timesteps, file.imports) == (4, [])
    assert described(saved)["schema"] == 3


def test_it_holds_nothing_of_how_the_network_was_trained(tmp_path):
    spec = SPEC | {"gradient": "rate", "segments": 2, "chunk": 1, "recompute": True, "surrogate": "arctan"}
    path = tmp_path / "model.safetensors"
    save_model(create_model(**spec, branches=True), spec | {"branches": True}, path)
    assert read_model(path).network == SPEC | {"surrogate": "arctan"}
    assert load_model(path).rule == Bptt()
    assert type(load_model(path)) is Temporal


def test_a_file_of_schema_2_still_loads_whatever_it_was_trained_with(saved, tmp_path):
    old = {"schema": 2, "network": SPEC | {"gradient": "rate", "segments": [1, 2]}, "classes": None, "input": None}
    path = signed(saved, tmp_path / "old.safetensors", old)
    assert (read_model(path).timesteps, read_model(path).imports) == (None, [])
    assert load_model(path).rule == Bptt()
    for ours, theirs in zip(load_model(saved).parameters(), load_model(path).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_tied_weights_are_written_under_both_names(tmp_path):
    layer = nn.Linear(3, 3)
    save_model(temporal(nn.Sequential(layer, LIF(), layer)), {"python": "my_nets.Tied"}, tmp_path / "tied.safetensors")
    assert load_file(tmp_path / "tied.safetensors").keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}


class Own(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), LIF(), nn.Linear(width, 10))

    def forward(self, x):
        return self.body(x)


def test_a_network_of_one_s_own_is_filled_and_never_imported(tmp_path):
    path, x = tmp_path / "own.safetensors", torch.rand(2, 1, 8, 8)
    model = temporal(Own())
    save_model(model, {"python": "my_nets.Own"}, path)
    with pytest.raises(
        ValueError, match=r"made in Python, my_nets\.Own: make it and pass it, load\(path, model=\.\.\.\)"
    ):
        load_model(path)
    for given in (Own(), temporal(Own())):
        loaded = load_model(path, model=given)
        assert not loaded.training
        assert torch.equal(loaded(x, timesteps=3), model(x, timesteps=3))
    with pytest.raises(ValueError, match=r"body\.1\.weight is \[4, 64\] there, expected \[5, 64\]"):
        load_model(path, model=Own(5))
    # behind the normalisation of its images
    normalised = nn.Sequential(OrderedDict(normalize=Normalize([0.3], [0.2]), network=Own()))
    save_model(temporal(normalised), {"python": "my_nets.Own"}, path)
    torch.testing.assert_close(load_model(path, model=Own())(x, timesteps=3), temporal(normalised)(x, timesteps=3))


def test_a_network_whose_name_is_not_registered_says_what_to_import(saved, tmp_path):
    entries = entries_of(saved)
    entries |= {"network": SPEC | {"name": "my_net"}, "imports": ["my_nets.py"]}
    path = signed(saved, tmp_path / "own.safetensors", entries)
    with pytest.raises(
        ValueError, match=r"needs names that are not registered \(.*'my_net'.*\): add --import my_nets\.py, import"
    ):
        load_model(path)
    assert load_model(path, model=create_model(**SPEC)).module.head.out_features == 10


@pytest.mark.parametrize(
    ("entry", "value", "expected"),
    [
        ("network", ["convnet"], "named arguments"),
        ("classes", "abcdefghij", "the name of each class"),
        ("classes", [1] * 10, "the name of each class"),
        ("classes", ["a", "b"], "the name of each class"),
        ("input", [1], "named values"),
        ("timesteps", 0, "a whole number from 1"),
        ("timesteps", True, "a whole number from 1"),
        ("timesteps", 10**9, "a whole number from 1"),
        ("imports", "my_nets.py", "names of files and modules"),
    ],
)
def test_an_entry_of_another_kind_is_named(saved, tmp_path, entry, value, expected):
    path = signed(saved, tmp_path / "model.safetensors", entries_of(saved) | {entry: value})
    with pytest.raises(ValueError, match=f"its entry '{entry}' is .*, expected {expected}"):
        load_model(path)


def test_one_flipped_bit_anywhere_is_found(saved, tmp_path):
    whole, path = saved.read_bytes(), tmp_path / "model.safetensors"
    for position in range(0, len(whole), max(1, len(whole) // 400)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            load_model(path)


def test_a_file_of_the_first_version_still_loads(saved, tmp_path):
    old = tmp_path / "old.safetensors"
    save_file(load_file(saved), old, metadata={KEY: json.dumps(SPEC)})
    assert read_model(old).classes is None
    for ours, theirs in zip(load_model(saved).parameters(), load_model(old).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_file_in_which_a_decay_is_learned_in_earlier_words_still_loads(tmp_path):
    model = create_model(**SPEC, decay="learned:0.7", v_init="learned")
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter += number / 100
    old = SPEC | {"decay": 0.7, "learn_decay": True, "v_init": "learned"}
    save_model(model, old, tmp_path / "old.safetensors")
    loaded = load_model(tmp_path / "old.safetensors")
    assert {name: p.tolist() for name, p in loaded.named_parameters()} == {
        name: p.tolist() for name, p in model.named_parameters()
    }
    assert not any(name.endswith("decay_logit") for name, _ in create_model(**SPEC, decay=0.7).named_parameters())
    save_model(
        create_model(**SPEC, decay=0.7), SPEC | {"decay": 0.7, "learn_decay": False}, tmp_path / "fixed.safetensors"
    )
    assert (
        load_model(tmp_path / "fixed.safetensors").module.state_dict().keys()
        == create_model(**SPEC).module.state_dict().keys()
    )


def test_what_is_learned_is_written_in_its_short_form(tmp_path):
    spec = SPEC | {"threshold": Learned(0.8, per="channel"), "decay": "learned"}
    save_model(create_model(**spec), spec, tmp_path / "model.safetensors")
    assert read_model(tmp_path / "model.safetensors").network["threshold"] == "learned_per_channel:0.8"
    thresholds = [
        p for name, p in load_model(tmp_path / "model.safetensors").named_parameters() if "log_threshold" in name
    ]
    assert len({p.numel() for p in thresholds}) > 1, "channels differ from layer to layer"
    assert all(p.exp().tolist() == pytest.approx([0.8] * p.numel()) for p in thresholds)


@pytest.mark.parametrize(
    "spec",
    [
        {**SPEC, "width": 1e9},
        {**SPEC, "num_classes": 10**9},
        {**SPEC, "image_size": 10**6},
        {**SPEC, "name": ["convnet"]},
        {**SPEC, "name": {"a": 1}},
        {**SPEC, "width": "wide"},
        {**SPEC, "num_classes": None},
        {**SPEC, "unheard_of": 1},
        {**SPEC, "learn_decay": True, "decay": "fast"},
        {**SPEC, "threshold": "learned:"},
        ["convnet"],
        {},
        {"name": "convnet"},
        {**SPEC, "norm": "timestep_batch", "norm_timesteps": 10**8},
        {**SPEC, "mean": [[1]], "std": "x"},
    ],
)
def test_a_description_of_another_network_is_refused_before_memory_is_taken(saved, tmp_path, spec):
    path = tmp_path / "model.safetensors"
    save_file(load_file(saved), path, metadata={KEY: json.dumps(spec)})
    with pytest.raises(ValueError, match=r"."):
        load_model(path)


def test_entries_that_were_changed_or_are_of_a_newer_version_are_refused(saved, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="its checksum does not fit"):
        load_model(rewritten(saved, path, classes=["one", *"23456789", "ten"]))
    with pytest.raises(ValueError, match="schema 4, and this version reads up to 3"):
        load_model(rewritten(saved, path, schema=4))
    save_file(load_file(saved), path, metadata={KEY: "[1, 2]"})
    with pytest.raises(ValueError, match="holds a list"):
        load_model(path)


def test_a_pickle_by_that_name_is_not_opened(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Payload()))
    torch.save(Payload(), tmp_path / "torch.safetensors")
    for file in (path, tmp_path / "torch.safetensors"):
        with pytest.raises(ValueError, match="no complete safetensors file"):
            load_model(file)
        with pytest.raises(ValueError, match="no complete safetensors file"):
            load_weights(create_model(**SPEC), file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", ["weight", "running_var", "running_mean", "bias"])
def test_a_tensor_that_is_not_finite_is_named(tmp_path, kind, value):
    model, path = create_model(**SPEC), tmp_path / "model.safetensors"
    name, tensor = next((name, tensor) for name, tensor in model.module.state_dict().items() if name.endswith(kind))
    tensor.view(-1)[-1] = value
    save_model(model, SPEC, path)
    with pytest.raises(ValueError, match=rf"holds 1 of {tensor.numel()} numbers in {name} that are NaN or infinite"):
        load_model(path)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(save(dict(model.module.state_dict())))
    with pytest.raises(ValueError, match=f"in {name} that are NaN or infinite"):
        load_weights(create_model(**SPEC), weights)


def test_neurons_and_surrogates_that_are_not_registered_say_what_to_import_too(saved, tmp_path):
    for changes in ({"neuron": "my_neuron"}, {"surrogate": "my_surrogate"}):
        entries = entries_of(saved) | {"network": SPEC | changes, "imports": ["a.py", "package.b"]}
        path = signed(saved, tmp_path / "own.safetensors", entries)
        with pytest.raises(ValueError, match=r"needs names .*'my_.*add --import a\.py --import package\.b, import"):
            load_model(path)
