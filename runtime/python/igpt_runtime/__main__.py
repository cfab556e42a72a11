"""`igpt-run`, and `python -m igpt_runtime`."""

import importlib
import signal
import sys


def main() -> None:
    """Run the command line."""
    run("igpt_runtime.cli", "igpt-run")


def run(module: str, name: str) -> None:
    """Import a module and run its `main`, the command called `name`.

    Before that is there, and after its end, an interrupt has nothing to put in order and ends the process, without a
    traceback.
    """
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = importlib.import_module(module).main
    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(command(prog_name=name))
    finally:
        if is_usual:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
