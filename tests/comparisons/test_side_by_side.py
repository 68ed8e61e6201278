"""How the process of one run of a comparison ends where training fails."""

import os

from quick_runs import quick

from spikedistill import Config, UserError
from spikedistill.comparisons import side_by_side
from spikedistill.run_folder import RunFailed
from spikedistill.training.module import DistillationModule

NO_MEMORY = (
    "there is not enough memory to train with --data.batch-size 60 and --timesteps 3: use --data.batch-size auto or 30, "
    "--checkpoint, --gradient rate, or --model.width 0.125"
)
ERRORS = {
    "a bug": (ValueError("shapes do not fit"), 1, "ValueError: shapes do not fit"),
    "a wrong value": (UserError("no such\nlabels"), 2, "no such labels"),
    "a full disk": (OSError(28, "No space left on device", "x.csv"), 2, "x.csv: No space left on device"),
    "no memory": (MemoryError(), 2, NO_MEMORY),
    "another process": (RunFailed("another process of this run has ended"), 1, "another process of this run has ended"),
}  # fmt: skip


def fail_in_training(config: Config, error: Exception, said: str) -> None:
    """In a process of its own: the first step raises, and what the process says goes to a file."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)

    def step(*arguments: object) -> None:
        raise error

    DistillationModule.training_step = step
    side_by_side._train(config, 0, 1, {})


def test_the_process_of_a_run_says_in_a_line_what_a_user_can_mend_and_keeps_the_traceback_of_a_bug(tmp_path):
    processes = side_by_side.fresh_processes()
    begun = {}
    for what, (error, *_) in ERRORS.items():
        config = quick("digits-sce", out=tmp_path / what / "run")
        (tmp_path / what).mkdir()
        arguments = config, error, str(tmp_path / what / "said")
        begun[what] = processes.Process(target=fail_in_training, args=arguments)
        begun[what].start()
    for what, (_, code, expected) in ERRORS.items():
        begun[what].join(120)
        said = (tmp_path / what / "said").read_text()
        assert begun[what].exitcode == code, said
        if what == "a bug":
            assert "Traceback (most recent call last)" in said
            assert said.rstrip().endswith(expected)
        else:
            assert said == f"{tmp_path / what / 'run'}: {expected}\n"
