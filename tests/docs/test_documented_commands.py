"""Every command in the documentation, given to the command line up to the moment where the work would begin."""

import re
import shlex

import pytest
from pages import PAGES, ROOT, fences, name_of, prose, put_files
from torch.distributed.run import get_args_parser

from spikedistill import cli
from spikedistill.data import list_datasets
from spikedistill.models import list_models
from spikedistill.objectives import create_objective
from spikedistill.recipes import recipe
from spikedistill.training.combinations import check_together

PLACEHOLDERS = re.compile(r"\b(RECIPE|RUN|COMMAND)\b|\.\.\.")


def fenced(page):
    """The lines of a page's fenced code."""
    return [line for fence in fences(page, "sh") for line in fence.code.replace("\\\n", " ").splitlines()]


def commands(page):
    """The arguments of every `spikedistill ...` on a page, in fenced code and within a sentence."""
    for line in fenced(page) + re.findall(r"`(spikedistill [^`\n]+)`", prose(page)):
        words = shlex.split(line.removeprefix(".venv/bin/"), comments=True)
        if words[:1] == ["torchrun"]:
            words = words[words.index("-m") + 1 :]
        if words[:1] == ["spikedistill"] and not PLACEHOLDERS.search(line):
            yield words[1:]


COMMANDS = [pytest.param(page, words, id=" ".join(words)) for page in PAGES for words in commands(page)]


class WorkBegins(BaseException):
    """Raised in place of the work, so that the command line cannot take it for a user's mistake."""


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """The arguments that each command would begin its work with; runs that they name exist."""

    def begin(*arguments, **options):
        raise WorkBegins(*arguments)

    works = (
        "training.train",
        "comparisons.compare",
        "evaluation.evaluate",
        "evaluation.gradient_microscope",
        "robustness.measure_run",
        "exporting.export",
        "run_folder.load",
        "evaluation.runs.parts_of_run",
        "report.write_report",
        "report.write_logits_report",
    )
    for place in works:
        monkeypatch.setattr(f"spikedistill.{place}", begin)
    monkeypatch.chdir(tmp_path)
    for name in ("runs/digits-twsd/seed0", "runs/demo", "runs/hard"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.safetensors").touch()
        (tmp_path / name / "config.yaml").write_text(recipe("digits-twsd").to_yaml())


def check(config):
    """What a run checks before it reads data."""
    assert config.model.name in list_models()
    assert config.data.name in list_datasets()
    objective = create_objective(config.objective.name, **config.objective.options)
    check_together(config, objective)
    return objective


@pytest.mark.parametrize(("page", "words"), COMMANDS)
def test_a_documented_command_is_understood(page, words, begun, capsys, monkeypatch, tmp_path, fresh_names):
    put_files(page, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if "--data.root" not in words:
        monkeypatch.delenv("SPIKEDISTILL_DATA", raising=False)
    if len(words) == 1 and words not in (["data"], ["list"]):
        assert words[0] in cli.COMMANDS, "a command spoken of by its name"
    elif "--help" in words:
        with pytest.raises(SystemExit, match="0"):
            cli.main(words)
    elif words[0] == "list" or words in (["data"], ["data", "digits"]):
        assert cli.main(words) == 0
    elif words[0] == "data":
        assert cli.main(words) == 2, "the files are not here"
        named = next((word for word in ("--source", "--data.root") if word in words), "SPIKEDISTILL_DATA")
        assert named in capsys.readouterr().err
    else:
        with pytest.raises(WorkBegins) as begins:
            cli.main(words)
        if words[0] == "train":
            (config,) = begins.value.args
            assert check(config).needs_teacher == (config.teacher is not None)
        if words[0] == "compare":
            for config in begins.value.args[0]:
                check(config)


@pytest.mark.parametrize("line", [line for page in PAGES for line in fenced(page) if line.startswith("torchrun ")])
def test_torchrun_starts_as_many_processes_as_the_documented_run_has(line, begun):
    launcher = get_args_parser().parse_args(shlex.split(line)[1:])
    with pytest.raises(WorkBegins) as begins:
        cli.main(launcher.training_script_args)
    (config,) = begins.value.args
    assert launcher.module
    assert launcher.training_script == "spikedistill"
    nodes = launcher.nnodes.split(":")[-1]  # the largest number of a range
    assert (launcher.nproc_per_node, nodes) == (str(config.trainer.devices), str(config.trainer.nodes))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_documented_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for fence in fences(page, "sh"):
        for target in re.findall(r"^make ([\w-]+)", fence.code, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_a_command_with_an_unknown_setting_would_be_noticed(begun):
    assert cli.main(["train", "digits-twsd", "--objective.options.gama", "1"]) == 2
    assert cli.main(["train", "digits-twsc"]) == 2
