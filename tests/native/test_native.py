"""The clients in other languages are built and replay the golden pack; without a toolchain its tests are skipped.

What is built stays in build/native.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import onnxruntime
import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime"
BUILD = ROOT / "build" / "native"
LIBRARY = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
ENVIRONMENT = {
    **os.environ,
    "IGPT_ORT_LIBRARY": str(LIBRARY),
    "IGPT_GOLDEN": str(ROOT / "tests/golden"),
    "IGPT_DEMO": str(ROOT / "runtime/python/igpt_runtime/demo"),
}

pytestmark = pytest.mark.slow


def needs(*programs: str) -> None:
    """Skip a test without these programs."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def run(*command: object, cwd: Path = ROOT, **variables: str) -> str:
    """What a command prints; its failure is the test's."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**ENVIRONMENT, **variables}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def test_java() -> None:
    needs("mvn")
    printed = run("./test.sh", cwd=RUNTIME / "java")
    if "java: skipped" in printed:
        pytest.skip(printed.strip())
    passed = re.findall(r"Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0\n", printed)
    assert passed and int(passed[-1]) >= 40
