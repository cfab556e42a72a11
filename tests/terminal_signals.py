"""Signals as a program has them that a terminal started."""

import signal


def heed() -> None:
    """Have SIGINT and SIGQUIT heeded, also by programs that are started from here.

    A shell lets what it starts in the background ignore them, such as a test run with `&`.
    """
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGQUIT", signal.SIG_DFL)):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
            signal.signal(getattr(signal, name), handler)
