"""Processes to be killed: forks of this one, which has imported everything, so that each begins at once."""

import contextlib
import multiprocessing.util
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE = 10.0  # seconds without progress that are a hang
ASKING = (signal.SIGTERM, signal.SIGINT)
LONGEST = 120.0  # seconds of one command
MOST_MIB = 3072  # of one process; an ordinary one here takes about 450
_ADDRESSES = 6 << 30  # bytes: a process that asks for all memory fails, and not the machine
_IDLE = 0.05  # seconds of computing in PATIENCE that are no progress: waiting for a lock takes less
_TICKS = os.sysconf("SC_CLK_TCK")


class Ended(NamedTuple):
    """How a process ended: its exit code (negative for a signal), None for one that hung; what it wrote; its memory; and when."""

    code: int | None
    output: str
    errors: str
    mib: int
    at: float


@dataclass
class Running:
    """A process in a session of its own."""

    pid: int
    said: Path
    begun: float

    def kill(self, number: int = signal.SIGKILL, *, all_of_them: bool = True) -> None:
        """Send a signal to the process, and to those that it began."""
        for send in (os.killpg, os.kill) if all_of_them else (os.kill,):  # it may have no group of its own yet
            with contextlib.suppress(ProcessLookupError):
                send(self.pid, number)
                return

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> Ended:
        """Until it has ended, or made no progress for too long; nothing of its session is left then."""
        used, moved, looked = 0.0, self.begun, self.begun
        hangs = False
        while not self.has_ended() and not hangs:
            time.sleep(0.005)
            now = time.monotonic()
            if now - looked > 0.5:
                looked, seconds = now, _computed_in(self.pid)
                if abs(seconds - used) > _IDLE:  # less where a process of the session has ended
                    used, moved = seconds, now
            hangs = now - moved > PATIENCE or now - self.begun > LONGEST
        at = time.monotonic()
        self.end_session()
        _, status, usage = os.wait4(self.pid, 0)
        code = None if hangs else os.waitstatus_to_exitcode(status)
        output, errors = ((self.said / name).read_text(errors="replace") for name in ("out", "err"))
        return Ended(code, output, errors, usage.ru_maxrss // 1024, at)

    def listens(self) -> bool:
        """Whether it has set handlers for the signals that ask it to stop."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
        return not any(ignored >> number - 1 & 1 for number in ASKING)

    def session_has_ended(self) -> bool:
        """Whether no process of its session is left."""
        return not any(state not in "ZX" for state, _ in _session(self.pid))

    def end_session(self) -> None:
        """Kill what is left of its session, and wait until it is gone."""
        while True:
            self.kill()
            if self.session_has_ended():
                return
            time.sleep(0.005)


def begin(work: Callable[[], int | None], said: Path) -> Running:
    """Fork a process that does this work; what it writes goes to the files `out` and `err` of a folder."""
    said.mkdir(parents=True, exist_ok=True)
    files = [os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("out", "err")]
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        return Running(pid, said, time.monotonic())
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
        for number, file in enumerate(files, 1):
            os.dup2(file, number)
            os.close(file)
        _start_helpers_by_fork()
        for number in ASKING:  # until the command sets handlers of its own
            signal.signal(number, signal.SIG_IGN)
        code = work() or 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def command(arguments: Sequence[str | Path], before: Callable[[], None] | None = None) -> Callable[[], int]:
    """The command line with these arguments, as work for a process; `before` is done in it at first."""

    def work() -> int:
        from spikedistill.cli import main

        if before is not None:
            before()
        return main([str(argument) for argument in arguments])

    return work


def run(arguments: Sequence[str | Path], said: Path, before: Callable[[], None] | None = None) -> Ended:
    """Run a command to its end."""
    return begin(command(arguments, before), said).wait()


def in_fork(work: Callable[[], Any], said: Path) -> tuple[Ended, Any]:
    """What a function returns in a process of its own; None where it did not return."""
    answer = said / "answer"

    def keep() -> int:
        answer.write_bytes(pickle.dumps(work()))
        return 0

    ended = begin(keep, said).wait()
    return ended, pickle.loads(answer.read_bytes()) if ended.code == 0 else None


def _computed_in(session: int) -> float:
    """Seconds that the processes of a session have computed; waiting for the disk counts as computing."""
    found = list(_session(session))
    return sum(seconds for _, seconds in found) + sum(_IDLE * 2 for state, _ in found if state == "D")


def _session(session: int) -> Iterator[tuple[str, float]]:
    """State and seconds of computing of each process of a session."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session:
            yield fields[0], (int(fields[11]) + int(fields[12])) / _TICKS


def _start_helpers_by_fork() -> None:
    """Let multiprocessing's servers begin as forks too, which saves them seconds of imports; they are the same otherwise."""

    def spawn(path: bytes, arguments: Sequence[Any], kept: Sequence[int]) -> int:
        # a signal between here and there would be taken for one to this process
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
        if pid := os.fork():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
            return pid
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in kept:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        try:
            exec(os.fsdecode(arguments[-1]), {"__name__": "helper"})
        except (SystemExit, KeyboardInterrupt):
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    multiprocessing.util.spawnv_passfds = spawn  # type: ignore[assignment]
