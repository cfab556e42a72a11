"""Installations that are not there."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that has a distribution of a name and version installed, with some files, found before real ones."""
    place = tmp_path / "installed"

    def install(name: str, version: str, *files: str) -> None:
        folder = place / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        monkeypatch.syspath_prepend(place)

    return install
