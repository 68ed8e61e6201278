"""A loaded network takes images as people have them, and refuses what would be answered wrongly."""

import copy
import re

import numpy as np
import pytest
import torch
from PIL import Image
from quick_runs import quick
from safetensors.torch import load_file
from torch import nn

from spikedistill import LIF, create_model, load, temporal, train
from spikedistill.data import load_dataset
from spikedistill.data.images import read_image
from spikedistill.evaluation import AnytimeClassifier
from spikedistill.models import save_model
from spikedistill.run_folder import RunFolder
from spikedistill.trained import Trained

COLOURS = ("red", "green", "blue")


class Brightest(nn.Module):
    """Logits that can be worked out by hand: ten times the mean of each channel, at every timestep."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        return self.scale * x.mean((2, 3))


def saved(path, module=None, *, classes=COLOURS, timesteps=3, **taken):
    input = {"kind": "image", "channels": 3, "size": [4, 6]} | taken
    save_model(
        temporal(module or Brightest()), {"python": "x.Y"}, path, classes=classes, input=input, timesteps=timesteps
    )
    return load(path, model=module or Brightest())


@pytest.fixture
def model(tmp_path) -> Trained:
    return saved(tmp_path / "model.safetensors")


def plain(colour: str, height: int = 4, width: int = 6) -> np.ndarray:
    return np.array(
        Image.new("RGB", (width, height), {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}[colour])
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunFolder(train(quick("digits-twsd", out=tmp_path_factory.mktemp("run") / "run", epochs=4)))


def test_a_run_and_its_file_predict_as_the_evaluation_did(run):
    test, saved = load_dataset("digits").test, load_file(run.logits)
    probabilities = saved["logits"].double().mean(0).softmax(-1)
    for place in (run.path, run.model, str(run.model)):
        model = load(place)
        assert not model.training
        assert model.classes == tuple(map(str, range(10)))
        assert (model.input.kind, model.input.channels, model.input.size, model.timesteps) == ("image", 1, (8, 8), 3)
        out = model.predict(test.inputs(torch.arange(355)), batch_size=50)
        torch.testing.assert_close(out.probabilities, probabilities, atol=1e-5, rtol=1e-5)
        assert out.classes == tuple(str(label) for label in out.labels.tolist())
        assert torch.equal(out.labels, probabilities.argmax(-1))
        assert torch.equal(out.confidence, out.probabilities.amax(-1))
    first = saved["logits"][:1].double().mean(0).softmax(-1)
    torch.testing.assert_close(
        model.predict(test.inputs(torch.arange(355)), timesteps=1).probabilities, first, atol=1e-5, rtol=1e-5
    )


def test_every_form_of_an_image_is_the_same_image(model, tmp_path):
    colours = [plain(colour) for colour in COLOURS]
    files = []
    for name, pixels in zip(COLOURS, colours, strict=True):
        files.append(tmp_path / f"{name}.png")
        Image.fromarray(pixels).save(files[-1])
    stacked = np.stack(colours)
    forms = {
        "paths": files,
        "texts": [str(file) for file in files],
        "a generator": (file for file in files),
        "Pillow images": [Image.open(file) for file in files],
        "arrays [H, W, C]": colours,
        "arrays [C, H, W]": [pixels.transpose(2, 0, 1) for pixels in colours],
        "[N, H, W, C]": stacked,
        "[N, C, H, W]": stacked.transpose(0, 3, 1, 2),
        "from the end": stacked[:, ::-1],
        "a tensor of bytes": torch.from_numpy(stacked).permute(0, 3, 1, 2),
        "numbers": stacked / 255,
        "numbers in float16": torch.from_numpy(stacked / 255).half().permute(0, 3, 1, 2),
        "whole numbers": stacked.astype(np.int64),
        "a tensor of whole numbers": torch.from_numpy(stacked).long(),
        "of another byte order": (stacked / 255).astype(">f4"),
        "with an opaque alpha channel": np.concatenate([stacked, np.full((3, 4, 6, 1), 255, np.uint8)], -1),
        "of other kinds": (files[0], Image.open(files[1]), colours[2]),
    }
    for form, images in forms.items():
        out = model.predict(images)
        assert out.classes == COLOURS, form
        assert out.labels.tolist() == [0, 1, 2], form
    # the logits of a plain colour are 10, 0 and 0
    assert float(out.confidence[0]) == pytest.approx(np.exp(10) / (np.exp(10) + 2), rel=1e-6)
    assert model.predict(files[1]).classes == ("green",)
    assert torch.equal(model.preprocess(files[0]), torch.from_numpy(colours[0]).permute(2, 0, 1)[None] / 255)
    assert torch.equal(model.preprocess(forms["numbers"])[0], model.preprocess(files[0])[0])


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_files_and_bytes_are_resized_as_in_training(tmp_path, resize):
    model = saved(tmp_path / "model.safetensors", resize=resize)
    pixels = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    expected = read_image(tmp_path / "photo.png", (4, 6), 3, resize)[None] / 255
    for image in (tmp_path / "photo.png", pixels, pixels.transpose(2, 0, 1), Image.fromarray(pixels)):
        assert torch.equal(model.preprocess(image), expected)
    # and turned upright
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=turned)
    upright = read_image(tmp_path / "turned.png", (4, 6), 3, resize)[None] / 255
    assert torch.equal(model.preprocess(Image.open(tmp_path / "turned.png")), upright)
    assert not torch.equal(upright, expected)


def test_grey_and_colour_become_what_the_network_takes(tmp_path, model):
    grey = saved(tmp_path / "grey.safetensors", classes=["light"], channels=1)
    levels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    for form in (levels, levels[None], levels[..., None], levels[None, None], Image.fromarray(levels), levels / 255):
        assert torch.equal(grey.preprocess(form), torch.from_numpy(levels)[None, None] / 255)
        assert torch.equal(model.preprocess(form), torch.from_numpy(levels).expand(1, 3, 4, 6) / 255)
    several = np.stack([levels, levels, levels, levels, levels])
    assert grey.preprocess(several).shape == (5, 1, 4, 6)
    assert model.preprocess(several).shape == (5, 3, 4, 6)
    # 0.299 R + 0.587 G + 0.114 B
    colour = grey.preprocess([plain(name) for name in COLOURS])
    assert (colour[:, 0, 0, 0] * 255).tolist() == pytest.approx([76, 150, 29])
    assert torch.equal(colour, grey.preprocess([Image.fromarray(plain(name)) for name in COLOURS]))
    assert grey.preprocess(plain("red") / 255)[0, 0, 0, 0] == pytest.approx(0.299)
    with pytest.raises(ValueError, match=r"\[3, 4, 6\] is one colour image or 3 grey ones: give array\[None\] for one"):
        grey.preprocess(np.zeros((3, 4, 6), np.uint8))


def test_other_channels_are_arrays_of_the_network_s_size(tmp_path):
    model = saved(tmp_path / "five.safetensors", classes=[*"abcde"], channels=5)
    bands = np.zeros((2, 5, 4, 6), np.uint8)
    bands[0, 4] = bands[1, 2] = 255
    for form in (bands, bands.transpose(0, 2, 3, 1), torch.from_numpy(bands), bands / 255, list(bands)):
        assert model.predict(form).classes == ("e", "c")
    for wrong, said in (
        ("image.png", "is an image file, and this network takes 5 channels: expected arrays [5, 4, 6]"),
        (np.zeros((2, 3, 4, 6), np.uint8), "got an array [2, 3, 4, 6], expected [H, W, C] or [C, H, W], or"),
        (np.zeros((5, 8, 8), np.uint8), "got bytes of 8x8 pixels, and this network takes 5 channels"),
    ):
        (tmp_path / "image.png").write_bytes(b"")
        with pytest.raises(ValueError, match=re.escape(said)):
            model.predict(tmp_path / wrong if isinstance(wrong, str) else wrong)


def test_what_cannot_be_read_is_refused_in_one_line(model, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder").mkdir()
    cases = [
        (tmp_path / "gone.png", "gone.png does not exist: check the path"),
        ([tmp_path / "text.png", tmp_path / "text.png"], "sample 0: "),
        (tmp_path / "text.png", "is no readable image"),
        (tmp_path / "folder", "folder holds no file that ends in .jpg, .jpeg, .png"),
        ([tmp_path / "folder"], "is a folder: give its files, sorted(Path("),
        ([], "got no sample, expected paths, Pillow images, arrays of bytes"),
        (np.zeros((0, 4, 6, 3), np.uint8), "got no sample"),
        (7, "got a int, expected paths"),
        ({"a": 1}, "got a dict, expected paths"),
        ([[0.5]], "got a list, expected paths"),
        (np.full((4, 6, 3), 256), "got an array of whole numbers from 256 to 256, expected 0 to 255"),
        (np.zeros((4, 6, 3), np.uint16), "got an array of uint16, expected whole numbers 0 to 255 (uint8) or floating-point"),
        (np.zeros((4, 6, 3), bool), "got an array of bool"),
        (np.array(["a", "b"]), "got an array [2], expected [H, W, C] or [C, H, W], or [N, H, W, C]"),
        (np.zeros((3, 8, 3)), "may have its channels first or last"),
        (torch.zeros(2, 3, 8, 8), "sample 0: got numbers of 8x8 pixels, expected 4x6: give bytes (uint8)"),
        (np.full((4, 6, 3), 255.0), "got images from 255 to 255, expected numbers in [0, 1]: divide bytes by 255"),
        (np.full((4, 6, 3), np.nan), "got images with NaN or infinity, expected numbers in [0, 1]"),
        (np.full((4, 6, 3), np.inf), "got images with NaN or infinity, expected numbers in [0, 1]"),
        (np.full((2, 2, 4, 6), 0.5), "got an array [2, 2, 4, 6]"),
    ]  # fmt: skip
    for wrong, said in cases:
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            model.predict(wrong)
        assert said in str(error.value), said
        assert "\n" not in str(error.value)
    for timesteps, batch_size, said in (
        (0, 1, "timesteps is 0"),
        (None, 0, "batch_size is 0"),
        (2.5, 1, "timesteps is 2.5"),
    ):
        with pytest.raises(ValueError, match=said):
            model.predict(plain("red"), timesteps=timesteps, batch_size=batch_size)


def test_a_file_that_says_less_takes_tensors_and_says_what_is_missing(tmp_path):
    path, x = tmp_path / "bare.safetensors", torch.rand(2, 3, 4, 6)
    save_model(temporal(Brightest()), {"python": "x.Y"}, path)
    model = load(path, model=Brightest())
    assert (model.classes, model.input, model.timesteps) == (None, None, None)
    assert model(255 * x, timesteps=2).shape == (2, 2, 3), "which may take any numbers"
    with pytest.raises(ValueError, match="does not say what the network takes"):
        model.predict(x)
    model = saved(path, classes=None, timesteps=None)
    with pytest.raises(ValueError, match="for how many timesteps the network was trained: give timesteps=T"):
        model.predict(x)
    assert set(model.predict(x, timesteps=2).classes) <= {"0", "1", "2"}
    wrong = [{"size": size} for size in ([4], [0, 4], [10**6, 4], 1e400)]
    for taken in (*wrong, {"channels": 0}, {"kind": "sound"}, {"fill": [7]}):
        with pytest.raises(ValueError, match=r"bare\.safetensors: the input of a network"):
            saved(path, **taken)


FAR = {
    "bytes as numbers": (lambda x: 255 * x, "from 0 to 255, .*: divide bytes by 255"),
    "normalised": (
        lambda x: (x - 0.45) / 0.22,
        "give images that are not normalised, because the network does that itself",
    ),
    "from -1 to 1": (lambda x: 2 * x - 1, "from -1 to 1, .*: give images that are not normalised"),
    "bytes": (lambda x: (255 * x).byte(), "got images of torch.uint8, expected floating-point numbers"),
}


@pytest.mark.parametrize("far", FAR)
def test_images_outside_the_unit_interval_are_refused_wherever_they_come_in(model, far):
    made, said = FAR[far]
    x = torch.rand(2, 3, 4, 6)
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    entries = (
        lambda: model(made(x), timesteps=2),
        lambda: model(made(x).expand(3, -1, -1, -1, -1)),
        lambda: model.step(made(x)),
        lambda: AnytimeClassifier(model, "margin", 0.5, 2)(made(x).float()),
    )
    for entry in entries[: 3 if far == "bytes" else 4]:
        with pytest.raises(ValueError, match=f"{said}.*; model.checks_range = False takes them as they are"):
            entry()


def test_the_check_lets_through_what_is_near_and_what_is_not_for_it(model):
    x = torch.rand(2, 3, 4, 6)
    noisy = x + 0.1 * torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    assert model(noisy, timesteps=2).shape == (2, 2, 3)
    assert model(x[:0], timesteps=2).shape == (2, 0, 3)
    with pytest.raises(ValueError, match=r"expected numbers in \[0, 1\]"):
        copy.deepcopy(model)(255 * x, timesteps=2)
    assert model.train()(255 * x, timesteps=2).shape == (2, 2, 3), "training is its user's"
    model.eval().checks_range = False
    assert model(255 * x, timesteps=2).shape == (2, 2, 3)
    model.checks_range = True
    # not where only operations are followed
    per_sample = torch.func.vmap(lambda image: model(image[None], timesteps=2))
    assert per_sample(255 * x).shape == (2, 2, 1, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_calls_are_checked_until_one_passes(model):
    x = torch.rand(2, 3, 4, 6, device="cuda")
    for _ in range(2):
        with pytest.raises(ValueError, match="divide bytes by 255"):
            model.cuda()(255 * x, timesteps=2)
    assert model.predict(plain("green")).classes == ("green",)
    assert model(255 * x, timesteps=2).shape == (2, 2, 3)


def test_it_runs_step_by_step_as_any_network(run):
    model, images = load(run.path), load_dataset("digits").test.inputs(torch.arange(20)) / 255
    logits = model(images, timesteps=3)
    state, total = None, torch.zeros(20, 10)
    for _ in range(3):
        step, state = model.step(images, state)
        total += step.detach()
    torch.testing.assert_close(total / 3, logits.mean(0).detach(), atol=1e-5, rtol=1e-4)
    out = AnytimeClassifier(model, "stability", 3, 3)(images)
    assert torch.equal(out.predictions, logits.double().mean(0).argmax(-1))
    model.train()
    model.predict(images)
    assert model.training, "predict runs in eval mode and leaves the mode as it was"


class Polarity(nn.Module):
    """Logits: the mean count of each polarity at this timestep."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.neuron = LIF()

    def forward(self, x):
        return self.scale * x.mean((2, 3))


def test_event_recordings_are_files_or_counts(tmp_path):
    model = saved(tmp_path / "m.safetensors", Polarity(), classes=["off", "on"], kind="events", channels=2, size=[3, 5])
    counts = np.zeros((2, 3, 2, 3, 5), np.uint8)
    counts[0, :, 1], counts[1, 0, 0], counts[1, 1:, 1] = 7, 40, 9
    for k, recording in enumerate(counts):
        np.savez(tmp_path / f"{k}.npz", frames=recording)
    for form in (
        [tmp_path / "0.npz", tmp_path / "1.npz"], counts, torch.from_numpy(counts), list(counts), counts.astype(float),
    ):  # fmt: skip
        assert model.preprocess(form).shape == (3, 2, 2, 3, 5)
        assert model.predict(form).classes == ("on", "off")  # (0 + 0 + 0) / 3 < 7 and 40 / 3 > 18 / 3
    assert model.predict(counts[0]).classes == ("on",)
    assert model.predict(counts[1], timesteps=1).classes == ("off",)
    assert model(torch.from_numpy(counts).float().transpose(0, 1)).shape == (3, 2, 2), "counts are as they are"
    for wrong, said in (
        (counts.transpose(1, 0, 2, 3, 4), "which have T=3 first: call model(x) with them"),
        (counts[0, 0], "got event frames [2, 3, 5], expected [T, 2, 3, 5]"),
        ([counts[0], counts[1, :2]], "got recordings of 2, 3 frames, expected equally many"),
        (-counts[0].astype(int), "negative numbers"),
        (counts[:, :2], "got recordings of 2 frames, and the network was trained on 3: call model(x)"),
        (counts[:, [0, 0, 1, 1, 2, 2]], "if training did, frames.reshape(3, 2, 2, H, W).sum(1), or call model(x)"),
        (tmp_path / "gone.npz", "does not exist"),
        (Image.new("L", (5, 3)), "expected paths of .npz files, or counts of events [T, 2, H, W]"),
    ):
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            model.predict(wrong)
        assert said in str(error.value)
    with pytest.raises(ValueError, match="timesteps is 4, expected a whole number from 1 to 3, the frames"):
        model.predict(counts, timesteps=4)


def test_a_file_of_version_0_1_0_knows_its_images_from_its_network(tmp_path):
    import json

    from safetensors.torch import save_file

    spec = {"name": "convnet", "num_classes": 10, "in_channels": 1, "image_size": 8, "width": 0.1}
    for given, kind in ((spec | {"mean": [0.3], "std": [0.4]}, "image"), (spec | {"in_channels": 2}, None)):
        tensors = create_model(**given).module.state_dict()
        save_file(tensors, tmp_path / "old.safetensors", metadata={"spikedistill": json.dumps(given)})
        model = load(tmp_path / "old.safetensors")
        assert (model.input.kind if model.input else None) == kind
    with pytest.raises(FileNotFoundError, match="does not exist: train a model first"):
        load(tmp_path / "gone.safetensors")
