"""Holds the signals that end a process back where an exception amid the work of a library would do harm."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

# Those that a system has.
ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


class Held:
    """What is known of the signals that are held."""

    def __init__(self) -> None:
        self.number = 0  # of the last one that came
        self._call: Callable[[], object] = lambda: None

    @contextlib.contextmanager
    def calling(self, call: Callable[[], object]) -> Iterator[None]:
        """A context in which a signal calls `call`; also one that came before."""
        self._call = call
        if self.number:
            call()
        try:
            yield
        finally:
            self._call = lambda: None

    def note(self, number: int, _: object) -> None:
        """Be the handler of a signal."""
        self.number = number
        self._call()


@contextlib.contextmanager
def held_signals() -> Iterator[Held]:
    """Let signals wait until the end of the context, and do then what they do; those that are ignored stay so.

    Handlers raise exceptions wherever the main thread happens to be. Those may leave what a library makes half made, be
    logged by it, or end the process where it destroys what it has made.
    """
    held, before = Held(), dict[int, Any]()
    if threading.current_thread() is threading.main_thread():  # which signals are the business of
        for number in ENDING:
            if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, held.note)
    try:
        yield held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held.number:
            signal.raise_signal(held.number)
