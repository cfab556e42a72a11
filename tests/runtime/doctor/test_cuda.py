"""What is said of CUDA, with the real onnxruntime-gpu and libraries that stand in for CUDA's, for no GPU is needed."""

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from igpt_runtime.doctor.finding import OK, WARNING, Finding
from igpt_runtime.doctor.providers import providers
from igpt_runtime.doctor.start_provider import start_provider

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
DRIVER = "libcuda.so.1"


@pytest.fixture(scope="module")
def stand_in() -> ModuleType:
    """tests/cuda/stand_in.py, with the package installed and the libraries built."""
    spec = importlib.util.spec_from_file_location("stand_in", ROOT / "tests" / "cuda" / "stand_in.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not module.is_possible():
        pytest.skip("the stand-in for CUDA needs Linux and a C compiler")
    for name in (DRIVER, "libcublasLt.so.13"):
        # In a process of its own: torch may have loaded a library of that name into this one.
        code = f"import ctypes; ctypes.CDLL({name!r})"
        if not subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode:
            pytest.skip(f"{name} is installed here")
    module.prepare()
    return module


@pytest.fixture
def site(stand_in: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packages of the Python that doctor starts its processes with: onnxruntime-gpu and numpy."""
    packages = tmp_path / "packages"
    packages.mkdir()
    numpy = Path(np.__file__).parent
    for path in (*stand_in.PACKAGE.iterdir(), numpy, numpy.with_name("numpy.libs")):
        if path.exists():
            (packages / path.name).symlink_to(path)
    venv.create(tmp_path / "bare", symlinks=True)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bare" / "bin" / "python"))
    monkeypatch.setattr("sys.path", [str(packages)])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(packages), str(ROOT / "runtime" / "python")]))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    return packages


def libraries(stand_in: ModuleType, folder: Path, *, driver: bool) -> Path:
    """A folder with CUDA's libraries, or with the driver's."""
    folder.mkdir(parents=True)
    for path in stand_in.LIBRARIES.glob("*.so*"):
        if (path.name == DRIVER) == driver:
            (folder / path.name).symlink_to(path)
    return folder


def cuda() -> Finding:
    findings = {finding.name: finding for finding in providers(start_provider("cpu", None), "auto", None)}
    assert findings["CPU"].status == OK
    return findings["CUDA"]


def test_it_starts(site: Path, stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(stand_in.LIBRARIES))
    assert cuda() == Finding("ONNX Runtime", "CUDA", OK, "starts and runs a graph")


def test_its_libraries_are_missing(site: Path) -> None:
    finding = cuda()
    assert (finding.status, finding.found) == (WARNING, "does not start: libcublasLt.so.13 is missing")
    assert str(finding.remedy).startswith("run: pip install 'onnxruntime-gpu[cuda,cudnn]'")


def test_the_driver_is_missing(site: Path, stand_in: ModuleType) -> None:
    libraries(stand_in, site / "nvidia" / "cu13" / "lib", driver=False)
    assert cuda().found == f"does not start: {DRIVER} is missing"


def test_libraries_in_packages_of_python_are_enough(
    site: Path, stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries(stand_in, site / "nvidia" / "cu13" / "lib", driver=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries(stand_in, site / "driver", driver=True)))
    assert cuda() == Finding("ONNX Runtime", "CUDA", OK, "starts and runs a graph")
