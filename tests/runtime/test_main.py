"""The packages as programs: `python -m` is the command."""

import subprocess
import sys

import pytest


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
