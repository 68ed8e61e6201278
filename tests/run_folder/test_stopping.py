"""SIGTERM and SIGINT ask, end a process that does not come to an end by itself, and end it at once when they are repeated."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from spikedistill.cli import main

HEAD = """
import sys, time, torch
from spikedistill.stopping import stoppable
torch.set_num_threads(1)
matrix = torch.rand(6000, 6000)
def ready(): print("ready", flush=True)
"""
# torch computes one matrix decomposition for minutes, in which no Python runs
LONG = "torch.linalg.svd(matrix)"


def begin(body: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen) -> tuple[int, str]:
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_interrupts_where_python_runs(number):
    process = begin("""
try:
    with stoppable():
        ready()
        time.sleep(600)
except KeyboardInterrupt:
    sys.exit(7)
""")
    process.send_signal(number)
    assert end(process) == (7, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_where_python_drops_exceptions_interrupts_a_moment_later(number):
    process = begin("""
class Dropped:
    def __del__(self):
        ready()
        time.sleep(1)  # where the signal comes
try:
    with stoppable():
        Dropped()
        for _ in range(600): time.sleep(0.1)
except KeyboardInterrupt:
    sys.exit(7)
""")
    process.send_signal(number)
    assert end(process) == (7, "")


def test_where_a_loop_reads_it_the_first_signal_only_asks():
    process = begin("""
with stoppable(raises=False) as stop:
    ready()
    while not stop.asked: time.sleep(0.01)
print("an end of its own", file=sys.stderr)
""")
    process.terminate()
    assert end(process) == (0, "an end of its own\n")


@pytest.mark.parametrize("raises", [True, False])
def test_a_long_computation_is_ended_after_the_grace_and_what_is_saved_is_said(raises):
    process = begin(f"""
with stoppable(grace=0.3, saved=lambda: "the checkpoint of step 3 is saved", raises={raises}):
    ready()
    {LONG}
""")
    time.sleep(0.2)
    process.terminate()
    assert end(process) == (1, "stopped after 0.3 s within a computation; the checkpoint of step 3 is saved\n")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(second):
    process = begin(f"with stoppable(grace=600, raises=False):\n    ready()\n    {LONG}")
    time.sleep(0.2)
    process.terminate()
    time.sleep(0.1 if second == signal.SIGTERM else 1.2)  # another number at once is the same wish, of a terminal's
    process.send_signal(second)
    assert end(process) == (1, "stopped at once\n")


def test_a_signal_to_the_group_that_the_parent_repeats_is_one_wish():
    process = begin("""
with stoppable(grace=600, raises=False) as stop:
    ready()
    while not stop.asked: time.sleep(0.01)
    time.sleep(0.5)
print("an end of its own", file=sys.stderr)
""")
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.terminate()
    assert end(process) == (0, "an end of its own\n")


def test_afterwards_signals_are_as_they_were():
    from spikedistill.stopping import stoppable

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), len(os.listdir("/proc/self/fd"))
    with stoppable(), stoppable(raises=False):
        pass
    after = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), len(os.listdir("/proc/self/fd"))
    assert before == after


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_handlers_are_set_stops_a_command_with_a_message(second, monkeypatch, capsys):
    set_handler = signal.signal

    def set_and_send(number, handler):
        found = set_handler(number, handler)
        if number == second and callable(handler) and handler is not signal.default_int_handler:
            os.kill(os.getpid(), second)
        return found

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", set_and_send)
        assert main(["list", "data"]) == 1
    assert capsys.readouterr() == ("", "stopped\n")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_training_that_ends_with_an_error_leaves_signals_as_they_were(tmp_path, monkeypatch):
    from quick_runs import quick

    from spikedistill import train
    from spikedistill.training.module import DistillationModule

    def fail(*arguments):
        raise InterruptedError

    monkeypatch.setattr(DistillationModule, "training_step", fail)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    threads = set(threading.enumerate())
    with pytest.raises(InterruptedError):
        train(quick("digits-sce", out=tmp_path / "run"))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert not set(threading.enumerate()) - threads, "those of earlier tests may end meanwhile"
    woken = signal.set_wakeup_fd(-1)
    assert woken == -1, "nobody waits for a signal any more"
