"""Threads wait busily only where nothing else wants the cores."""

import os
from pathlib import Path
from typing import Any

import pytest

from igpt_runtime.engine import session as session_module
from igpt_runtime.engine import spinning
from igpt_runtime.engine.session import open_session
from igpt_runtime.engine.spinning import ALLOW_SPINNING, may_spin
from igpt_runtime.errors import OptionError


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that pretends a machine of some cores, on which so many threads run, this one included."""

    def pretend(cores: int, running: int | str, quota: float | None = None, allowed: int | None = None) -> None:
        (tmp_path / "loadavg").write_text(f"9.00 9.00 9.00 {running}/321 12345\n")
        monkeypatch.setattr(spinning, "_LOAD", tmp_path / "loadavg")
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed or cores)), raising=False)
        monkeypatch.setattr(spinning, "cpu_quota", lambda: quota)

    return pretend


@pytest.mark.parametrize(
    ("cores", "running", "threads", "expected"),
    [
        (2, 1, None, True),
        (2, 2, None, False),
        (2, 2, 1, True),
        (2, 3, 1, False),
        (8, 5, 4, True),
        (8, 6, 4, False),
        (8, 1, 99, True),  # it cannot run more than there are
        (2, 0, None, True),
        (2, "?", None, True),
    ],
)
def test_auto_looks_for_other_work(
    machine: Any, cores: int, running: int | str, threads: int | None, expected: bool
) -> None:
    machine(cores, running)
    assert may_spin("auto", threads) is expected
    assert may_spin("always", threads) and not may_spin("never", threads)


def test_auto_heeds_limits(machine: Any) -> None:
    machine(64, 1, quota=1.5)
    assert not may_spin("auto", 4) and may_spin("auto", 1)
    machine(64, 1, quota=4, allowed=4)
    assert may_spin("auto", None)


def test_a_system_without_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spinning, "_LOAD", tmp_path / "absent")
    monkeypatch.setattr(spinning, "cpu_quota", lambda: None)
    assert may_spin("auto", None)


def test_an_unknown_choice(tiny_bundle: Path) -> None:
    with pytest.raises(OptionError, match="unknown spin 'maybe'; choose one of auto, always, never"):
        open_session(tiny_bundle, spin="maybe")


@pytest.mark.parametrize("spins", [True, False])
def test_graphs_are_opened_so(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, spins: bool) -> None:
    monkeypatch.setattr(session_module, "may_spin", lambda *_: spins)
    options = open_session(tiny_bundle, device="cpu").graph("decode").get_session_options()
    if spins:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(ALLOW_SPINNING)
    else:
        assert options.get_session_config_entry(ALLOW_SPINNING) == "0"
