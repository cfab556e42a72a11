"""Libraries that would write into the home directory, without one and with one they have written into before."""

import os
from pathlib import Path

import pytest

from igpt_export.home import untouched_home

VARIABLES = ("KERAS_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def found() -> list[str | None]:
    return [os.environ.get(name) for name in VARIABLES[:2]]


def test_both_write_elsewhere() -> None:
    with untouched_home():
        keras, matplotlib = found()
        assert keras == os.devnull and matplotlib and Path(matplotlib).is_dir()
    assert found() == [None, None] and not Path(matplotlib).exists()


def test_what_the_user_has_is_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".keras").mkdir()
    (home / "elsewhere/matplotlib").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))
    with untouched_home():
        assert found() == [None, None]
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.setenv("MPLCONFIGDIR", str(home))
    with untouched_home():
        assert found() == [str(home)] * 2
    assert found() == [str(home)] * 2
