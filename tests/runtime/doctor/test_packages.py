"""Which packages are there, and of which versions."""

import re
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from igpt_runtime.doctor.finding import BROKEN, OK, UNKNOWN, WARNING, Finding
from igpt_runtime.doctor.packages import Minimums, minimums, onnxruntime, onnxruntimes, packages, release

PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
MODULE = "onnxruntime/__init__.py"
Distribution = Callable[..., None]


def found() -> dict[str, Finding]:
    return {finding.name: finding for finding in packages(minimums())}


def test_what_is_declared_is_what_the_project_says() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    declared = minimums()
    requirements = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    requirements += project["optional-dependencies"]["gpu"]
    for requirement in requirements:
        name, version = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
        assert declared.packages[name] == version
        assert declared.requirement(name) == f"'{requirement}'"
    assert declared.python is not None and project["requires-python"] == f">={'.'.join(map(str, declared.python))}"


def test_this_installation() -> None:
    findings = found()
    assert {"igpt-onnx", "numpy", "pillow", "click", "rich", "onnxruntime"} <= findings.keys()
    assert {finding.status for finding in findings.values()} == {OK}
    assert re.fullmatch(r"\d+\.\d+\.\d+", findings["numpy"].found)
    assert findings["scikit-learn"].found.endswith(", for igpt-run probe")


def test_a_source_tree_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the versions that it needs are not known, and none is too old."""
    version = metadata.version

    def not_ours(name: str) -> str:
        if name == "igpt-onnx":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", not_ours)
    monkeypatch.setattr(metadata, "metadata", not_ours)
    assert minimums() == Minimums()
    findings = found()
    assert findings["igpt-onnx"].status == UNKNOWN and findings["igpt-onnx"].remedy
    assert {finding.status for name, finding in findings.items() if name != "igpt-onnx"} == {OK}


def test_no_heavy_package_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = ("torch", "onnx", "sklearn", "matplotlib", "pyarrow", "tensorflow", "onnxruntime")
    for name in heavy:
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises, and its spec cannot be found
    monkeypatch.delitem(sys.modules, "onnxruntime")
    assert found()["torch"].status == OK
    assert "onnxruntime" not in sys.modules


def test_two_of_onnxruntime(distribution: Distribution) -> None:
    distribution("onnxruntime-gpu", "1.31.1", MODULE)
    finding = onnxruntime(minimums())
    version = onnxruntimes()["onnxruntime"]
    assert finding.status == BROKEN
    assert finding.found == f"onnxruntime {version} and onnxruntime-gpu 1.31.1, which overwrite each other"
    assert finding.remedy is not None
    assert finding.remedy.startswith("run: pip uninstall -y onnxruntime onnxruntime-gpu; then: pip install ")


def test_other_packages_of_onnxruntime(distribution: Distribution) -> None:
    """Some bring the same module by another name; others bring one of their own and do no harm."""
    distribution("onnxruntime-extensions", "0.15.0", "onnxruntime_extensions/__init__.py")
    assert onnxruntime(minimums()).status == OK
    distribution("onnxruntime-directml", "1.24.0", MODULE)
    assert "onnxruntime-directml 1.24.0" in onnxruntime(minimums()).found


def test_an_onnxruntime_that_is_too_old(distribution: Distribution, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution("onnxruntime", "1.17.3", MODULE)
    monkeypatch.setattr(sys, "path", sys.path[:1])
    finding = onnxruntime(Minimums(packages={"onnxruntime": "1.32"}))
    expected = Finding("packages", "onnxruntime", BROKEN, "1.17.3 is too old", "run: pip install 'onnxruntime>=1.32'")
    assert finding == expected


def test_no_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    finding = onnxruntime(Minimums(packages={"onnxruntime": "1.32"}))
    assert (finding.status, finding.found) == (BROKEN, "not installed")
    assert finding.remedy == "run: pip install 'onnxruntime>=1.32', or onnxruntime-gpu for CUDA"


def test_an_onnxruntime_that_no_package_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / MODULE).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    finding = onnxruntime(Minimums())
    assert (finding.status, finding.found) == (UNKNOWN, f"not from a package: {tmp_path / MODULE}")


@pytest.mark.parametrize(
    ("name", "version", "status", "text"),
    [
        ("numpy", "1.26.4", BROKEN, "1.26.4 is too old"),
        ("torch", "2.5.0+cpu", WARNING, "2.5.0+cpu, too old for igpt-export"),
    ],
)
def test_a_package_that_is_too_old(distribution: Distribution, name: str, version: str, status: str, text: str) -> None:
    distribution(name, version)
    finding = found()[name]
    assert (finding.status, finding.found) == (status, text)
    assert finding.remedy == f"run: pip install {minimums().requirement(name)}" and ">=" in finding.remedy


def test_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    finding = found()["pillow"]
    assert finding.status == BROKEN and "cannot be imported (ModuleNotFoundError: " in finding.found
    assert finding.remedy is not None and finding.remedy.startswith("run: pip install --force-reinstall 'pillow>=")


def test_a_package_whose_import_fails_in_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rich.py").write_text("raise SystemError('built for another Python')")
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    finding = found()["rich"]
    assert finding.status == BROKEN and "(SystemError: built for another Python)" in finding.found


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.13.0", (2, 13, 0)), ("2.13.0+cpu", (2, 13, 0)), ("3.0rc1", (3, 0)), ("10", (10,)), ("unknown", ())],
)
def test_release(version: str, numbers: tuple[int, ...]) -> None:
    assert release(version) == numbers
    assert Minimums(packages={"a": "2.9"}).is_met("a", version) == (numbers >= (2, 9))
