"""Graphs whose constants ONNX Runtime has computed already, kept on this machine from one start to the next.

Never part of a bundle and never needed: whatever is wrong with an entry or the directory, the graph is opened from its
bundle as if there were none. An entry is a directory of the graph, its weights and a record of their hashes.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from igpt_runtime.hardware import cpu_model

VARIABLE = "IGPT_CACHE"  # a directory, or off
GRAPH, WEIGHTS = "graph.onnx", "weights.bin"  # the files of an entry besides its record
SMALLEST = 16 << 20  # bytes of weights from which on an entry saves a time one notices
_RECORD = "entry.json"
_LIMIT = 4 << 30  # bytes of all entries
_ABANDONED = 3600  # seconds after which an entry that is still being written is taken for the rest of a killed process
_UNFINISHED = "new-"
_OFF = {"off", "0", ""}


@dataclass(frozen=True)
class Folded:
    """The place of one graph's entry, which may not be there."""

    root: Path
    key: str

    @property
    def _path(self) -> Path:
        return self.root / self.key

    def find(self) -> Path | None:
        """The graph of the entry if it is there and as it was written, else None; what is damaged is removed."""
        try:
            record = json.loads((self._path / _RECORD).read_text())
            if any(_digest(self._path / name) != record[name] for name in (GRAPH, WEIGHTS)):
                raise ValueError("altered")
            os.utime(self._path)  # the entry used last is the last one to go
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            self.discard()
            return None
        return self._path / GRAPH

    def begin(self, size: int) -> Path | None:
        """A new empty directory to write the entry to, or None if it would not fit; size: bytes of its weights."""
        with contextlib.suppress(OSError):
            if 2 * size <= min(_LIMIT, shutil.disk_usage(self.root).free):
                path = self.root / f"{_UNFINISHED}{secrets.token_hex(8)}"
                path.mkdir(0o700)
                return path
        return None

    def finish(self, path: Path) -> None:
        """Make what was written to `path` (of `begin`) the entry, unless another process was first."""
        with contextlib.suppress(OSError):
            hashes = {name: _digest(path / name) for name in (GRAPH, WEIGHTS)}
            (path / _RECORD).write_text(json.dumps(hashes))
            path.rename(self._path)
            self._evict()
        shutil.rmtree(path, ignore_errors=True)

    def discard(self) -> None:
        """Remove the entry."""
        shutil.rmtree(self._path, ignore_errors=True)

    def _evict(self) -> None:
        """Remove what killed processes left, and the entries used longest ago beyond the limit."""
        kept, entries = 0, []
        for path in self.root.iterdir():
            used = path.stat().st_mtime
            if not path.name.startswith(_UNFINISHED):
                entries.append((used, path))
            elif used < time.time() - _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
        for _, path in sorted(entries, reverse=True):
            kept += sum(file.stat().st_size for file in path.iterdir())
            if kept > _LIMIT:
                shutil.rmtree(path, ignore_errors=True)


def folded(*identity: str) -> Folded | None:
    """The place for a graph of this identity: hashes of its files, versions, whatever else the result depends on.

    None if the variable IGPT_CACHE is `off`, or there is no directory that only this user can write to.
    """
    root = _root()
    if root is None:
        return None
    parts = (*identity, sys.platform, cpu_model())
    return Folded(root, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32])


def _root() -> Path | None:
    """The directory of all entries, made if need be. Its files are loaded as models, so it must be nobody else's."""
    told = os.environ.get(VARIABLE)
    if told is not None and told.lower() in _OFF:
        return None
    try:
        path = Path(told) if told else _user_cache() / "igpt-onnx"
        path.mkdir(0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except (OSError, RuntimeError, ValueError):  # RuntimeError: the user has no home
        return None
    if not stat.S_ISDIR(found.st_mode):
        return None
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return None
    return path


def _user_cache() -> Path:
    """Where the system keeps a user's caches."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    told = os.environ.get("XDG_CACHE_HOME", "")
    return Path(told) if os.path.isabs(told) else Path.home() / ".cache"  # the standard ignores relative ones


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
