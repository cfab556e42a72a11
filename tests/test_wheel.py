"""The wheel: what is in it, and that it works in an environment that has never heard of torch."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
DEMO = "igpt_runtime/demo/"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function that runs a command of a fresh environment that has the wheel with its extra `cpu`."""
    directory = tmp_path_factory.mktemp("clean")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([sys.executable, "-m", "venv", directory / "env"], check=True, env=environment)
    (directory / "work").mkdir()

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(directory / "env" / "bin" / program), *map(str, arguments)]
        return subprocess.run(
            command, cwd=directory / "work", env=environment, capture_output=True, text=True, check=False
        )

    done = run("pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[cpu]")
    assert done.returncode == 0, done.stderr
    return run


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"igpt_export", "igpt_runtime"}
    assert "igpt_runtime/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    code = {str(path.relative_to(ROOT / "runtime/python")) for path in (ROOT / "runtime/python").rglob("*.py")}
    code |= {str(path.relative_to(ROOT)) for path in (ROOT / "igpt_export").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == code
    assert wheel.stat().st_size < 12e6


def test_embedded_demo_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        demo = {name.removeprefix(DEMO) for name in archive.namelist() if name.startswith(DEMO)}
    assert demo >= {"manifest.json", "prefill.onnx", "decode.onnx", "weights.safetensors"}


def test_environment_is_free_of_the_exporters_packages(installed: Run) -> None:
    for package in ("torch", "onnx", "onnxscript", "safetensors", "transformers"):
        assert "ModuleNotFoundError" in installed("python", "-c", f"import {package}").stderr
    assert installed("python", "-W", "error", "-c", "import igpt_runtime").returncode == 0
    done = installed("igpt-export", "--variant", "demo")
    assert (
        done.returncode == 1
        and "pip install -c constraints.txt '.[export]'" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_commands_without_torch(installed: Run, tiny_bundle: Path, picture: Path) -> None:
    record = json.loads(installed("igpt-run", "info", "--model", tiny_bundle, "--json").stdout)
    assert record["name"] == "tiny" and record["provider"] == "CPUExecutionProvider"
    for command in (["complete", picture, "-n", 2], ["sample", "-n", 2], ["classify", picture],
                    ["features", picture, "-o", "features.npz"]):  # fmt: skip
        done = installed("igpt-run", *command, "--model", tiny_bundle)
        assert done.returncode == 0 and done.stdout, done.stderr


def test_embedded_demo(installed: Run, picture: Path, tmp_path: Path) -> None:
    done = installed("igpt-run", "info")
    assert done.returncode == 0, done.stderr
    assert "classifier:" in done.stdout
    done = installed("igpt-run", "complete", picture, "-n", 2, "-o", tmp_path / "completed.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'completed.png'}\n"
    with Image.open(tmp_path / "completed.png") as sheet:
        assert sheet.format == "PNG"
