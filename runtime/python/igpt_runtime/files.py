"""Writing files so that a result is there whole or not at all."""

import csv
import errno
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from igpt_runtime.errors import OptionError, OutputError
from igpt_runtime.unfinished import remove_leftovers, unfinished

__all__ = [
    "atomic_path",
    "atomic_write",
    "check_stdout_open",
    "check_writable",
    "csv_table",
    "table_suffix",
    "write_output",
    "write_table",
]

_REMEDIES = {
    errno.ENOTDIR: "name a directory",
    errno.EEXIST: "name a directory",
    errno.EACCES: "choose a place you may write to",
    errno.EPERM: "choose a place you may write to",
    errno.EROFS: "choose a place you may write to",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.ENAMETOOLONG: "choose a shorter name with -o, or rename the picture",
    errno.ELOOP: "choose another place",
}


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, force: bool = True) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`, with its suffix; on leaving, it replaces `path`.

    force: overwrite what is there by then, which another run may have written since `check_writable`.

    Its directory is created if it is missing. If the body raises, `path` is as it was and the temporary file is gone.
    A symbolic link keeps pointing where it does. A device or pipe, such as /dev/null, cannot be replaced and is yielded
    itself.

    Raises:
        OutputError: the file cannot be written, or exists; any `OSError` of the body counts as that.
    """
    try:
        target = Path(os.path.realpath(path))
        if os.path.exists(path) and not os.path.exists(target):  # a pipe, such as /dev/stdout may be
            target = Path(path)
    except ValueError as error:  # a null character in it
        raise _output_error(path, str(error), "choose another name") from error
    try:
        if target.is_dir():
            raise _output_error(path, "it is a directory", "name a file in it")
        if target.exists() and not target.is_file():
            yield target
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(target) as temporary:
            yield temporary
            _flush(temporary)
            if force:
                os.replace(temporary, target)
            else:
                _name_new(temporary, target)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "choose another place")
        raise _output_error(path, error.strerror or str(error), remedy) from error


def atomic_write(path: str | os.PathLike[str], data: bytes, *, force: bool = True) -> None:
    """Write `data` to `path`, whole or not at all. force: see `atomic_path`.

    Raises:
        OutputError: the file cannot be written; what stood there is untouched.
    """
    with atomic_path(path, force=force) as temporary:
        temporary.write_bytes(data)


def csv_table(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Records, at least one, all with the same keys, as a file with a line for each and one of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def table_suffix(path: str | None) -> str:
    """The suffix that says how a table is written: .csv (also for -, standard output) or .json; "" for no table.

    Raises OptionError for another one.
    """
    if path is None:
        return ""
    suffix = ".csv" if path == "-" else Path(path).suffix
    if suffix not in (".csv", ".json"):
        raise OptionError(f"a table is written as .csv or .json; give -o such a name, not {path!r}")
    return suffix


def write_table(
    path: str, table: Sequence[Mapping[str, object]] | Mapping[str, object], *, force: bool = True
) -> None:  # fmt: skip
    """Write lines of a table as .csv, or a record as .json, to `path` or to stdout if it is -.

    force: see `atomic_path`. Raises OutputError.
    """
    text = (json.dumps(table, indent=1) + "\n").encode() if isinstance(table, Mapping) else csv_table(table)
    write_output(path, text, force=force)


def check_stdout_open() -> None:
    """Raise OutputError if standard output is closed."""
    if sys.stdout is None:
        raise OutputError("standard output is closed; give -o a path, or leave it open")


def write_output(path: str, data: bytes, *, force: bool = True) -> None:
    """Write `data` to `path`, or to stdout if it is -. force: see `atomic_path`. Raises OutputError."""
    if path == "-":
        check_stdout_open()
        sys.stdout.buffer.write(data)
    else:
        atomic_write(path, data, force=force)


def check_writable(paths: Iterable[str], *, force: bool) -> None:
    """Find out before the work begins whether results can be written; - is stdout and always can.

    What killed runs have left beside them is removed.

    Raises:
        OutputError: a file exists and `force` is not given, stdout is closed, a name names no file, or its directory is
            neither there nor can be created.
    """
    paths = list(paths)
    remove_leftovers(path for path in paths if path != "-")
    for path in paths:
        if path == "-":
            check_stdout_open()
            continue
        try:
            os.stat(path)
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                raise _output_error(path, str(error.strerror), _REMEDIES[error.errno]) from error
        except ValueError as error:  # a null character in it
            raise _output_error(path, str(error), "choose another name") from error
        if not path or path.endswith(("/", os.sep)):
            raise OutputError(f"cannot write {path!r}: it names no file; name a file in a directory")
        # a device or pipe exists too, but writing to it destroys nothing
        if Path(path).is_file() and not force:
            raise _exists(path)
        if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
            continue
        if Path(path).is_dir():
            raise _output_error(path, "it is a directory", "name a file in it")
        directory = next(parent for parent in Path(path).absolute().parents if os.path.lexists(parent))
        if not directory.is_dir():
            raise _output_error(path, f"{directory} is no directory", _REMEDIES[errno.ENOTDIR])
        if not os.access(directory, os.W_OK):
            raise _output_error(path, f"no permission to write in {directory}", _REMEDIES[errno.EACCES])


def _name_new(temporary: Path, target: Path) -> None:
    """Give a file its name if no other has it."""
    try:
        os.link(temporary, target)  # unlike a rename, it replaces nothing
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError:  # a disk without hard links
        if target.exists():
            raise _exists(target) from None
        os.replace(temporary, target)


def _exists(path: str | os.PathLike[str]) -> OutputError:
    return OutputError(f"{os.fspath(path)} exists; add --force to overwrite it, or choose another output")


def _flush(path: Path) -> None:
    """Have the content on the disk before the name, so that a power cut cannot leave an empty file."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _output_error(path: str | os.PathLike[str], reason: str, remedy: str) -> OutputError:
    return OutputError(f"cannot write {os.fsdecode(path)!r}: {reason}; {remedy}")
