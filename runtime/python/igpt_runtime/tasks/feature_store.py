"""Features of many pictures on disk, while they are computed: what was interrupted goes on where it ended.

A store is a directory: `request.json` says what is computed of what, `rows` holds the features of picture i at i times
the size of one, `done` a byte for each picture that has them.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_runtime.bundle.manifest import MANIFEST_FILE, WEIGHTS_FILE
from igpt_runtime.engine.session import Session
from igpt_runtime.errors import OutputError
from igpt_runtime.pictures.reading import Picture
from igpt_runtime.tasks.features import Broken, check_any_read, checked_layers, feature_batches, rules_of

_REQUEST, _ROWS, _DONE = "request.json", "rows", "done"
_KEPT = "kept"  # those of the pictures that could be read, if some could not
_AT_ONCE = 1024  # pictures
_FLOAT = np.dtype(np.float32)


class FeatureStore:
    """Features of a request's pictures, as far as they were computed."""

    def __init__(self, directory: Path, request: dict[str, Any], *, restart: bool = False) -> None:
        """Open the store in `directory`, or begin one.

        request: see `feature_request`; restart: begin anew if there is one of another request.

        Raises:
            OutputError: there is one of another request, or the directory cannot be written.
        """
        self.directory, self.request = directory, request
        self._created: list[Path] = []
        self.count, self.shape = len(request["pictures"]), (len(request["layers"]), request["n_embd"])
        try:
            found = json.loads((directory / _REQUEST).read_bytes())
        except (OSError, ValueError):
            found = None
        if not (isinstance(found, dict) and found.keys() >= {"pictures", "layers", "protocol"}):
            found = None  # not ours
        if found is not None and found != request and not restart:
            changed = ", ".join(sorted(key for key in request if found.get(key) != request[key]))
            raise OutputError(
                f"{directory} holds features of a run with other {changed}; add --force to begin anew, or remove it"
            )
        try:
            if found != request:
                self._begin(is_ours=found is not None)
            self.done = np.zeros(self.count, np.bool_)
            marks = np.fromfile(directory / _DONE, np.uint8)[: self.count]
            self.done[: len(marks)] = marks != 0
        except OSError as error:
            raise _failure(directory, error) from error

    def _begin(self, *, is_ours: bool) -> None:
        foreign = {path.name for path in self.directory.iterdir()} if self.directory.exists() else set()
        if foreign - {_REQUEST, _ROWS, _DONE, _KEPT} or (foreign and not is_ours):
            raise OutputError(f"{self.directory} exists and holds no features; remove it or choose another output")
        self.remove()
        self._created = [parent for parent in self.directory.parents if not parent.exists()]
        self.directory.mkdir(parents=True)
        try:
            for name in (_ROWS, _DONE):
                (self.directory / name).touch()
            # Last: without it nothing here counts.
            (self.directory / _REQUEST).write_text(json.dumps(self.request))
        except OSError:
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
            with (self.directory / _ROWS).open("r+b") as rows, (self.directory / _DONE).open("r+b") as done:
                for indices, values in batches:
                    for index, row in zip(missing[indices], values, strict=True):
                        rows.seek(int(index) * size)
                        rows.write(row.astype(_FLOAT).tobytes())
                    rows.flush()
                    for index in missing[indices]:  # only now
                        done.seek(int(index))
                        done.write(b"\1")
                    done.flush()
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

    def remove(self) -> None:
        """Remove it from the disk, with the directories that were created for it and are empty."""
        shutil.rmtree(self.directory, ignore_errors=True)
        for parent in self._created:
            with contextlib.suppress(OSError):
                parent.rmdir()


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
