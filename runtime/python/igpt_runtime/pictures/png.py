"""PNG files without what is not part of the picture.

Pillow refuses a file whose text or colour profile is longer than a megabyte or has a wrong checksum, and reads pixels
whose checksum is wrong. Neither is right for a picture, so chunks are looked at before.
"""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What makes the pixels, and which way is up. What an animation has besides its first frame is of no use.
_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}
_OPTIONAL = {b"eXIf"}  # not a part of the pixels: left out if it is damaged
_HEAD = struct.Struct(">I4s")


class ChecksumError(ValueError):
    """A part of the pixels is not what was written."""


def pixels_only(content: bytes) -> bytes:
    """A PNG file without its other chunks. A file that is cut short stays so.

    Raises ChecksumError.
    """
    view, place = memoryview(content), len(SIGNATURE)
    parts: list[bytes | memoryview] = [SIGNATURE]
    while place + _HEAD.size <= len(content):
        length, kind = _HEAD.unpack_from(content, place)
        end = place + _HEAD.size + length + 4
        if end > len(content) or not kind.isalpha():
            break
        if kind in _KEPT:
            stored = int.from_bytes(view[end - 4 : end], "big")
            right = zlib.crc32(view[place + 4 : end - 4]) == stored
            if not right and kind not in _OPTIONAL:
                raise ChecksumError(f"the checksum of its chunk {kind.decode()} at byte {place:,} is wrong")
            if right:
                parts.append(view[place:end])
        elif kind[:1].isupper():  # what a reader must know
            parts.append(view[place:end])
        place = end
        if kind == b"IEND":
            return b"".join(parts)
    return b"".join([*parts, view[place:]])
