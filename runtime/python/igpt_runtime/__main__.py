"""`igpt-run`, and `python -m igpt_runtime`."""

import importlib
import signal
import sys


def main() -> None:
    """Run the command line."""
    run("igpt_runtime.cli", "igpt-run")


def run(module: str, name: str) -> None:
    """Import a module and run its `main`, the command called `name`.

    Until that is there, an interrupt has nothing to put in order and ends the process, without a traceback.
    """
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = importlib.import_module(module).main
    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(command(prog_name=name))


if __name__ == "__main__":
    main()
