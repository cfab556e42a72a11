"""What is unfinished belongs to its run, and is removed when that run is gone."""

import ast
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from igpt_runtime import unfinished as module
from igpt_runtime.errors import OutputError
from igpt_runtime.files import atomic_path, atomic_write, check_writable
from igpt_runtime.unfinished import is_unfinished, remove_leftovers, unfinished

WAITING = """
import sys
from pathlib import Path
from igpt_runtime.unfinished import unfinished
with unfinished(Path(sys.argv[1]), directory=len(sys.argv) > 2) as path:
    if path.is_dir():
        (path / "weights").write_text("half")
    print(ascii(path.name), flush=True)
    sys.stdin.read()
"""


@contextmanager
def writer(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of its work."""
    command = [sys.executable, "-c", WAITING, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = ast.literal_eval(process.stdout.readline())
        assert is_unfinished(name) and f"-{process.pid}-" in name
        yield process


def kill(*arguments: str) -> None:
    with writer(*arguments) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("directory", [False, True])
def test_of_the_living_and_of_the_dead(tmp_path: Path, directory: bool) -> None:
    place = str(tmp_path / "x.png")
    more = ["directory"] if directory else []
    kill(place, *more)
    kill(str(tmp_path / "other.png"), *more)
    left = set(os.listdir(tmp_path))
    assert len(left) == 2
    with writer(place, *more):
        remove_leftovers([place])
        now = os.listdir(tmp_path)
        assert len(now) == 2 and len(left & set(now)) == 1  # the other's, which is another output's, and the living's
        remove_leftovers([place])
        assert len(os.listdir(tmp_path)) == 2
    remove_leftovers([place, tmp_path / "other.png"])
    assert os.listdir(tmp_path) == []


def test_commands_clean_up_before_they_refuse(tmp_path: Path) -> None:
    place = tmp_path / "x.png"
    place.write_text("mine")
    kill(str(place))
    with pytest.raises(OutputError, match="exists"):
        check_writable([str(place)], force=False)
    assert os.listdir(tmp_path) == ["x.png"] and place.read_text() == "mine"


def test_beside_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "there" / "real.png")
    kill(str(tmp_path / "there" / "real.png"))
    check_writable([str(tmp_path / "link.png")], force=False)
    assert os.listdir(tmp_path / "there") == []


@pytest.mark.parametrize(
    "name",
    [
        "a" * 251 + ".png",
        "\u00e9" * 120 + ".png",
        "a." + "x" * 250,
        "b\nc.png",
        "\udcff\udcfe.png",
        ".partial-1-aaaaaaaa",
    ],
)
def test_any_name(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    atomic_write(place, b"data")
    assert place.read_bytes() == b"data" and len(os.listdir(tmp_path)) == 1
    kill(str(place))
    assert len(os.listdir(tmp_path)) == 2
    remove_leftovers([place])
    assert len(os.listdir(tmp_path)) == 1


def test_what_only_looks_alike_is_kept(tmp_path: Path) -> None:
    for name in (".x.png.partial-1", ".x.png.partial-1-zzzzzzzz.png", "x.png.partial", ".x.partial-1-0123abcd.png"):
        (tmp_path / name).write_text("mine")
    (tmp_path / ".x.png.partial-2-0123abcd.png").symlink_to(tmp_path / ".x.png.partial-1")
    before = set(os.listdir(tmp_path))
    remove_leftovers([tmp_path / "x.png"])
    assert set(os.listdir(tmp_path)) == before


def test_where_there_are_no_locks_nothing_is_taken_for_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(str(tmp_path / "x.png"))
    monkeypatch.setattr(module, "take_lock", lambda _: None)
    check_writable([str(tmp_path / "x.png")], force=False)
    assert len(os.listdir(tmp_path)) == 1
    with atomic_path(tmp_path / "x.png") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "x.png").read_text() == "new" and len(os.listdir(tmp_path)) == 2


def test_writers_and_cleaners_at_once(tmp_path: Path) -> None:
    """Nobody removes what another has just created."""
    place, failures, end = tmp_path / "x.bin", [], threading.Event()

    def clean() -> None:
        while not end.is_set():
            remove_leftovers([place])

    def write(value: int) -> None:
        try:
            for _ in range(100):
                with unfinished(place) as path:
                    path.write_bytes(b"%d" % value)
                    os.replace(path, place)
        except OSError as error:
            failures.append(error)

    cleaner = threading.Thread(target=clean)
    writers = [threading.Thread(target=write, args=(i,)) for i in range(3)]
    for thread in (cleaner, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    end.set()
    cleaner.join()
    assert failures == [] and os.listdir(tmp_path) == ["x.bin"]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("a" * 300, "File name too long; choose a shorter name with -o"), ("a\0b", "choose another name")],
)
def test_names_that_cannot_be(tmp_path: Path, name: str, remedy: str) -> None:
    for attempt in (lambda path: check_writable([path], force=True), lambda path: atomic_write(path, b"")):
        with pytest.raises(OutputError, match=remedy):
            attempt(str(tmp_path / name))
