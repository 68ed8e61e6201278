"""What a network cannot take is refused in one line: what came, what is expected, what to do."""

import numpy as np
import pytest
import torch
from torch import nn

from spikedistill import LIF, lif, temporal
from spikedistill.through_time import CompiledStep

T, B = 3, 2


def network(**options):
    torch.manual_seed(0)
    return temporal(nn.Sequential(nn.Conv2d(1, 2, 3), LIF(), nn.Flatten(), nn.Linear(8, 3)), **options)


IMAGES = torch.rand(B, 1, 4, 4)
SEQUENCE = torch.rand(T, B, 1, 4, 4)
# an input that is no tensor, and what is said of it
NO_TENSORS = {
    "a dict": (
        {"image": IMAGES, "label": 1},
        "a dict with 'image', 'label', expected one tensor .*give the tensor in it",
    ),
    "a tuple": ((IMAGES, IMAGES), "a tuple of 2, expected one tensor .*give the tensor in it"),
    "a list": ([IMAGES], "a list of 1, expected one tensor"),
    "an array": (IMAGES.numpy(), r"a numpy\.ndarray, expected one tensor .*torch\.as_tensor"),
    "a number": (3.0, r"3\.0, expected one tensor"),
    "None": (None, "None, expected one tensor"),
    "a name": ("image.png", r"'image\.png', expected one tensor"),
    "a numpy number": (np.float32(1), r"a numpy\.float32, expected one tensor"),
}
DTYPES = {
    "bytes": ((IMAGES * 255).to(torch.uint8), r"torch\.uint8 .*x\.float\(\) / 255"),
    "float64": (IMAGES.double(), r"torch\.float64 and weights of torch\.float32: .*x\.to\(torch\.float32\)"),
    "float16": (IMAGES.half(), r"torch\.float16 and weights of torch\.float32: .*x\.to\(torch\.float32\)"),
    "int64": ((IMAGES * 9).long(), r"torch\.int64 and weights of torch\.float32"),
    "bool": (IMAGES > 0.5, r"torch\.bool and weights of torch\.float32"),
}
TIMESTEPS = {
    "a float": (3.0, r"timesteps is 3\.0, expected a whole number T"),
    "labels": (
        torch.tensor([1, 2]),
        r"timesteps is a tensor \[2\], expected a whole number T: the network takes one input",
    ),
    "one label": (torch.tensor(3), r"timesteps is a tensor \[\], expected a whole number T"),
    "images": (IMAGES, r"timesteps is a tensor \[2, 1, 4, 4\], expected a whole number T"),
    "True": (True, "timesteps is True, expected a whole number T"),
    "a name": ("4", "timesteps is '4', expected a whole number T"),
    "a list": ([4], "timesteps is a list, expected a whole number T"),
    "zero": (0, "timesteps is 0, expected 1 or more"),
}


def refuses(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NO_TENSORS)
def test_an_input_that_is_no_tensor(name):
    x, message = NO_TENSORS[name]
    model = network()
    for call in (lambda: model(x, T), lambda: model(x), lambda: model.eval().step(x), lambda: CompiledStep(model)(x)):
        refuses(call, f"the input is {message}")


@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate", "dsr"])
@pytest.mark.parametrize("name", DTYPES)
def test_an_input_of_another_dtype_than_the_weights(name, gradient):
    x, message = DTYPES[name]
    model = network(gradient=gradient)
    refuses(lambda: model(x, T), f"conv2d got values of {message}")
    with torch.no_grad():
        refuses(lambda: model(x.expand(T, *x.shape)), f"conv2d got values of {message}")
    refuses(lambda: model.eval().step(x), f"conv2d got values of {message}")


def test_other_layers_say_the_same_and_shapes_are_pytorchs_to_refuse():
    layers = {"batch_norm": nn.BatchNorm2d(1), "layer_norm": nn.LayerNorm(4), "linear": nn.Linear(4, 2)}
    for name, layer in layers.items():
        refuses(
            lambda layer=layer: temporal(layer)(IMAGES.double(), T), rf"{name} got values of torch\.float64 and weights"
        )
    refuses(
        lambda: temporal(nn.AvgPool2d(2))(DTYPES["bytes"][0], T),
        r"avg_pool2d got values of torch\.uint8: .*float\(\) / 255",
    )

    class Joins(nn.Module):
        def forward(self, x):
            return torch.cat([x, torch.zeros(B, 1, 9, 9, dtype=torch.float64)], 1)

    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        temporal(Joins())(IMAGES, T)


def test_a_compiled_step_says_the_same_of_another_dtype():
    refuses(lambda: CompiledStep(network().eval())(IMAGES.double()), r"conv2d got values of torch\.float64 .*x\.to")


@pytest.mark.parametrize("gradient", ["rate", "dsr"])
def test_a_sequence_of_integers_under_a_rule_of_means(gradient):
    refuses(
        lambda: network(gradient=gradient)((SEQUENCE * 255).to(torch.uint8)), r"sequence of torch\.uint8 .*x\.float\(\)"
    )


@pytest.mark.parametrize("name", TIMESTEPS)
def test_timesteps_that_are_none(name):
    timesteps, message = TIMESTEPS[name]
    refuses(lambda: network()(IMAGES, timesteps), message)


def test_timesteps_of_numpy_are_a_number():
    model = network()
    assert torch.equal(model(IMAGES, np.int64(T)), model(IMAGES, T))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (3, "the state is 3, expected the dict that the previous step returned"),
        (torch.zeros(2), r"the state is a tensor \[2\], expected the dict"),
        ([], "the state is a list, expected the dict"),
        ((IMAGES, {}), "the state is a tuple, expected the dict"),
    ],
)
def test_a_state_that_is_none(state, message):
    model = network().eval()
    for step in (model.step, CompiledStep(model)):
        refuses(lambda step=step: step(IMAGES, state), message)


def test_a_step_of_another_shape_or_a_whole_sequence():
    model = network(sample_axes="1, H, W").eval()
    for step in (model.step, CompiledStep(model)):
        for x in (SEQUENCE, IMAGES[0], torch.tensor(1.0), torch.rand(B, 3, 4, 4)):
            refuses(
                lambda step=step, x=x: step(x),
                r"step got an input \[.*\]; expected the input of one timestep, \[B, 1, H, W\]",
            )


@pytest.mark.parametrize("x", [IMAGES, SEQUENCE, IMAGES.double(), torch.zeros(0, 3)])
def test_neurons_on_a_plain_tensor(x):
    """A network without `temporal` would take its batch for time."""
    plain = nn.Sequential(nn.Identity(), LIF())
    refuses(
        lambda: plain(x), r"LIF got a tensor \[.*\], expected the signal .*temporal\(\.\.\.\), or call the function lif"
    )
    refuses(lambda: plain(x.numpy()), "LIF got a ndarray")
    if x.numel():
        assert lif(SEQUENCE).shape == SEQUENCE.shape


def test_neurons_on_the_mean_rate_of_a_signal():
    from spikedistill import mean_rate

    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = LIF()

        def forward(self, x):
            return self.lif(mean_rate(x))

    refuses(lambda: temporal(Branch())(IMAGES, T), r"LIF got a tensor \[2, 1, 4, 4\]")


@pytest.mark.parametrize("module", [torch.relu, "convnet", nn.Linear, None])
def test_what_is_no_module(module):
    refuses(lambda: temporal(module), r"temporal takes a torch\.nn\.Module, got a ")


class Words(nn.Module):
    """Integers to logits."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lif, self.head = nn.Embedding(7, 4, padding_idx=0), LIF(threshold=0.2), nn.Linear(4, 3)

    def forward(self, ids):
        return self.head(self.lif(self.embedding(ids)))


@pytest.mark.parametrize("shape", [(B,), (B, 5), (B, 2, 5)])
@pytest.mark.parametrize("gradient", ["bptt", "sltt", "rate", "dsr"])
def test_an_embedding_of_whole_numbers(shape, gradient):
    torch.manual_seed(0)
    words = Words()
    model = temporal(words, gradient=gradient)
    ids, sequence = torch.randint(7, shape), torch.randint(7, (T, *shape))
    expected = words.head(lif(words.embedding(ids.expand(T, *shape)), threshold=0.2))
    torch.testing.assert_close(model(ids, T), expected)
    model(ids, T).sum().backward()
    assert words.embedding.weight.grad.norm() > 0
    if gradient in ("rate", "dsr"):
        refuses(lambda: model(sequence), r"sequence of torch\.int64 .*use gradient='bptt' or 'sltt'")
    with torch.no_grad():
        expected, state = words.head(lif(words.embedding(sequence), threshold=0.2)), None
        torch.testing.assert_close(model(sequence), expected)
        for t in range(T):
            y, state = model.eval().step(sequence[t], state)
            torch.testing.assert_close(y, expected[t])
    refuses(
        lambda: model(ids.float(), T), r"embedding takes whole numbers, of int64 or int32; got values of torch\.float32"
    )
    if gradient == "bptt":
        torch.testing.assert_close(model(sequence), expected)
