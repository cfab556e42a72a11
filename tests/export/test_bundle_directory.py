"""A bundle is put in its place whole, in one step, and what is not the bundle's is never deleted."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from igpt_export import bundle_directory as module
from igpt_export.bundle_directory import bundle_directory
from igpt_runtime.errors import OutputError


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_exchange", lambda *_: False)


@pytest.mark.parametrize("exchange", [True, False])
def test_replacing(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        without_exchange(monkeypatch)
    with bundle_directory(bundle_copy, force=True) as staging:
        (staging / "new").write_text("new")
        assert (bundle_copy / "manifest.json").exists()
    assert contents(bundle_copy) == {"new": b"new"} and os.listdir(bundle_copy.parent) == [bundle_copy.name]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no renameat2")
def test_no_moment_is_without_a_bundle(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("a rename that is not the exchange")

    monkeypatch.setattr(Path, "rename", fail)
    monkeypatch.setattr(os, "rename", fail)
    with bundle_directory(bundle_copy, force=True) as staging:
        (staging / "new").write_text("new")
    assert contents(bundle_copy) == {"new": b"new"}


def test_failed_replacement_leaves_the_old_bundle(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError(5, "the disk is broken", str(target))
        return rename(self, target)

    without_exchange(monkeypatch)
    monkeypatch.setattr(Path, "rename", fail)
    before = contents(bundle_copy)
    with pytest.raises(OutputError, match="the disk is broken"), bundle_directory(bundle_copy, force=True) as staging:
        (staging / "new").write_text("new")
    assert contents(bundle_copy) == before and os.listdir(bundle_copy.parent) == [bundle_copy.name]


KILLED = """
import os, signal, sys
from pathlib import Path
from igpt_export import bundle_directory as module
rename, done = Path.rename, []
def killed(self, target):
    rename(self, target)
    done.append(target)
    if len(done) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = killed
module._exchange = lambda *_: False
with module.bundle_directory(Path(sys.argv[1]), force=True) as staging:
    (staging / "new").write_text("new")
"""


@pytest.mark.parametrize("renames", [1, 2])
def test_killed_between_two_renames(bundle_copy: Path, renames: int) -> None:
    """Where there is no exchange, the next run puts the old bundle back."""
    before = contents(bundle_copy)
    subprocess.run([sys.executable, "-c", KILLED, str(bundle_copy), str(renames)], check=False)
    assert bundle_copy.exists() == (renames == 2) and len(os.listdir(bundle_copy.parent)) > 1
    with pytest.raises(OutputError, match="exists"), bundle_directory(bundle_copy, force=False):
        pass
    assert contents(bundle_copy) == (before if renames == 1 else {"new": b"new"})
    assert os.listdir(bundle_copy.parent) == [bundle_copy.name]


def test_what_appears_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"), bundle_directory(tmp_path / "new", force=False):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "mine").write_text("mine")
    assert (tmp_path / "new" / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([".git/HEAD"], id="repository"),
        pytest.param(["notes.txt"], id="file"),
        pytest.param(["README.md"], id="card that was edited"),
        pytest.param([".gitattributes", "a", "b", "c", "examples/x.png"], id="many"),
    ],
)
def test_what_the_manifest_does_not_name_is_not_deleted(bundle_copy: Path, more: list[str]) -> None:
    for name in more:
        (bundle_copy / name).parent.mkdir(exist_ok=True)
        (bundle_copy / name).write_text("mine")
    before = contents(bundle_copy)
    with pytest.raises(OutputError) as raised, bundle_directory(bundle_copy, force=True):
        raise AssertionError("the work has begun")
    line = str(raised.value)
    assert more[0].split("/")[0] in line and "move that away" in line and line.count("\n") == 0
    assert ("and 2 more" in line) == (len(more) == 5)
    assert contents(bundle_copy) == before


def test_what_comes_during_the_work_is_not_deleted(bundle_copy: Path) -> None:
    with pytest.raises(OutputError, match="notes"), bundle_directory(bundle_copy, force=True) as staging:
        (staging / "new").write_text("new")
        (bundle_copy / "notes").write_text("mine")
    assert (bundle_copy / "notes").read_text() == "mine" and (bundle_copy / "manifest.json").exists()


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EPERM])
def test_an_exchange_that_is_refused(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A mount point cannot be renamed, for one."""

    def fail(one: Path, other: Path) -> bool:
        raise OSError(code, os.strerror(code), str(other))

    monkeypatch.setattr(module, "_exchange", fail)
    before = contents(bundle_copy)
    with pytest.raises(OutputError, match="cannot write"), bundle_directory(bundle_copy, force=True):
        pass
    assert contents(bundle_copy) == before and os.listdir(bundle_copy.parent) == [bundle_copy.name]


@pytest.mark.parametrize(
    ("name", "reason"), [("a" * 300, "give a shorter name with --output"), ("a\0b", "choose another --output")]
)
def test_names_that_cannot_be(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(OutputError, match=reason), bundle_directory(tmp_path / name, force=False):
        raise AssertionError("the work has begun")
