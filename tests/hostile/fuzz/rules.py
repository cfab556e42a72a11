"""What a command must not do, whatever it is given."""

import json
import os
import re
import signal
import stat
from pathlib import Path
from typing import Any

from hostile.fuzz.forks import BYTES, Outcome

# Lines of stderr besides the one that tells the fault: progress, and what was done or passed over.
_ASIDE = re.compile(r".* \.\.\.|passed over: .*|skipped: .*|kept \d.*|going on after .*")
_CONTROLS = {*range(32), *range(127, 160)} - {0x0A}
_LONGEST = 2000  # characters of a line
Tree = dict[str, tuple[int, ...]]


def faults_of(outcome: Outcome) -> list[str]:
    """What is wrong with how a command ended, in a few words each; empty if nothing is."""
    found = []
    stdout, stderr = (text.decode("utf-8", "replace") for text in (outcome.stdout, outcome.stderr))
    if outcome.timed_out:
        found.append(f"over {outcome.limit:.0f} s")
    elif outcome.code < 0:
        found.append(f"ended by {signal.Signals(-outcome.code).name}")
    if outcome.memory > BYTES:
        found.append(f"over {BYTES >> 30} GB of memory")
    if "Traceback (most recent call last)" in stderr or outcome.code == 70:
        found.append(f"traceback: {_kind(stderr)}")
    elif outcome.code > 0:
        found += _message_faults(stderr)
    if _CONTROLS & {ord(character) for character in stdout + stderr}:
        found.append("control characters")
    return found


def _kind(stderr: str) -> str:
    """The class of an exception, and where it was raised."""
    places = re.findall(r'File "[^"]*/(\w+/\w+\.py)", line \d+, in (\w+)', stderr)
    ours = [f"{file} {function}" for file, function in places if "hostile" not in file]
    last = stderr.strip().splitlines()[-1].split(":")[0] if stderr.strip() else "?"
    return f"{last} in {ours[-1] if ours else '?'}"


def _message_faults(stderr: str) -> list[str]:
    lines = [line for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("Error: ")]
    if not told:
        return ["no message"]
    if len(told) > 1 or not lines[-1].startswith("Error: "):
        return ["more than one message"]
    if any(not _ASIDE.fullmatch(line) for line in lines[:-1]) and not lines[0].startswith("Usage: "):
        return ["more than one line"]
    if len(told[0]) > _LONGEST:
        return ["an endless line"]
    return [] if len(told[0].split()) > 4 else ["a message without cause"]


def strict_json(text: bytes) -> Any:
    """JSON that any language reads: without NaN. Raises ValueError."""

    def refuse(name: str) -> float:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def tree(directory: Path) -> Tree:
    """What is below a directory: for each path its kind, size and time of change."""
    found: Tree = {}
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            changed = () if kind == stat.S_IFDIR else (status.st_size, status.st_mtime_ns, status.st_ino)
            found[os.path.relpath(path, directory)] = (kind, *changed)
    return found


def written(before: Tree, after: Tree) -> list[str]:
    """Paths that came, changed or went."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


class Canary:
    """A file that nobody may read; whether somebody did is told by its time of access, where the disk keeps one."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        path.write_bytes(content)
        os.utime(path, (0, path.stat().st_mtime))

    def was_read(self) -> bool:
        return self.path.stat().st_atime > 0
