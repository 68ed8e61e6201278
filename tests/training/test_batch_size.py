"""A batch size that fits into memory, and what is said where one does not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from quick_runs import quick

from spikedistill import UserError, compare, train
from spikedistill.cli import main
from spikedistill.comparisons.side_by_side import how_it_failed
from spikedistill.config import Config, DataConfig, TrainerConfig
from spikedistill.evaluation.fitting_batches import in_fitting_batches
from spikedistill.recipes.settings import from_words
from spikedistill.run_folder import RunFolder
from spikedistill.training.batch_size import CLEAR, foretold, largest
from spikedistill.training.free_memory import free_memory
from spikedistill.training.module import DistillationModule
from spikedistill.training.out_of_memory import settings_that_take_less

CPU = torch.device("cpu")
MIB = 2**20
SIZES = [2, 4, 8, 16, 32, 64]


def files(root: Path, **contents: object) -> Path:
    """A root with files below it; a key is a path with __ for / and _x_ for a dot."""
    for key, content in contents.items():
        path = root / key.replace("__", "/").replace("_x_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content))
    return root


@pytest.mark.parametrize(
    ("contents", "free"),
    [
        ({}, 8000),
        ({"proc__self__cgroup": "0::/\n", "sys__fs__cgroup__memory_x_max": "max\n"}, 8000),
        # version 2: of 4000 MiB in the group around its own 3500 are taken, 1000 of them by files that nobody reads
        (
            {
                "proc__self__cgroup": "0::/box/job\n",
                "sys__fs__cgroup__box__job__memory_x_max": 6000 * MIB,
                "sys__fs__cgroup__box__job__memory_x_current": 100 * MIB,
                "sys__fs__cgroup__box__memory_x_max": 4000 * MIB,
                "sys__fs__cgroup__box__memory_x_current": 3500 * MIB,
                "sys__fs__cgroup__box__memory_x_stat": f"anon 1\ninactive_file {1000 * MIB}\n",
            },
            1500,
        ),
        # version 1, where the path is that of the host and the container's own group is the top
        (
            {
                "proc__self__cgroup": "9:cpu:/host/box\n4:memory:/host/box\n0::/\n",
                "sys__fs__cgroup__memory__memory_x_limit_in_bytes": 2000 * MIB,
                "sys__fs__cgroup__memory__memory_x_usage_in_bytes": 700 * MIB,
            },
            1300,
        ),
        (
            {
                "proc__self__cgroup": "4:memory:/\n",
                "sys__fs__cgroup__memory__memory_x_limit_in_bytes": 9223372036854771712,
                "sys__fs__cgroup__memory__memory_x_usage_in_bytes": 700 * MIB,
            },
            8000,
        ),
        ({"proc__self__cgroup": "0::/", "sys__fs__cgroup__memory_x_max": 5, "sys__fs__cgroup__memory_x_current": 9}, 0),
    ],
)
def test_free_memory_is_the_least_of_the_machine_and_its_groups(tmp_path, contents, free):
    root = files(tmp_path, proc__meminfo=f"MemTotal: 1 kB\nMemAvailable:  {8000 * 1024} kB\n", **contents)
    assert free_memory(CPU, root) == free * MIB


def test_sizes_are_foretold_from_two_that_differ_clearly():
    """10 MiB and 40 MiB more for each image: 16 take 650 and 32 would take 1290, which is never tried."""
    tried = []

    def needed(size):
        tried.append(size)
        return (10 + 40 * size) * MIB

    assert foretold(SIZES, 700 * MIB, needed) == [2, 4, 8, 16]
    assert tried == [2, 2, 4], "they differ by 80 MiB"
    assert CLEAR == 64 * MIB
    assert largest([2, 4, 8, 16], 700 * MIB, needed) == (16, 650 * MIB)


def test_a_size_that_turns_out_too_large_is_not_taken():
    takes = {2: 100, 4: 100, 8: 100, 16: 900, 32: None, 64: None}
    found = largest(SIZES, 500, takes.__getitem__)
    assert found == (8, 100)
    assert foretold(SIZES, 500, takes.__getitem__) == [2, 4, 8]
    assert largest(SIZES, 50, takes.__getitem__) is None
    assert foretold(SIZES, 50, takes.__getitem__) == []
    assert foretold(SIZES, 2000, lambda size: 100) == SIZES, "small networks fit at any size"


@pytest.mark.parametrize(("words", "most"), [("auto", 64), ("auto:512", 512), ("32", None)])
def test_the_limit_is_the_recipes_own_batch_size_unless_it_is_stated(words, most):
    config = from_words("digits-sce", ["--data.batch-size", words])
    assert config.data.most_batch_size == most
    assert Config.from_yaml(config.to_yaml()) == config


@pytest.mark.parametrize("wrong", ["auto:", "auto:0", "auto:many", "automatic", "0"])
def test_other_words_are_refused(wrong):
    with pytest.raises(UserError, match=r"data.batch_size: got .*expected .* or 'auto' or 'auto:512'"):
        from_words("digits-sce", ["--data.batch-size", wrong])


def test_a_batch_size_is_chosen_once_and_recorded(tmp_path, capsys):
    settings = "--data.train-samples 100 --epochs 1 --model.width 0.25 --timesteps 2 --trainer.accelerator cpu"
    command = ["train", "digits-sce", *settings.split(), "--data.batch-size", "auto", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("batch size: ")]
    pattern = r"batch size: 64, the largest power of two up to 64 that fits: a step takes about .* MiB of the .* that are free; .*"
    assert re.fullmatch(pattern + "the learning rate stays 0.1", line)
    run = RunFolder(tmp_path / "run")
    assert run.config().data.batch_size == 64
    run.report.unlink()
    assert main([*command, "--resume", "auto"]) == 0
    assert "batch size" not in capsys.readouterr().out, "what was chosen is not tried again"
    assert run.is_complete


def test_more_than_there_are_samples_is_not_chosen(tmp_path, capsys):
    data = DataConfig(name="digits", batch_size="auto", train_samples=100)
    run = RunFolder(train(quick("digits-sce", data=data, out=tmp_path / "run")))
    assert run.config().data.batch_size == 64, "of 128, the default where no recipe has another"


def test_processes_and_runs_that_are_compared_do_not_choose_each_for_itself(tmp_path):
    data = DataConfig(name="digits", batch_size="auto")
    with pytest.raises(UserError, match=r"tries batches in one process: .* give a number, such as 128"):
        train(quick("digits-sce", data=data, trainer=TrainerConfig(accelerator="cpu", devices=2), out=tmp_path / "run"))
    with pytest.raises(
        UserError, match="batch-size auto would choose for every run separately: give one number for all"
    ):
        compare([quick(f"digits-{name}", data=data) for name in ("sce", "twsd")], seeds=[0], out=tmp_path / "compared")
    assert not list(tmp_path.iterdir())


IN_LITTLE_MEMORY = """
import resource, sys
import torch
import spikedistill.comparisons, spikedistill.training.callbacks
from spikedistill.cli import main

torch.set_num_threads(1)
command = ["train", "digits-sce", "--epochs", "1", "--model.width", "4", "--trainer.accelerator", "cpu", "--timesteps", "2"]
command += ["--trainer.no-keep-memory"]
main([*command, "--data.train-samples", "200", "--data.batch-size", "200", "--out", "first"])  # compiles and loads what there is
command += ["--data.train-samples", "1200", "--data.batch-size"]
with open("/proc/self/status") as status:
    taken = next(int(line.split()[1]) for line in status if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (1024 * taken + 250 * 2**20, resource.RLIM_INFINITY))
codes = [main([*command, "auto:1024", "--out", "fitting"]), main([*command, "1024", "--model.width", "16", "--out", "large"])]
sys.exit(f"exit codes {codes}")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its address space")
def test_a_process_with_little_memory_says_so_in_a_line_and_trains_with_a_batch_that_fits(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    said, last = done.stderr.splitlines()[-2:]
    pattern = r"spikedistill train: there is not enough memory( \([\d.]+ [MG]iB more were needed\))? to train with "
    pattern += (
        r"--data.batch-size 1024 and --timesteps 2: use --data.batch-size auto or 512, --checkpoint, --gradient rate, "
    )
    pattern += r"or --model.width 8"
    assert re.fullmatch(pattern, said), done.stderr
    assert last == "exit codes [0, 2]", done.stdout + done.stderr
    chosen = RunFolder(tmp_path / "fitting").config().data.batch_size
    assert chosen in (2, 4, 8, 16, 32, 64, 128, 256, 512)
    assert f"batch size: {chosen}, the largest power of two up to 1024 that fits" in done.stdout


def test_memory_that_runs_out_later_leaves_the_checkpoint(tmp_path, monkeypatch, capsys):
    config = quick("digits-twsd", epochs=2, out=tmp_path / "run")
    training_step = DistillationModule.training_step

    def step(module, batch, batch_index):
        if (module.current_epoch, batch_index) == (1, 2):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has 7.79 GiB")
        return training_step(module, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationModule, "training_step", step)
        with pytest.raises(UserError) as error:
            train(config)
    said = str(error.value)
    assert said.startswith(
        "there is not enough memory (2.5 GiB more were needed) to train with --data.batch-size 60 and"
    )
    assert "use --data.batch-size auto or 30, --checkpoint, or --model.width 0.125. The checkpoint in" in said
    assert "--gradient rate" not in said, "under which timesteps teach each other nothing"
    train(config.model_copy(update={"resume": "auto"}))
    again = RunFolder(train(config.model_copy(update={"out": tmp_path / "again"})))
    assert RunFolder(tmp_path / "run").model.read_bytes() == again.model.read_bytes()


@pytest.mark.parametrize(
    ("recipe", "changes", "said"),
    [
        (
            "digits-sce",
            {},
            ["--data.batch-size auto or 30", "--checkpoint", "--gradient rate", "or --model.width 0.125"],
        ),
        (
            "digits-sce",
            {"checkpoint": True},
            ["--data.batch-size auto or 30", "--gradient rate", "or --model.width 0.125"],
        ),
        ("digits-rate", {}, ["--data.batch-size auto or 30", "--chunk 1", "or --model.width 0.125"]),
        ("digits-rate", {"chunk": 1}, ["--data.batch-size auto or 30", "or --model.width 0.125"]),
        ("digits-ann", {"data": DataConfig(name="digits", batch_size=1)}, ["--model.width 0.125"]),
    ],
)
def test_only_settings_that_this_run_can_take_are_named(recipe, changes, said):
    assert settings_that_take_less(quick(recipe, **changes)) == said


def test_evaluation_halves_its_batches_until_they_fit():
    tried = []

    def function(size):
        tried.append(size)
        if size > most:
            raise MemoryError
        return size

    most = 60
    assert in_fitting_batches(function, 250) == 31
    assert tried == [250, 125, 62, 31]
    most = 0
    with pytest.raises(MemoryError):
        in_fitting_batches(function, 4)
    assert tried[-1] == 1
    with pytest.raises(KeyError):
        in_fitting_batches({}.__getitem__, 4)


def test_a_run_that_the_system_killed_may_have_taken_too_much_memory():
    said = "the run in x was killed .SIGKILL., as the system does when memory runs out: train fewer runs at a time .--jobs., or "
    assert re.match(said, how_it_failed(Path("x"), -9))
    assert how_it_failed(Path("x"), 1) == "the run in x failed"
