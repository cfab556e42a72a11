"""The scripts that check a GPU run where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "device"


def measure(kit: Path, *arguments: str) -> dict[str, dict[str, object]]:
    """What measure.py finds on the CPU."""
    paths = (Path.cwd() / "runtime" / "python", Path.cwd())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, HERE / "measure.py", "--kit", kit, "--out", kit / "out", "--device", "cpu", *arguments]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "=== table" in done.stdout, done.stdout + done.stderr
    return json.loads((kit / "out" / "results.json").read_text())["stages"]  # type: ignore[no-any-return]


def test_norms_are_exact(tmp_path: Path) -> None:
    (norms,) = measure(tmp_path, "--stages", "norms").values()
    errors = {name: found for name, found in norms.items() if name.endswith("relative error by scale")}
    assert len(errors) == 18
    assert all(error < 1e-3 for found in errors.values() for error in found.values())  # type: ignore[attr-defined]


def test_every_stage_can_be_started(tmp_path: Path) -> None:
    """It fails for want of bundles, or of a GPU, and not of a module or a function."""
    program = (
        "import importlib, measure\n"
        "kinds = {name.partition('-')[0] for name in measure.STAGES}\n"
        "assert kinds == set(measure.MODULES)\n"
        "for kind, module in measure.MODULES.items():\n"
        "    getattr(importlib.import_module(module), f'stage_{kind}')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    stages = measure(tmp_path, "--stages", "env,smoke")
    assert stages["env"]["versions"]
    assert "works" not in stages["smoke"]
    assert all("DeviceError" in str(v) or "BundleError" in str(v) for k, v in stages["smoke"].items() if "FAILED" in k)
