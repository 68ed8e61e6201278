"""Settings of a user's own data follow its size; official data sets, papers' settings and repeats do not change."""

import numpy as np
import pytest
from PIL import Image

from spikedistill.cli import main
from spikedistill.recipes import recipe
from spikedistill.recipes.settings import from_words, variant
from spikedistill.recipes.small_data import settings_for, sized_line, sized_to_data
from spikedistill.run_folder import RunFolder


@pytest.fixture
def photos(tmp_path):
    """A root of 40 images of two classes to train on and 4 to test on, 12 x 9 pixels."""
    noise = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(noise.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("samples", "side", "network", "epochs", "batch", "lr"),
    [
        (10, 32, "convnet", 100, 8, 0.0125),
        (120, 32, "convnet", 100, 8, 0.0125),  # 15 steps: 1500 are 100 epochs
        (600, 32, "convnet", 79, 32, 0.05),  # 19 steps
        (1_500, 64, "convnet", 62, 64, 0.1),  # 24 steps
        (19_999, 32, "convnet", 20, 128, 0.1),  # 157 steps
        (120, 65, "spiking_resnet18", 100, 8, 0.0125),
        (20_000, 32, "resnet18", 60, 128, 0.1),
        (50_000, 128, "spiking_resnet18", 60, 128, 0.1),
        (200_000, 32, "resnet18", 100, 512, 0.2),
        (1_281_167, 224, "resnet34", 100, 512, 0.2),
    ],
)
def test_the_rule_by_hand(samples, side, network, epochs, batch, lr):
    found = settings_for(samples, side)
    keys = ("model.name", "epochs", "data.batch_size", "optimizer.lr")
    assert [found[key] for key in keys] == [network, epochs, batch, pytest.approx(lr)]
    assert "data.size" not in found
    assert ("model.width" in found) == (network == "spiking_resnet18" and samples < 20_000)


def test_very_large_folders_are_trained_as_imagenet():
    assert settings_for(200_000, 32, resizable=True) == {
        "model.name": "resnet34",
        "epochs": 100,
        "data.batch_size": 512,
        "optimizer.lr": 0.2,
        "optimizer.weight_decay": 2e-5,
        "data.size": 224,
    }
    assert "data.size" not in settings_for(199_999, 32, resizable=True)


def test_few_images_are_trained_with_a_small_network_and_small_batches(photos):
    words = ["--data.root", str(photos)]
    config = from_words("image_folder-esd", words)
    found = config.model.name, config.epochs, config.data.batch_size, config.optimizer.lr
    assert found == ("convnet", 100, 8, 0.0125)
    assert config == variant("image_folder-esd", words), "also in a comparison"
    given = from_words("image_folder-esd", [*words, "--epochs", "7", "--model.name", "resnet18"])
    assert (given.model.name, given.epochs, given.data.batch_size) == ("resnet18", 7, 8), (
        "every value can be overridden"
    )
    assert given.objective == from_words("image_folder-esd", ["--model.name", "resnet18"]).objective
    said = "chosen by the size of the data: --data.batch-size 8 --optimizer.lr 0.0125"
    assert sized_line(given) == said


def test_the_samples_that_are_trained_on_count(photos):
    words = ["--data.root", str(photos), "--data.train-samples", "16", "--data.size", "96"]
    config = from_words("image_folder-sce", words)
    assert (config.model.name, config.model.width, config.epochs) == ("spiking_resnet18", 0.5, 100)


def test_what_a_recipe_has_chosen_itself_stays(photos):
    own = recipe("image_folder-sce").model_copy(update={"epochs": 3})
    data = own.data.model_copy(update={"root": photos})
    sized = sized_to_data(own.model_copy(update={"data": data}))
    assert (sized.epochs, sized.data.batch_size) == (3, 8)


@pytest.mark.parametrize(
    ("name", "more"),
    [("digits-sce", []), ("cifar10-sce", []), ("image_folder-sce", []), ("image_folder-twsd", ["--protocol", "twkd"])],
)
def test_official_data_sets_papers_and_data_that_are_not_there_keep_their_settings(name, more, photos):
    root = photos if more else photos / "nowhere"
    config = from_words(name, ["--data.root", str(root), *more])
    expected = recipe(name, *more[1:])
    assert config == expected.model_copy(update={"data": expected.data.model_copy(update={"root": root})})
    assert sized_line(config) is None


def test_a_run_says_what_was_chosen_and_repeats_it_from_its_file(photos, tmp_path, capsys):
    words = ["--data.root", str(photos), "--epochs", "1", "--timesteps", "2", "--trainer.accelerator", "cpu"]
    assert main(["train", "image_folder-sce", *words, "--out", str(tmp_path / "run")]) == 0
    said = "chosen by the size of the data: --model.name convnet --data.batch-size 8 --optimizer.lr 0.0125"
    assert capsys.readouterr().out.splitlines()[0] == said
    run = RunFolder(tmp_path / "run")
    for number in range(600):  # of another size by now, which a repeat does not look at
        (photos / "train" / "cat" / f"more{number}.png").write_bytes((photos / "train" / "cat" / "0.png").read_bytes())
    assert from_words(str(run.config_file), []).data.batch_size == 8
    assert from_words("image_folder-sce", words).data.batch_size == 32


def test_event_frames_are_trained_on_all_their_frames(tmp_path):
    for part in ("train", "test"):
        for name in ("left", "right"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(2):
                np.savez(tmp_path / part / name / f"{number}.npz", frames=np.ones((6, 2, 4, 5), np.uint8))
        np.savez(tmp_path / f"{part}.npz", x=np.ones((4, 6, 2, 4, 5), np.uint8), y=[0, 1, 0, 1])
    for name in ("event_frames", "arrays"):
        words = ["--data.root", str(tmp_path)]
        assert from_words(f"{name}-sce", words).timesteps == 6
        assert from_words(f"{name}-sce", [*words, "--timesteps", "3"]).timesteps == 3
        assert from_words(f"{name}-ann", words).timesteps == 1, "an ANN sees the sum of all frames"
    assert "--timesteps 6" in sized_line(from_words("event_frames-sce", words))
