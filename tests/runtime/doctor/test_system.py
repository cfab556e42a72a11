"""The interpreter, the operating system, and places to write to."""

import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

from igpt_runtime.doctor import system
from igpt_runtime.doctor.finding import BROKEN, OK, WARNING, Finding


def python(minimum: tuple[int, ...] | None = (3, 11)) -> dict[str, Finding]:
    return {finding.name: finding for finding in system.python(minimum)}


def files() -> dict[str, Finding]:
    return {finding.name: finding for finding in system.files()}


def test_this_interpreter() -> None:
    findings = python()
    assert findings["version"].status == findings["environment"].status == OK
    assert platform.python_version() in findings["version"].found
    assert sys.prefix in findings["environment"].found


def test_an_interpreter_that_is_too_old() -> None:
    finding = python((99, 1))["version"]
    assert finding.status == BROKEN and str(finding.remedy).endswith("of version 99.1 or later")


def test_an_interpreter_that_no_package_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_implementation", lambda: "PyPy")
    assert python()["version"].status == BROKEN
    monkeypatch.undo()
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    finding = python()["version"]
    assert finding.status == BROKEN and "32-bit" in finding.found


@pytest.mark.parametrize(
    ("name", "machine", "status"),
    [
        ("Linux", "x86_64", OK), ("Linux", "aarch64", OK), ("Linux", "riscv64", WARNING), ("Darwin", "x86_64", WARNING),
        ("Darwin", "arm64", OK), ("Windows", "AMD64", OK), ("Windows", "x86", WARNING), ("FreeBSD", "amd64", WARNING),
    ],
)  # fmt: skip
def test_platforms(monkeypatch: pytest.MonkeyPatch, name: str, machine: str, status: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: name)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), ""))
    assert python()["platform"].status == status


def test_systems_that_no_package_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: "cpython-311-x86_64-linux-musl")
    assert "musl" in python()["platform"].found and python()["platform"].status == WARNING
    monkeypatch.undo()
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("13.6", ("", "", ""), ""))
    assert "macOS 13.6" in python()["platform"].found and python()["platform"].status == WARNING


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one encoding")
def test_an_encoding_that_is_not_utf8() -> None:
    code = """
import json
from igpt_runtime.doctor.system import files
print(json.dumps([[finding.name, finding.status, finding.remedy] for finding in files()]))"""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ["file names", WARNING, "set PYTHONUTF8=1"] in json.loads(done.stdout)


def test_a_closed_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    assert files()["streams"].status == OK
    monkeypatch.setattr(sys, "stdin", None)
    finding = files()["streams"]
    assert (finding.status, finding.found) == (WARNING, "standard input closed")


def test_places_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at is left as it was."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    findings = files()
    assert findings["temporary"] == Finding("files", "temporary", OK, f"{tmp_path} can be written")
    assert findings["hub cache"].found == f"{tmp_path / 'not' / 'yet' / 'hub'} can be written"
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(tempfile, "tempdir", str(file))
    finding = files()["temporary"]
    assert finding.status == BROKEN and finding.found.startswith(f"{file} cannot be written (")

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    finding = files()["temporary"]
    assert finding.status == BROKEN and "No usable temporary directory" in finding.found


def test_a_temporary_directory_that_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    finding = files()["temporary"]
    assert finding.status == WARNING
    assert finding.found == f"TMPDIR is {tmp_path / 'missing'}, which cannot be used; {tempfile.gettempdir()} is"


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("HF_HOME", str(file))
    finding = files()["hub cache"]
    assert finding.status == WARNING and finding.remedy == "make it writable, or set HF_HOME"
    assert finding.found.startswith(f"{file / 'hub'} cannot be written (")


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"), ({"HF_HOME": "/b"}, "/b/hub"), ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/d"}, "/d/.cache/huggingface/hub"), ({"HF_HOME": "$HOME/e", "HOME": "/d"}, "/d/e/hub"),
    ],
)  # fmt: skip
def test_the_hub_cache_is_where_the_hub_has_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert system._hub_cache() == Path(place)
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{place}\n"
