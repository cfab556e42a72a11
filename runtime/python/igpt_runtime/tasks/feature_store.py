"""Features of many pictures on disk, while they are computed: what was interrupted goes on where it ended.

A store is a directory: `request.json` says what is computed of what, `rows` holds the features of picture i at i times
the size of one, `done` a byte for each picture that has them. `lock` is held by the run that writes there.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from igpt_runtime.bundle.directory import MANIFEST_FILE, WEIGHTS_FILE
from igpt_runtime.engine.session import Session
from igpt_runtime.errors import OutputError
from igpt_runtime.files import atomic_write
from igpt_runtime.pictures.reading import Picture
from igpt_runtime.tasks.features import Broken, check_any_read, checked_layers, feature_batches, rules_of
from igpt_runtime.unfinished import is_unfinished, remove_leftovers, take_lock

_REQUEST, _ROWS, _DONE, _LOCK = "request.json", "rows", "done", "lock"
_KEPT = "kept"  # those of the pictures that could be read, if some could not
_AT_ONCE = 1024  # pictures
_BETWEEN = 1.0  # seconds between two times that features are written to the disk, and then marked as done
_FLOAT = np.dtype(np.float32)


class FeatureStore:
    """Features of a request's pictures, as far as they were computed."""

    def __init__(self, directory: Path, request: dict[str, Any], *, restart: bool = False) -> None:
        """Open the store in `directory`, or begin one.

        request: see `feature_request`; restart: begin anew if there is one of another request.

        Raises:
            OutputError: there is one of another request, another run writes there, or the directory cannot be written.
        """
        self.directory, self.request = directory, request
        self._created: list[Path] = []
        self.count, self.shape = len(request["pictures"]), (len(request["layers"]), request["n_embd"])
        try:
            self._release = weakref.finalize(self, os.close, self._take())
            found = self._found()
            if found is not None and found != request and not restart:
                self._release()
                changed = ", ".join(sorted(key for key in request if found.get(key) != request[key]))
                raise OutputError(
                    f"{directory} holds features of a run with other {changed}; add --force to begin anew, or remove it"
                )
            if found != request:
                self._begin()
            self.done = np.zeros(self.count, np.bool_)
            marks = np.fromfile(directory / _DONE, np.uint8)[: self.count]
            # A mark may have come to the disk in a crash where its features have not.
            whole = (directory / _ROWS).stat().st_size // (math.prod(self.shape) * _FLOAT.itemsize)
            self.done[: min(len(marks), whole)] = marks[:whole] != 0
        except OSError as error:
            raise _failure(directory, error) from error

    def _is_foreign(self) -> bool:
        """Whether there is a request that is none of ours; an empty one is what a crash may leave."""
        path = self.directory / _REQUEST
        return self._found() is None and path.exists() and path.stat().st_size > 0

    def _found(self) -> dict[str, Any] | None:
        """The request of the store that is there; None if there is none, or none that was begun."""
        try:
            found = json.loads((self.directory / _REQUEST).read_bytes())
        except (OSError, ValueError):
            return None
        is_ours = isinstance(found, dict) and found.keys() >= {"pictures", "layers", "protocol"}
        return found if is_ours else None

    def _take(self) -> int:
        """Make the directory unless it is there, and lock it; the lock ends with the process.

        Returns the descriptor that holds it.

        Raises OutputError if another run holds it, or the directory is not one of features.
        """
        path = self.directory / _LOCK
        while True:
            if not self.directory.exists():
                self._created = [parent for parent in self.directory.parents if not parent.exists()]
                self.directory.mkdir(parents=True, exist_ok=True)
            if not _holds_only_ours(self.directory) or self._is_foreign():
                raise OutputError(f"{self.directory} exists and holds no features; remove it or choose another output")
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if take_lock(lock) is False:
                os.close(lock)
                raise OutputError(f"another run writes to {self.directory}; wait for its end, or choose another output")
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    remove_leftovers([self.directory / _REQUEST])
                    return lock
            os.close(lock)  # another run has just ended and removed its directory

    def _begin(self) -> None:
        for name in (_REQUEST, _KEPT):
            (self.directory / name).unlink(missing_ok=True)
        try:
            for name in (_ROWS, _DONE):
                (self.directory / name).write_bytes(b"")
            # Last: without it nothing here counts.
            atomic_write(self.directory / _REQUEST, json.dumps(self.request).encode())
        except (OSError, OutputError):
            self.remove()
            raise

    def fill(
        self,
        session: Session,
        pictures: Sequence[Picture],
        *,
        broken: Broken | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Compute what is missing.

        pictures: those of the request; broken: see `feature_batches`; progress: called with the number of pictures
        done since the last call.

        Raises:
            ImageError: a picture cannot be read, or with `broken` none of all.
            OutputError: the disk is full, or cannot be written.
        """
        missing = np.flatnonzero(~self.done)
        if not len(missing):
            return
        left = [pictures[int(i)] for i in missing]
        how = {key: self.request[key] for key in ("layers", "protocol", "crop")}
        batches = feature_batches(session, left, **how, broken=broken)
        size = math.prod(self.shape) * _FLOAT.itemsize
        try:
            with (
                (self.directory / _ROWS).open("r+b") as rows,
                (self.directory / _DONE).open("r+b") as done,
                _Marks(rows, done) as marks,
            ):
                for indices, values in batches:
                    for index, row in zip(missing[indices], values, strict=True):
                        rows.seek(int(index) * size)
                        rows.write(row.astype(_FLOAT).tobytes())
                    marks.add(missing[indices])
                    self.done[missing[indices]] = True
                    if progress is not None:
                        progress(len(indices))
        except OSError as error:
            raise _failure(self.directory, error) from error
        check_any_read(int(self.done.sum()), self.count)

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Which pictures have features."""
        return np.flatnonzero(self.done)

    def values(self) -> npt.NDArray[np.float32]:
        """Their features, float32 [pictures, layers, n_embd], memory-mapped. Raises OutputError for a full disk."""
        whole = self._mapped(_ROWS)
        if self.done.all():
            return whole
        indices = self.indices
        try:
            with (self.directory / _KEPT).open("wb") as file:
                for first in range(0, len(indices), _AT_ONCE):
                    file.write(whole[indices[first : first + _AT_ONCE]].tobytes())
        except OSError as error:
            raise _failure(self.directory, error) from error
        return self._mapped(_KEPT)

    def _mapped(self, name: str) -> npt.NDArray[np.float32]:
        rows, size = np.memmap(self.directory / name, _FLOAT, "r"), math.prod(self.shape)
        return rows[: len(rows) // size * size].reshape(-1, *self.shape)

    def release(self) -> None:
        """Let other runs write there."""
        self._release()

    def remove(self) -> None:
        """Remove it from the disk, with the directories that were created for it and are empty."""
        with contextlib.suppress(OSError):
            (self.directory / _REQUEST).unlink()  # without it nothing here counts, should this be interrupted
        shutil.rmtree(self.directory, ignore_errors=True)
        self._release()
        for parent in self._created:
            with contextlib.suppress(OSError):
                parent.rmdir()


def remove_unbegun(directory: Path) -> None:
    """Remove a store that counts for nothing, which a run may leave that is killed when it begins or ends."""
    with contextlib.suppress(OSError):
        if not any(directory.iterdir()) or not _holds_only_ours(directory) or (directory / _REQUEST).exists():
            return
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if take_lock(lock) and not (directory / _REQUEST).exists():
                shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(lock)


def _holds_only_ours(directory: Path) -> bool:
    names = {entry.name for entry in directory.iterdir() if not is_unfinished(entry.name)}
    return names <= {_REQUEST, _ROWS, _DONE, _KEPT, _LOCK}


class _Marks:
    """Marks rows as done once they are on the disk, all of the last second together, and in the end."""

    def __init__(self, rows: BinaryIO, done: BinaryIO) -> None:
        self._rows, self._done = rows, done
        self._pending: list[int] = []
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, indices: npt.NDArray[np.int64]) -> None:
        self._pending += indices.tolist()
        if time.monotonic() - self._since >= _BETWEEN:
            self._write()

    def _write(self) -> None:
        self._rows.flush()
        os.fsync(self._rows.fileno())
        for index in self._pending:  # only now
            self._done.seek(index)
            self._done.write(b"\1")
        self._done.flush()
        self._pending.clear()
        self._since = time.monotonic()


def feature_request(
    session: Session, pictures: Sequence[Any], *, layers: Sequence[int] | None, protocol: str, crop: bool = False
) -> dict[str, Any]:
    """All that features depend on, as JSON.

    pictures: what identifies each: see `file_identity`. Raises OptionError for layers or a protocol that there are not.
    """
    manifest = session.manifest
    rules = rules_of(protocol)
    files = manifest.files
    return {
        "model": manifest.name,
        "weights": files[WEIGHTS_FILE].sha256 if WEIGHTS_FILE in files else None,
        "manifest": hashlib.sha256((session.bundle.path / MANIFEST_FILE).read_bytes()).hexdigest(),
        "layers": list(checked_layers(manifest, layers)),
        "protocol": protocol,
        "crop": crop or rules.crop,
        "n_embd": manifest.config.n_embd,
        "pictures": list(pictures),
    }


def file_identity(path: str) -> list[Any]:
    """Path, size and time of change of a file; of standard input something new each time."""
    if path == "-":
        return [path, os.urandom(8).hex()]
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # which is told when it is to be read
        return [path, None]
    return [path, status.st_size, status.st_mtime_ns]


def _failure(directory: Path, error: OSError) -> OutputError:
    reason = error.strerror or error
    return OutputError(
        f"cannot write {directory}: {reason}; make room, or choose another output - what is done is kept"
    )
