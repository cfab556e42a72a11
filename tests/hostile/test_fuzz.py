"""Small campaigns of the harnesses of `make fuzz`, with seeds that stay the same."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux, whose processes fork"),
]
ROOT = Path(__file__).parents[2]
COUNTS = {"bundles": 300, "pictures": 1500, "checkpoints": 250, "openai": 100, "kills": 50, "pairs": 40}


@pytest.mark.parametrize("name", COUNTS)
def test_nothing_is_mishandled(name: str, tmp_path: Path) -> None:
    """In an interpreter of its own, since forks lose the threads that other tests have begun."""
    if name == "openai":
        pytest.importorskip("tensorflow")
    command = [sys.executable, "-m", "hostile.fuzz", name, "--count", str(COUNTS[name]), "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"
    assert f"{name}: {COUNTS[name]:,} cases" in done.stdout
    shutil.rmtree(tmp_path / name, ignore_errors=True)
