"""The packages as programs: `python -m` is the command."""

import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from igpt_runtime import cli


@pytest.mark.parametrize(("module", "command"), [("igpt_runtime", "igpt-run"), ("igpt_export", "igpt-export")])
def test_a_package_is_its_command(module: str, command: str) -> None:
    def output(option: str) -> str:
        done = subprocess.run([sys.executable, "-m", module, option], capture_output=True, text=True, check=True)
        return done.stdout

    assert output("--help").startswith(f"Usage: {command} [OPTIONS]")
    assert output("--version").startswith(f"{command}, version ")


def test_errors_name_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "igpt_runtime", "nothing"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: igpt-run [OPTIONS] COMMAND") and "igpt_runtime" not in done.stderr


@pytest.mark.parametrize("module", ["igpt_runtime", "igpt_export"])
def test_an_interrupt_before_the_command_is_there(module: str) -> None:
    program = f"""
import importlib, os, signal
from {module}.__main__ import main
importlib.import_module = lambda name: os.kill(os.getpid(), signal.SIGINT)
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_an_interrupt_after_the_command() -> None:
    program = """
import atexit, os, signal
from igpt_runtime import __main__, cli
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
cli.main.commands["info"].callback = lambda *_, **__: None
__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", program, "info"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_an_interrupt_before_click_looks_out_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("igpt_runtime.signals.signal.getsignal", interrupt)
    result = CliRunner().invoke(cli.main, ["info"])
    assert (result.exit_code, result.stderr) == (1, "Aborted!\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_where_nothing_can_be_raised(number: signal.Signals) -> None:
    """Python only tells of exceptions in destructors and the callbacks of weak references."""
    program = f"""
import os, time
from igpt_runtime import cli
class Thing:
    def __del__(self):
        os.kill(os.getpid(), {int(number)})
def info(*_, **__):
    Thing()
    time.sleep(60)
    print("not ended")
cli.main.commands["info"].callback = info
cli.main(["info"])
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    ended = (1, "Aborted!") if number == signal.SIGINT else (128 + number, "")
    assert (done.returncode, done.stderr.strip(), done.stdout) == (*ended, "")


def test_other_faults_where_nothing_can_be_raised_are_told() -> None:
    program = """
import sys
from igpt_runtime import cli
class Thing:
    def __del__(self):
        sys.exit("of its own")
cli.main.commands["info"].callback = lambda *_, **__: Thing()
cli.main(["info"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "of its own" in done.stderr
