"""`igpt-run doctor`, in this installation and in ones that lack packages."""

import json
import os
import re
import subprocess
import venv
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL
import pytest
from click.testing import CliRunner

from igpt_runtime.bundle.bundle import demo_bundle_path
from igpt_runtime.commands.doctor import doctor

ROOT = Path(__file__).resolve().parents[3] / "runtime" / "python"
Installation = Callable[..., list[str]]


def named(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in record["findings"]}


def test_as_json() -> None:
    result = CliRunner().invoke(doctor, ["--json"])
    record = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert record["ok"] is True and set(record) == {"ok", "findings"}
    assert {tuple(finding) for finding in record["findings"]} == {("topic", "name", "status", "found", "remedy")}
    topics = list(dict.fromkeys(finding["topic"] for finding in record["findings"]))
    expected = ["Python", "packages", "ONNX Runtime", "processor", "telemetry", "files", "bundle", "memory"]
    assert topics == expected
    assert {finding["status"] for finding in record["findings"]} <= {"ok", "warning", "unknown"}
    for finding in record["findings"]:
        assert (finding["remedy"] is None) == (finding["status"] == "ok")
        assert "\n" not in finding["found"] + (finding["remedy"] or "")
    assert named(record)["drawing"]["found"].startswith("drew 2 tokens on the CPU")


def test_as_text(tiny_bundle: Path) -> None:
    result = CliRunner().invoke(doctor, ["--model", str(tiny_bundle)])
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "Python" and lines[1].startswith("  ok  version ")
    assert any(line.startswith("  ok  manifest ") and str(tiny_bundle) in line for line in lines)
    assert lines[-1] == "everything works" or lines[-1].startswith("nothing is broken, ")


@pytest.mark.parametrize("options", [["--json"], []], ids=["json", "text"])
def test_a_damaged_bundle(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    (bundle_copy / "decode.onnx").unlink()
    monkeypatch.setenv("IGPT_MODEL", str(bundle_copy))
    result = CliRunner().invoke(doctor, options)
    assert result.exit_code == 1
    if options:
        record = json.loads(result.stdout)
        assert record["ok"] is False
        assert named(record)["decode.onnx"]["status"] == "broken"
        assert named(record)["graphs"]["found"] == "not opened, since files are damaged"
    else:
        lines = result.stdout.splitlines()
        (broken,) = (number for number, line in enumerate(lines) if line.startswith("  x  "))
        assert f"{bundle_copy / 'decode.onnx'} is missing" in lines[broken]
        assert lines[broken + 1].strip() == "-> copy or export the bundle again"
        assert lines[-1].startswith("1 thing is broken")


def test_cuda_where_there_is_none() -> None:
    result = CliRunner().invoke(doctor, ["--device", "cuda", "--json"])
    assert result.exit_code == 1
    findings = named(json.loads(result.stdout))
    assert findings["CUDA"]["status"] == "broken"
    assert findings["graphs"]["found"] == "not opened, since ONNX Runtime does not start on CUDA"


def test_threads() -> None:
    many = (os.cpu_count() or 1) + 1
    finding = named(json.loads(CliRunner().invoke(doctor, ["--threads", str(many), "--json"]).stdout))["threads"]
    assert finding["status"] == "warning" and finding["found"].startswith(f"{many}, as --threads says, but ")


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """A function that gives the command of an installation of igpt-run with some packages only."""
    venv.create(tmp_path / "bare", symlinks=os.name != "nt")
    places = {"click": Path(click.__file__).parent, "numpy": Path(np.__file__).parent, "PIL": Path(PIL.__file__).parent}

    def install(*packages: str) -> list[str]:
        folder = tmp_path / "packages"
        folder.mkdir()
        for place in (places[name] for name in packages):
            for path in (place, place.with_name(f"{place.name}.libs")):
                if path.exists():
                    (folder / path.name).symlink_to(path)
        own = metadata.distribution("igpt-onnx").read_text("METADATA")
        assert own is not None
        information = folder / "igpt_onnx-0.1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(own)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
        scripts = tmp_path / "bare" / ("Scripts" if os.name == "nt" else "bin")
        return [str(scripts / "python"), "-m", "igpt_runtime", "doctor"]

    return install


@pytest.mark.parametrize("packages", [("click",), ("click", "numpy"), ("click", "PIL")], ids=", ".join)
def test_packages_are_missing(installation: Installation, packages: tuple[str, ...]) -> None:
    done = subprocess.run([*installation(*packages), "--json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    record = json.loads(done.stdout)
    findings = named(record)
    missing = {"rich", "onnxruntime", *({"numpy", "pillow"} - {{"PIL": "pillow"}.get(name, name) for name in packages})}
    assert {name for name, finding in findings.items() if finding["status"] == "broken"} == missing
    for name in missing:
        assert findings[name]["found"] == "not installed"
        assert findings[name]["remedy"].startswith(f"run: pip install '{name}>=")
    assert findings["model"]["status"] == "ok"
    if "numpy" in packages:  # the files can be looked at, and no graph can be opened
        assert findings["manifest"]["found"].endswith(str(demo_bundle_path()))
        assert findings["files"]["status"] == "ok"
        assert findings["graphs"]["found"] == "not opened, since packages are broken"
    else:
        assert findings["manifest"]["found"] == "not read, since it takes numpy"


def test_text_where_packages_are_missing(installation: Installation) -> None:
    done = subprocess.run(installation("click"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"^  x   onnxruntime +not installed\n +-> run: pip install ", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1].startswith("4 things are broken, ")
