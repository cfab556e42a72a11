"""Another run writes the same file between the first look at its name and the end of the work."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result

from igpt_runtime import files
from igpt_runtime.errors import OutputError
from igpt_runtime.files import atomic_write

COMMANDS = {
    "complete": ["complete", "PICTURE", "-o", "out.png"],
    "sample": ["sample", "-n", "1", "-o", "out.png"],
    "classify": ["classify", "PICTURE", "-o", "out.csv"],
    "features": ["features", "PICTURE", "-o", "out.npz"],
    "score": ["score", "PICTURE", "-o", "out.json"],
}


@pytest.fixture
def another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is the first to write each file."""
    real = files.unfinished

    @contextmanager
    def late(place: Path) -> Iterator[Path]:
        place.write_text("of the other run")
        with real(place) as path:
            yield path

    monkeypatch.setattr(files, "unfinished", late)


@pytest.mark.usefixtures("another_run")
@pytest.mark.parametrize("command", COMMANDS)
def test_its_result_stays(command: str, run: Callable[..., Result], picture: Path) -> None:
    arguments = [picture if argument == "PICTURE" else argument for argument in COMMANDS[command]]
    output = Path(arguments[-1])
    result = run(*arguments, status=1)
    assert f"{output} exists; add --force to overwrite it" in result.stderr.splitlines()[-1]
    assert output.read_text() == "of the other run"
    run(*arguments, "--force")
    assert output.read_bytes() != b"of the other run"


def test_disks_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "file"
    atomic_write(path, b"first", force=False)
    with pytest.raises(OutputError, match="exists; add --force"):
        atomic_write(path, b"second", force=False)
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["file"]
