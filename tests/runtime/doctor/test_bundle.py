"""A bundle: whole, damaged in one way after the other, and at work."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from igpt_runtime.bundle.bundle import demo_bundle_path, open_bundle
from igpt_runtime.doctor import bundle as bundles
from igpt_runtime.doctor.child import Outcome
from igpt_runtime.doctor.finding import BROKEN, OK, UNKNOWN, Finding
from igpt_runtime.engine import memory
from igpt_runtime.progress import SILENT, Progress

EditManifest = Callable[[Path, Callable[[dict[str, Any]], Any]], None]
ReplaceFile = Callable[[Path, str, bytes], None]


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy of the embedded bundle."""
    return copytree(demo_bundle_path(), tmp_path / "demo")


def look(path: Path | None, progress: Progress = SILENT, hindrance: str | None = None) -> dict[str, Finding]:
    name = None if path is None else str(path)
    return {f.name: f for f in bundles.bundle(name, "cpu", None, progress, hindrance=hindrance)}


def test_the_embedded_bundle() -> None:
    findings = look(None)
    assert {finding.status for finding in findings.values()} == {OK}
    assert list(findings) == ["manifest", "files", "graphs", "drawing", "available"]
    manifest = open_bundle(None).manifest
    assert findings["graphs"].found == f"all {len(manifest.graphs)} open"
    assert findings["files"].found.startswith(f"{len(manifest.files)} files, ")
    assert findings["drawing"].found.startswith("drew 2 tokens on the CPU in ")
    assert "64 pictures of demo at once" in findings["available"].found


def test_no_bundle(tmp_path: Path) -> None:
    findings = look(tmp_path)
    assert findings["manifest"].status == BROKEN and str(tmp_path) in findings["manifest"].found
    assert findings["manifest"].remedy == "make one with igpt-export"
    assert list(findings) == ["manifest", "available"]


def test_another_version(demo: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(demo, lambda record: record.update(format_version=6))
    finding = look(demo)["manifest"]
    assert finding.status == BROKEN and "has format_version 6" in finding.found
    assert finding.remedy == "install the matching igpt-onnx or export the bundle again"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (Path.unlink, "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes instead of"),
        (flip, "does not match its sha256"),
    ],
    ids=["missing", "cut", "changed"],
)
@pytest.mark.parametrize("name", ["weights.safetensors", "score.onnx"])
def test_damaged_files(demo: Path, damage: Callable[[Path], Any], text: str, name: str) -> None:
    """Each is named; nothing is opened then."""
    damage(demo / name)
    damage(demo / "decode.onnx")
    findings = look(demo)
    for file in (name, "decode.onnx"):
        assert findings[file].status == BROKEN and text in findings[file].found
        assert findings[file].remedy == "copy or export the bundle again"
    assert "files" not in findings and "drawing" not in findings
    assert (findings["graphs"].status, findings["graphs"].found) == (UNKNOWN, "not opened, since files are damaged")


def test_graphs_that_do_not_open(demo: Path, replace_file: ReplaceFile) -> None:
    """Files may be what the manifest says and no graphs all the same."""
    replace_file(demo, "score.onnx", b"no graph")
    replace_file(demo, "features.onnx", (demo / "prefill.onnx").read_bytes()[:-1000])
    findings = look(demo)
    assert findings["files"].status == OK
    assert {name for name, finding in findings.items() if finding.status == BROKEN} == {"score.onnx", "features.onnx"}
    assert "score.onnx cannot be cut" in findings["score.onnx"].found
    assert "graphs" not in findings and "drawing" not in findings


def test_a_graph_that_does_not_run(demo: Path, replace_file: ReplaceFile) -> None:
    """One that opens and is another."""
    replace_file(demo, "decode.onnx", (demo / "postprocess.onnx").read_bytes())
    finding = look(demo)["decode.onnx"]
    assert finding.status == BROKEN and finding.remedy == "export the bundle again"


def test_a_classifier(demo: Path, edit_manifest: EditManifest) -> None:
    def remove(record: dict[str, Any]) -> None:
        for name in ("decode", "decode_shared", "complete"):
            del record["graphs"][name], record["files"][f"{name}.onnx"]

    edit_manifest(demo, remove)
    findings = look(demo)
    assert findings["prefill"] == Finding(
        "bundle", "prefill", OK, "runs on the CPU; this bundle classifies and does not draw"
    )
    assert findings["graphs"].found == "all 6 open"


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 100_000_000)
    findings = look(None)
    assert findings["available"].status == BROKEN and "0.10 GB are available" in findings["available"].found
    assert findings["graphs"].found == "not opened, since memory does not suffice"
    monkeypatch.setattr(memory, "available_memory", lambda: 280_000_000)
    assert look(None)["available"].found.startswith("0.3 GB, enough to draw ")
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert look(None)["available"].status == UNKNOWN


def test_a_hindrance() -> None:
    finding = look(None, hindrance="packages are broken")["graphs"]
    assert (finding.status, finding.found) == (UNKNOWN, "not opened, since packages are broken")


class Recorded(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.last = (0, 0, "")

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def count(self, done: int, total: int, unit: str) -> None:
        self.last = (done, total, unit)


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only large files are worth a word."""
    small = Recorded()
    look(None, small, hindrance="nothing")
    assert small.stages == []
    monkeypatch.setattr(bundles, "_LARGE", 1 << 20)
    monkeypatch.setattr(bundles, "_BLOCK", 1 << 16)
    large = Recorded()
    look(None, large)
    assert large.stages == ["weights.safetensors", "opening the graphs"]
    size = open_bundle(None).manifest.files["weights.safetensors"].size
    assert large.last[1:] == (size, "bytes") or large.last[0] == large.last[1]


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome({"at": "opening decode.onnx"}, "", "was ended by SIGKILL"), "while opening decode.onnx; memory may"),
        (Outcome({"at": "drawing"}, "", "was ended by SIGSEGV"), "the process was ended by SIGSEGV while drawing"),
        (Outcome({"errors": {}, "at": "drawing", "error": "no; export again"}, "", None), "no"),
        (
            Outcome({"errors": {}, "tokens": [3, 512], "seconds": 0.1, "provider": "CPUExecutionProvider"}, "", None),
            "drew [3, 512] on the CPU, which are no colours",
        ),
        (
            Outcome({"errors": {}, "finite": False, "seconds": 0.1, "provider": "CUDAExecutionProvider"}, "", None),
            "gives features that are no numbers on CUDA",
        ),
    ],
)
def test_what_may_happen_at_work(monkeypatch: pytest.MonkeyPatch, outcome: Outcome, text: str) -> None:
    monkeypatch.setattr(bundles, "run", lambda *_, **__: outcome)
    broken = [f for f in bundles.at_work(open_bundle(None), "cpu", None, SILENT) if f.status == BROKEN]
    assert len(broken) == 1 and text in broken[0].found and broken[0].remedy
