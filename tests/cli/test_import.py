"""`--import`, registries and what a run says of names that it needs."""

import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import spikedistill
from spikedistill import UserError, cli, load, register_dataset, register_model, register_objective, register_recipe
from spikedistill.config import Config
from spikedistill.imports import import_user, needing, to_import
from spikedistill.models import MODELS, Normalize, create_model
from spikedistill.registry import Registry, UnknownName, origin_of

NET = """
from pathlib import Path
from torch import nn
from spikedistill import LIF, register_model

seen = Path("imported")
seen.write_text("x" + (seen.read_text() if seen.exists() else ""))

@register_model
class SmallNet(nn.Sequential):
    '''A small network.'''
    def __init__(self, num_classes, in_channels, hidden: int = 4):
        super().__init__(nn.Conv2d(in_channels, hidden, 3), nn.BatchNorm2d(hidden), LIF(), nn.Flatten(),
                         nn.LazyLinear(num_classes) if False else nn.Linear(hidden * 36, num_classes))
"""
SMALL = ["--data.train-samples", "64", "--epochs", "1", "--timesteps", "2", "--model.name", "small_net"]


@pytest.fixture
def folder(tmp_path, monkeypatch, fresh_names):
    """A user's folder with a file that registers a network, and notes every import of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NET)
    return tmp_path


def imports(folder):
    return len((folder / "imported").read_text()) if (folder / "imported").exists() else 0


def forget(names=("nets",)):
    """What a new process does not know."""
    import sys

    from spikedistill import registry

    for name in names:
        sys.modules.pop(name, None)
        registry.USER_MODULES.pop(name, None)
    for known in (MODELS,):
        for name in [name for name in known._origins if known.origin(name)]:
            del known._known[name], known._origins[name]


def test_a_run_says_what_to_import_and_nothing_is_imported_by_itself(folder, capsys):
    assert cli.main(["train", "digits-sce", *SMALL, "--import", "nets.py", "--out", "run"]) == 0
    run = folder / "run"
    assert Config.of_run((run / "config.yaml").read_bytes(), "").imported == ("nets.py",)
    assert imports(folder) == 1
    forget()
    capsys.readouterr()
    for words in (["evaluate", "run"], ["gradients", "run"], ["train", "run/config.yaml", "--out", "again"]):
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert "small_net" in said
        assert said.count("--import nets.py") == 1
        assert said.count("\n") == 1
    with pytest.raises(UserError, match=r"--import nets\.py"):
        load(run)
    with pytest.raises(UserError, match=r"--import nets\.py"):
        load(run / "model.safetensors")
    assert cli.main(["report", "run"]) == 0, "which needs no network"
    assert imports(folder) == 1
    for words in (["evaluate", "run"], ["train", "run/config.yaml", "--out", "again"]):
        assert cli.main([*words, "--import=nets.py"]) == 0
        forget()
    assert imports(folder) == 3


def test_words_of_import_are_read_anywhere_and_more_than_once(folder, capsys):
    (folder / "losses.py").write_text(
        textwrap.dedent("""
        from spikedistill import register_objective
        from spikedistill.objectives import Objective, Term, sce

        @register_objective
        def half(scale: float = 0.5):
            '''Half of it.'''
            return Objective("half", [Term("sce", scale, sce)])
        """)
    )
    words = ["--import", "nets.py", "train", "digits-half", *SMALL, "--model.options.hidden", "3", "--import=losses.py"]
    assert cli.main([*words, "--objective.options.scale", "2", "--out", "run"]) == 0
    config = Config.of_run((folder / "run" / "config.yaml").read_bytes(), "")
    assert (config.model.options, config.objective.options) == ({"hidden": 3}, {"scale": 2.0})
    assert config.imported == ("losses.py", "nets.py")
    with pytest.raises(SystemExit, match="0"):
        cli.main([*words, "--help"])
    assert "--model.options.hidden" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--import"], "--import names no file or module"),
        (["--import", "--epochs", "1"], "--import names no file or module"),
        (["--import", "missing.py"], "--import missing.py: there is no such file"),
        (["--import", "no_such_module"], "there is no module 'no_such_module'"),
        (["--import", "."], "--import .: expected a Python file"),
        (["--import", "my-nets"], "--import my-nets: expected a Python file"),
        (["--import", "torch.no_such_module"], "there is no module 'torch.no_such_module'"),
        (["--import", "json.py"], "a module called 'json' is imported already"),
        (["--import", "nets.py", "--model.options.depth", "3"], "--model.options.depth"),
        (["--import", "nets.py", "--model.options.hidden", "x"], "hidden"),
        (["--import", "nets.py", "--model.width", "2"], "takes no width"),
        (["--import", "nets.py", "--model.norm", "tdbn"], "takes no norm"),
        (["--import", "nets.py", "--model.branches", "--objective.name", "esd"], "takes no branches"),
        (["--import", "nets.py", "--model.neuron", "relu"], "makes its own neurons"),
        (["--import", "nets.py", "--model.lif.decay", "0.9"], "takes no decay"),
        (["--import", "nets.py", "--import", "twice.py"], "is registered already, by nets.py"),
        (["--model.name", "smal_net", "--import", "nets.py"], "did you mean 'small_net'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, said, folder, capsys):
    (folder / "json.py").write_text("")
    (folder / "twice.py").write_text(NET)
    start = ["train", "digits-sce", *([] if "--model.name" in words else SMALL)]
    assert cli.main([*start, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_an_error_in_a_users_file_keeps_its_traceback(folder):
    (folder / "broken.py").write_text("import json\njson.loads('{')\n")
    (folder / "needs.py").write_text("import no_such_module_of_mine\n")
    with pytest.raises(ValueError, match="Expecting property name"):
        cli.main(["list", "--import", "broken.py"])
    with pytest.raises(ModuleNotFoundError, match="no_such_module_of_mine"):
        cli.main(["list", "--import", "needs.py"])
    (folder / "broken.py").write_text("ready = True\n")
    assert cli.main(["list", "--import", "broken.py"]) == 0, "mended, it is imported anew"


def test_a_file_is_imported_once_under_any_path_and_its_neighbours_can_be_imported(folder):
    (folder / "my-nets.py").write_text("import neighbour\nfrom nets import SmallNet\n")
    (folder / "neighbour.py").write_text("")
    import_user("my-nets.py")
    import_user(str(folder / "nets.py"))
    import_user("./nets.py")
    assert imports(folder) == 1
    assert to_import() == {str(folder / "my-nets.py"): "my-nets.py", str(folder / "nets.py"): str(folder / "nets.py")}


def test_a_name_that_an_imported_file_registers_by_another_is_known_by_the_file_that_was_named(folder):
    (folder / "all_nets.py").write_text("import nets\n")
    import_user("all_nets.py")
    assert MODELS.origin("small_net") == "all_nets.py"
    forget(("all_nets", "nets"))


def test_a_script_is_known_by_its_path_from_the_working_directory(folder):
    of_script = {"__name__": "__main__", "__file__": str(folder / "work" / "train.py")}
    assert origin_of(of_script) == str(Path("work", "train.py"))
    assert origin_of(of_script | {"__file__": "/elsewhere/train.py"}) == "/elsewhere/train.py"
    assert origin_of({"__name__": "__main__"}) == "__main__", "as in a notebook"


@pytest.mark.parametrize(("method", "refused"), [("tdbn", "norm"), ("dspike", "surrogate"), ("esd", "branches")])
def test_what_a_method_asks_of_a_network_is_refused_and_never_dropped(method, refused, folder, capsys):
    """Beside settings that are the data set's: those of digits have a width."""
    assert cli.main(["train", f"digits-{method}", *SMALL, "--import", "nets.py"]) == 2
    assert f"takes no {refused}" in capsys.readouterr().err


def test_an_objective_with_the_name_of_a_method_is_refused_as_a_recipe(folder, capsys):
    (folder / "losses.py").write_text(
        "from spikedistill.objectives import create_objective, register_objective\n"
        "register_objective('ann')(lambda: create_objective('sce'))\n"
    )
    assert cli.main(["train", "digits-ann", "--import", "losses.py"]) == 2
    assert "the objective 'ann' of losses.py has the name of a method" in capsys.readouterr().err


def test_names_that_are_taken_are_refused_by_every_registry(fresh_names):
    with pytest.raises(UserError, match="model 'convnet' is registered already, by spikedistill"):
        register_model("convnet")(lambda num_classes: None)
    with pytest.raises(UserError, match="objective 'sce' is registered already"):
        register_objective("sce")(lambda: None)
    with pytest.raises(UserError, match="data set 'digits' is registered already"):
        register_dataset("digits")(lambda: None)
    for name in ("ann", "twsd", "sce"):
        with pytest.raises(UserError, match=f"{name!r} is the name of a method already"):
            register_recipe(name)(lambda config: config)
    with pytest.raises(UserError, match="'digits-sce' is the name of a recipe already"):
        register_recipe("digits-sce")(lambda: None)
    for wrong in ("", "two words", "-x", 3):
        with pytest.raises(UserError, match="cannot be the name of a model"):
            MODELS.register(wrong, None)


@pytest.mark.parametrize("register", [register_model, register_objective, register_dataset])
def test_options_need_defaults_that_a_command_line_can_give(register, fresh_names):
    with pytest.raises(UserError, match=r"'without.default' has a parameter 'size_of_it'"):

        @register
        def without_default(size_of_it):
            """Something."""


def test_a_recipe_of_ones_own_is_a_method_or_a_whole(fresh_names):
    from spikedistill.recipes import list_recipes, recipe, with_objective

    @register_recipe
    def quick_twce(config):
        """TWCE for two epochs."""
        return with_objective(config, "twce").model_copy(update={"epochs": 2})

    @register_recipe("garden-all")
    def whole():
        """The digits, called a garden."""
        return recipe("digits-sce").model_copy(update={"epochs": 3})

    @register_recipe
    def wrong(config):
        """Nothing."""

    for name, epochs, objective in (("digits-quick-twce", 2, "twce"), ("garden-all", 3, "sce")):
        config = recipe(name)
        assert (config.recipe, config.epochs, config.objective.name) == (name, epochs, objective)
        assert name in list_recipes()
    with pytest.raises(UserError, match=r"'wrong' returned a NoneType, expected a spikedistill\.Config"):
        recipe("digits-wrong")


def test_what_a_registered_network_must_return(fresh_names):
    @register_model("text")
    def text(num_classes):
        return "no network"

    with pytest.raises(UserError, match=r"'text' returned a str, expected a torch.nn.Module"):
        create_model("text", num_classes=3)


def test_a_registered_network_that_normalises_images_itself_is_not_normalised_twice(fresh_names):
    @register_model("own_mean")
    def own_mean(num_classes):
        return nn.Sequential(Normalize([0.5], [0.25]), nn.Flatten(), nn.Linear(4, num_classes))

    model = create_model("own_mean", num_classes=3, in_channels=1, image_size=2, neuron="lif", mean=[0.1], std=[0.2])
    x = torch.rand(2, 1, 2, 2)
    torch.testing.assert_close(model(x, timesteps=1)[0], model.module[2]((x.flatten(1) - 0.5) / 0.25))


def test_the_missing_name_is_said_with_what_registered_it():
    names = Registry("thing", "spikedistill.things")
    with pytest.raises(UnknownName, match="no thing is called 'x'"), needing([], "the run"):
        names["x"]
    with (
        pytest.raises(
            UserError,
            match=r"no thing is called 'x': the run needs names that a\.py and b registers; install that, add",
        ),
        needing(["a.py", "b"], "the run"),
    ):
        names["x"]


def test_every_register_function_is_a_name_of_the_package():
    kinds = ["model", "dataset", "objective", "recipe", "neuron", "surrogate", "augmentation"]
    assert all(callable(getattr(spikedistill, f"register_{kind}")) for kind in kinds)
    assert {f"register_{kind}" for kind in kinds} <= {*spikedistill.__all__}
