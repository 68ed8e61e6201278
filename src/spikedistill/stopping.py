"""SIGTERM and SIGINT: the first asks the process to stop within some seconds; a second ends it at once."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

GRACE = 10.0  # seconds
_DONE = b"\0"  # this byte is not the number of a signal
_NUMBERS = (signal.SIGTERM, signal.SIGINT)
# At a terminal every process of a group gets SIGINT, and a parent then also sends SIGTERM to its child: this counts as one
# signal.
_ONE_WISH = 1.0  # seconds
_MOMENT = 0.02  # seconds for a finaliser or callback to return


class Stop:
    """Whether the process has received a signal to stop.

    Attributes:
        asked: whether a signal has been received.
        saved: returns what is saved, for the message if the process must be ended.
    """

    def __init__(self, saved: Callable[[], str]) -> None:
        self.asked = False
        self.saved = saved


@contextlib.contextmanager
def stoppable(*, grace: float = GRACE, saved: Callable[[], str] = lambda: "", raises: bool = True) -> Iterator[Stop]:
    """Inside this context SIGTERM and SIGINT ask the process to stop. After `grace` seconds a thread ends it.

    Python runs signal handlers only between two instructions, and one instruction may compute for minutes. So a thread reads the
    file descriptor that the system writes to for every signal. Outside the main thread, where no handler can be set, nothing
    changes.

    Args:
        grace: seconds from the first signal to the end, at most.
        saved: returns what is saved, in words, for the message when the time is up.
        raises: raise KeyboardInterrupt in the main thread. If False, only `asked` is set, and the caller must stop.
    """
    stop = Stop(saved)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        stop.asked = True
        if raises and not over:
            raise KeyboardInterrupt

    over = False
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watch = threading.Thread(target=_watch, args=(reading, grace, stop), daemon=True)
    watch.start()
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    hook = sys.unraisablehook

    def lost(unraisable: Any) -> None:
        # Python drops exceptions in a finaliser or a callback of a weak reference, which every import has: raise it again
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)
        elif not over:
            threading.Timer(_MOMENT, interrupt_again).start()

    def interrupt_again() -> None:
        if not over:
            main = ctypes.c_ulong(threading.main_thread().ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(main, ctypes.py_object(KeyboardInterrupt))

    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        if raises:
            sys.unraisablehook = lost
        for number in _NUMBERS:
            signal.signal(number, ask)
        yield stop
    finally:
        over = True
        sys.unraisablehook = hook
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        os.write(writing, _DONE)  # a forked process may hold the pipe open, so its end would not come
        watch.join()
        os.close(writing)
        os.close(reading)


def _watch(reading: int, grace: float, stop: Stop) -> None:
    """End the process when the time after the first signal is up, or when a second signal comes."""
    numbers: list[int] = []
    begun = 0.0
    ended = threading.Event()
    while _DONE not in (received := os.read(reading, 64)):
        for number in (number for number in received if number in _NUMBERS):
            now = time.monotonic()
            if not numbers:
                begun = now
                threading.Thread(target=_end_later, args=(grace, ended, stop), daemon=True).start()
            elif number in numbers or now - begun > _ONE_WISH:
                _end(f"stopped at once{_what_is_saved(stop)}")
            numbers.append(number)
    ended.set()


def _end_later(grace: float, ended: threading.Event, stop: Stop) -> None:
    if not ended.wait(grace):
        _end(f"stopped after {grace:g} s within a computation{_what_is_saved(stop)}")


def _what_is_saved(stop: Stop) -> str:
    saved = stop.saved()
    return f"; {saved}" if saved else ""


def _end(message: str) -> None:
    """End the process now. No file is left half written, because files are replaced as a whole."""
    with contextlib.suppress(OSError, ValueError):
        print(message, file=sys.stderr, flush=True)
    os._exit(1)
