"""Reading files that others have made: regular files only, and no more of them than is sensible.

A pipe would be waited for without end, a device may have no end, and neither is what a bundle, a checkpoint or a
directory of pictures holds.
"""

import os
import stat
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}  # fmt: skip
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_AT_ONCE = 1 << 20  # bytes


class IrregularFileError(OSError):
    """A file is of another kind, or too large. `strerror` says so."""

    def __init__(self, reason: str, path: str | os.PathLike[str]) -> None:
        """reason: what follows "it is" or "it has"."""
        super().__init__(None, reason, os.fspath(path))


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, or one that a link leads to.

    Raises:
        IrregularFileError: it is something else.
        OSError: it cannot be opened.
        ValueError: the path has a null character.
    """
    # Without waiting for whoever writes into a pipe.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise IrregularFileError(f"it is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file", path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises as `open_regular`."""
    with open_regular(path) as file:
        content = read_at_most(file, limit)
    if content is None:
        raise IrregularFileError(f"it has more than {limit:,} bytes, which is too much for what it should be", path)
    return content


def read_at_most(stream: BinaryIO, limit: int) -> bytes | None:
    """All that is left of a stream; None if that is more than `limit` bytes."""
    parts, size = [], 0
    while part := stream.read(min(_AT_ONCE, limit + 1 - size)):
        parts.append(part)
        size += len(part)
        if size > limit:
            return None
    return b"".join(parts)


def placeholder(content: bytes) -> str | None:
    """What stands there instead of a file's content: nothing, or a pointer of Git LFS; None if it is neither."""
    if not content:
        return "is empty; get the file again"
    if content.startswith(_LFS_POINTER):
        return "is a pointer of Git LFS, not the file itself; run: git lfs pull"
    return None
