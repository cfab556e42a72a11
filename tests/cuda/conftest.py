"""Programs that run with ONNX Runtime's CUDA provider and no GPU."""

import importlib.util
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def on_stand_in() -> Callable[[Sequence[object]], subprocess.CompletedProcess[str]]:
    """A function that runs a Python program with the GPU package and no GPU."""
    spec = importlib.util.spec_from_file_location("stand_in", Path(__file__).with_name("stand_in.py"))
    assert spec and spec.loader
    stand_in = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stand_in)
    if not stand_in.is_possible():
        pytest.skip("the stand-in for CUDA needs Linux and a C compiler")
    stand_in.prepare()

    def run(command: Sequence[object]) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = stand_in.run(command)
        assert done.returncode == 0, done.stderr
        return done

    return run
