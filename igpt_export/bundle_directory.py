"""The directory of a bundle, which is either complete or not there."""

import contextlib
import ctypes
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

from igpt_export.bundle_writer import is_card
from igpt_runtime.bundle.directory import CARD_FILE, MANIFEST_FILE, MAX_MANIFEST_BYTES, WEIGHTS_FILE
from igpt_runtime.errors import OutputError
from igpt_runtime.regular import read_regular
from igpt_runtime.unfinished import remove_leftovers, unfinished

_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD, and a flag of renameat2(2)


@contextlib.contextmanager
def bundle_directory(output: Path, *, force: bool) -> Iterator[Path]:
    """A staging directory that becomes `output` when the block ends well, and vanishes when it does not.

    force: replace an existing bundle (and only a bundle with nothing else in it, or an empty directory).

    Raises:
        OutputError: `output` exists, is no bundle or more than that, or cannot be written; the disk is full.
    """
    remove_leftovers([output])
    try:
        _check_replaceable(output, force)
        output.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(output, directory=True) as staging:
            yield staging
            _flush(staging)
            _check_replaceable(output, force)  # again: something may have appeared while we worked
            _put_in_place(staging, output)
    except OSError as error:
        raise OutputError(_describe(error, output)) from error


def _check_replaceable(output: Path, force: bool) -> None:
    try:
        os.lstat(output)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise OutputError(_describe(error, output)) from error
    if not force:
        raise OutputError(f"{output} exists; add --force to replace it, or choose another --output")
    replaceable = output.is_dir() and not output.is_symlink()
    names = sorted(path.name for path in output.iterdir()) if replaceable else []
    own = _own_files(output)
    if not replaceable or (names and own is None):
        raise OutputError(f"{output} exists and is not a bundle; --force does not replace it, choose another --output")
    more = [name for name in names if own is not None and name not in own]
    if more:
        listed = ", ".join(more[:3]) + (f" and {len(more) - 3} more" if len(more) > 3 else "")
        raise OutputError(
            f"{output} holds what its manifest does not name, and --force would delete it: {listed}; "
            "move that away, or choose another --output"
        )


def _own_files(directory: Path) -> set[str] | None:
    """The files that an export has written there; None if there is no manifest of ours, whole or damaged."""
    try:
        record = json.loads(read_regular(directory / MANIFEST_FILE, MAX_MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    # Other programs have a manifest.json too.
    if not isinstance(record, dict) or not record.keys() >= {"format_version", "sampling_version", "graphs"}:
        return None
    named = record.get("files")
    card = {CARD_FILE} if is_card(directory / CARD_FILE) else set()
    return {MANIFEST_FILE, WEIGHTS_FILE} | card | set(named if isinstance(named, dict) else ())


def _flush(staging: Path) -> None:
    """Give the files the mode that the umask wants, and have them on the disk before the bundle has its name."""
    umask = os.umask(0)
    os.umask(umask)
    for path in staging.iterdir():
        if path.stat().st_nlink == 1:  # not what the user has elsewhere too
            path.chmod(0o666 & ~umask)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _put_in_place(staging: Path, output: Path) -> None:
    """Rename the staging directory; afterwards it is the old bundle, if there was one.

    Where the system cannot exchange two directories in one step, the old one is moved aside first.
    """
    if not output.exists():
        staging.rename(output)
    elif not _exchange(staging, output):
        with unfinished(output, directory=True, aside=True) as old:
            output.rename(old / output.name)
            try:
                staging.rename(output)
            finally:
                if not output.exists():
                    (old / output.name).rename(output)


def _exchange(one: Path, other: Path) -> bool:
    """Have two directories change their names in one step; False where that cannot be done."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # another system than Linux, or an old one
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):  # an old kernel, or a file system without it
        return False
    raise OSError(code, os.strerror(code), os.fspath(other))


def _describe(error: OSError | ValueError, output: Path) -> str:
    if not isinstance(error, OSError):  # a null character in the name
        return f"cannot write {str(output)!r}: {error}; choose another --output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk of {output}; free some or choose another --output"
    if error.errno == errno.ENAMETOOLONG:
        return f"cannot write {output}: {error.strerror}; give a shorter name with --output"
    return f"cannot write {error.filename or output}: {error.strerror or error}; choose another --output"
