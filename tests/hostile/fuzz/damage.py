"""Damage to bytes and to files, as disks, downloads and strangers do it."""

import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[bytearray, random.Random], None]
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def _place(data: bytearray, rng: random.Random) -> int:
    """A place, more often near the beginning, where headers are."""
    limit = len(data) if rng.random() < 0.5 else min(len(data), 256)
    return rng.randrange(limit) if limit else 0


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if data:
            data[_place(data, rng)] ^= 1 << rng.randrange(8)


def random_bytes(data: bytearray, rng: random.Random) -> None:
    start = _place(data, rng)
    for i in range(start, min(len(data), start + rng.choice((1, 4, 16, 256)))):
        data[i] = rng.randrange(256)


def numbers(data: bytearray, rng: random.Random) -> None:
    """A number that is at an edge, where a size may stand."""
    width, value = rng.choice((1, 2, 4, 8)), rng.choice(_NUMBERS)
    start = _place(data, rng)
    raw = (value % (1 << 8 * width)).to_bytes(width, rng.choice(("little", "big")))
    data[start : start + width] = raw


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.choice((0, 1, len(data) // 2, max(0, len(data) - 1), _place(data, rng))) :]


def extend(data: bytearray, rng: random.Random) -> None:
    size = rng.choice((1, 7, 4096))
    data += rng.choice((bytes(size), rng.randbytes(size), bytes(data[:size])))


def remove(data: bytearray, rng: random.Random) -> None:
    start = _place(data, rng)
    del data[start : start + rng.choice((1, 4, 100, 5000))]


def repeat(data: bytearray, rng: random.Random) -> None:
    start, length = _place(data, rng), rng.choice((1, 8, 64, 1024))
    data[start:start] = data[start : start + length] * rng.choice((1, 2, 50))


def zero(data: bytearray, rng: random.Random) -> None:
    start = _place(data, rng)
    length = min(rng.choice((1, 16, 512, 4096)), len(data) - start)
    data[start : start + length] = bytes(length)


def swap(data: bytearray, rng: random.Random) -> None:
    one, other, length = _place(data, rng), _place(data, rng), rng.choice((1, 4, 512))
    data[one : one + length], data[other : other + length] = data[other : other + length], data[one : one + length]


def pointer(data: bytearray, rng: random.Random) -> None:
    data[:] = _POINTER


BYTES: tuple[Damage, ...] = (
    flip_bits, flip_bits, random_bytes, numbers, truncate, truncate, extend, remove, repeat, zero, swap, pointer,
)  # fmt: skip


def damage_bytes(content: bytes, rng: random.Random, kinds: tuple[Damage, ...] = BYTES) -> tuple[bytes, str]:
    """Damaged bytes, and the name of what was done to them. They may happen to be as they were."""
    data, kind = bytearray(content), rng.choice(kinds)
    kind(data, rng)
    return bytes(data), kind.__name__.replace("_", " ")


def replace_file(path: Path, rng: random.Random, outside: Path) -> str:
    """Put something else where a file was; returns what it is.

    outside: a file that nobody may read.
    """
    content = path.read_bytes()
    path.unlink()
    kind = rng.choice(tuple(_REPLACEMENTS))
    _REPLACEMENTS[kind](path, content, outside)
    return kind


def _moved(path: Path, content: bytes, outside: Path) -> None:
    """A link to the right content, but outside of where it belongs."""
    aside = outside.parent / f"aside-{path.name}"
    aside.write_bytes(content)
    path.symlink_to(aside)


def _inside(path: Path, content: bytes, outside: Path) -> None:
    aside = path.with_name(f"aside-{path.name}")
    aside.write_bytes(content)
    path.symlink_to(aside.name)


def _socket(path: Path, content: bytes, outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        before = os.getcwd()
        os.chdir(path.parent)  # the path of a socket is short
        made.bind(path.name)
        os.chdir(before)


def _unreadable(path: Path, content: bytes, outside: Path) -> None:
    path.write_bytes(content)
    path.chmod(0)


_REPLACEMENTS: dict[str, Callable[[Path, bytes, Path], object]] = {
    "removed": lambda path, content, outside: None,
    "a pipe": lambda path, content, outside: os.mkfifo(path),
    "a socket": _socket,
    "a directory": lambda path, content, outside: path.mkdir(),
    "a directory that is full": lambda path, content, outside: shutil.copytree(outside.parent / "sound", path),
    "a link to /dev/zero": lambda path, content, outside: path.symlink_to("/dev/zero"),
    "a link to /dev/null": lambda path, content, outside: path.symlink_to("/dev/null"),
    "a link to /dev/stdin": lambda path, content, outside: path.symlink_to("/dev/stdin"),
    "a link to nothing": lambda path, content, outside: path.symlink_to("nothing"),
    "a link to itself": lambda path, content, outside: path.symlink_to(path.name),
    "a link out": lambda path, content, outside: path.symlink_to(outside),
    "a link out to the content": _moved,
    "a link to the content beside": _inside,
    "no permission": _unreadable,
    "empty": lambda path, content, outside: path.write_bytes(b""),
}
