"""What is being written, beside its place until it is whole; and what is left there when a run is killed.

It is called `.NAME.partial-PID-HEX`, with the suffix of a file, after its place and its owner. The owner holds a lock
on it, which ends with the process. So what is not locked has no owner any more, and the next run removes it.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_OWNED = re.compile(r"\.(?P<label>.+)\.(?:partial|old)-[0-9]+-[0-9a-f]{8}(?:\.[^.]*)?", re.DOTALL)
_LONGEST_LABEL = 100  # bytes; file systems allow 255, some 143
_LONGEST_SUFFIX = 16


@contextmanager
def unfinished(place: Path, *, directory: bool = False, aside: bool = False) -> Iterator[Path]:
    """Yield an empty file or directory beside `place`, which is gone in the end unless it was moved.

    directory: a directory, else a file with the suffix of `place`. aside: it is to hold what stood there before.

    Raises OSError.
    """
    descriptor, path = _create(place, directory, "old" if aside else "partial")
    try:
        yield path
    finally:
        _remove(path)
        if descriptor is not None:
            os.close(descriptor)


def is_unfinished(name: str) -> bool:
    """Whether a file or directory is called as what `unfinished` yields."""
    return _OWNED.fullmatch(name) is not None


def remove_leftovers(places: Iterable[str | os.PathLike[str]]) -> None:
    """Remove what killed runs have left beside these places.

    A directory that was moved aside goes back to its place if nothing is there.
    """
    labels: dict[Path, set[str]] = {}
    for place in places:
        with contextlib.suppress(OSError, ValueError):  # which is told when something is written there
            path = Path(os.path.realpath(place))
            labels.setdefault(path.parent, set()).add(_label(path))
    for parent, wanted in labels.items():
        with contextlib.suppress(OSError):
            for name in os.listdir(parent):
                found = _OWNED.fullmatch(name)
                if found is not None and found["label"] in wanted:
                    _remove_if_left(parent / name)


def take_lock(descriptor: int) -> bool | None:
    """Hold a lock on an open file or directory until it is closed, or the process ends.

    Returns False if another process holds it, and None where a system or a disk has no such locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _label(path: Path) -> str:
    """What begins the names of what belongs to a path: its own name, but never too long."""
    return os.fsencode(path.name)[:_LONGEST_LABEL].decode("utf-8", "ignore")


def _create(place: Path, directory: bool, kind: str) -> tuple[int | None, Path]:
    suffix = "" if directory or len(place.suffix) > _LONGEST_SUFFIX else place.suffix
    while True:
        path = place.with_name(f".{_label(place)}.{kind}-{os.getpid()}-{secrets.token_hex(4)}{suffix}")
        # Not tempfile: what that makes is private, and the result should have the mode that the umask gives.
        if directory:
            path.mkdir()
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        descriptor = _open(path)
        # Another run may have taken it for a leftover in the moment before it was locked.
        if path.exists() if descriptor is None else _is_still(descriptor, path):
            return descriptor, path
        if descriptor is not None:
            os.close(descriptor)


def _open(path: Path) -> int | None:
    """A descriptor that holds the lock; None where there are no locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # a directory on Windows, or already removed
        return None
    if take_lock(descriptor) is None:
        os.close(descriptor)
        return None
    return descriptor


def _is_still(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return take_lock(descriptor) is True and os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def _remove_if_left(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if not _is_still(descriptor, path):
                return
            _put_back(path)
            _remove(path)
        finally:
            os.close(descriptor)


def _put_back(aside: Path) -> None:
    """Put what was moved aside to its place, if its run was killed before anything else came there."""
    if ".old-" not in aside.name or not aside.is_dir():
        return
    for old in aside.iterdir():
        if not (aside.parent / old.name).exists():
            old.rename(aside.parent / old.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
