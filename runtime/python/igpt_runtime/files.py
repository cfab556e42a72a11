"""Writing files so that a result is there whole or not at all."""

import csv
import errno
import io
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from igpt_runtime.errors import OutputError

__all__ = ["atomic_path", "atomic_write", "check_writable", "csv_table", "write_output"]

_REMEDIES = {
    errno.ENOENT: "create its directory first",
    errno.ENOTDIR: "name a directory that exists",
    errno.EACCES: "choose a place you may write to",
    errno.EPERM: "choose a place you may write to",
    errno.EROFS: "choose a place you may write to",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
}


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`, with its suffix; on leaving, it replaces `path`.

    If the body raises, `path` is as it was and the temporary file is gone. A symbolic link keeps pointing where it
    does. A device or pipe, such as /dev/null, cannot be replaced and is yielded itself.

    Raises:
        OutputError: the file cannot be written; any `OSError` of the body counts as that.
    """
    try:
        target = Path(os.path.realpath(path))
    except ValueError as error:  # a null character in it
        raise _output_error(path, str(error), "choose another name") from error
    try:
        if target.is_dir():
            raise _output_error(path, "it is a directory", "name a file in it")
        if target.exists() and not target.is_file():
            yield target
            return
        temporary = target.with_name(f".{secrets.token_hex(8)}{target.suffix}")
        # not tempfile: its files are private, and the result should have the mode the umask gives
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "choose another place")
        raise _output_error(path, error.strerror or str(error), remedy) from error


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, whole or not at all.

    Raises:
        OutputError: the file cannot be written; what stood there is untouched.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def csv_table(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Records, at least one, all with the same keys, as a file with a line for each and one of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def write_output(path: str, data: bytes) -> None:
    """Write `data` to `path`, or to stdout if it is -. Raises OutputError."""
    if path == "-":
        sys.stdout.buffer.write(data)
    else:
        atomic_write(path, data)


def check_writable(paths: Iterable[str], *, force: bool) -> None:
    """Find out before the work begins whether results can be written; - is stdout and always can.

    Raises:
        OutputError: a file exists and `force` is not given, or a directory is missing or not writable.
    """
    for path in paths:
        if path == "-":
            continue
        # a device or pipe exists too, but writing to it destroys nothing
        if Path(path).is_file() and not force:
            raise OutputError(f"{path} exists; add --force to overwrite it, or choose another output")
        if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
            continue
        directory = Path(path).parent
        if not directory.is_dir():
            raise _output_error(path, f"no directory {directory}", _REMEDIES[errno.ENOENT])
        if Path(path).is_dir():
            raise _output_error(path, "it is a directory", "name a file in it")
        if not os.access(directory, os.W_OK):
            raise _output_error(path, f"no permission to write in {directory}", _REMEDIES[errno.EACCES])


def _flush(path: Path) -> None:
    """Have the content on the disk before the name, so that a power cut cannot leave an empty file."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _output_error(path: str | os.PathLike[str], reason: str, remedy: str) -> OutputError:
    return OutputError(f"cannot write {os.fsdecode(path)!r}: {reason}; {remedy}")
