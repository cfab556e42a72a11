"""What the signals that end a process do: they end its work in order, and wait where that would do harm."""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_LATER = 0.02  # seconds until a signal is tried again
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


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Have signals raise SystemExit, as SIGINT raises KeyboardInterrupt, so that what is unfinished is removed."""
    if threading.current_thread() is not threading.main_thread():  # which signals are the business of
        yield
        return
    came = 0

    def stop(number: int, _: object) -> None:
        nonlocal came
        came = number
        sys.exit(128 + number)

    # Those that nohup or a host program has chosen otherwise stay as they are.
    signals = [n for n in ENDING if n != signal.SIGINT and signal.getsignal(n) is signal.SIG_DFL]
    for number in signals:
        signal.signal(number, stop)
    tell = sys.unraisablehook

    def not_raised(problem: "sys.UnraisableHookArgs") -> None:
        """Raise again, a moment later, what was raised in a destructor or the callback of a weak reference."""
        if isinstance(problem.exc_value, KeyboardInterrupt) or (came and isinstance(problem.exc_value, SystemExit)):
            threading.Timer(_LATER, _signal_main_thread, [signal.Signals(came or signal.SIGINT)]).start()
        else:
            tell(problem)

    sys.unraisablehook = not_raised
    try:
        yield
    except Exception:
        if came:  # libraries make other exceptions of ours
            sys.exit(128 + came)
        raise
    finally:
        sys.unraisablehook = tell
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


def _signal_main_thread(number: signal.Signals) -> None:
    if hasattr(signal, "pthread_kill"):  # which also wakes it
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(number)
