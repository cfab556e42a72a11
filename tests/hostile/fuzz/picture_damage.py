"""Small pictures of every sort, and damage that knows their formats."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, PngImagePlugin

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NAMES = (
    b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"gAMA", b"tEXt",
    b"zTXt", b"iTXt", b"CgBI", b"ABCD",
)  # fmt: skip
_NUMBERS = (0, 1, 2, 3, 4, 6, 8, 16, 17, 255, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
Chunk = tuple[bytes, bytes]


def pictures() -> dict[str, bytes]:
    """Sound files by their sorts: a few pixels each, in all modes that the formats have."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (19, 23, 3), np.uint8))
    clear = Image.fromarray(rng.integers(0, 256, (19, 23, 4), np.uint8))
    frames = [Image.fromarray(rng.integers(0, 256, (19, 23, 3), np.uint8)) for _ in range(3)]
    deep = Image.fromarray(rng.integers(0, 65536, (19, 23), np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b" * 50, zip=True)
    palette = rgb.quantize(17)
    found = {
        "png rgb": _saved(rgb, "PNG", pnginfo=text), "png turned": _saved(rgb, "PNG", exif=exif),
        "png rgba": _saved(clear, "PNG"), "png grey": _saved(rgb.convert("L"), "PNG"),
        "png palette": _saved(palette, "PNG"),
        "png palette clear": _saved(palette, "PNG", transparency=b"\0\x80" * 8),
        "png bits": _saved(rgb.convert("1"), "PNG"), "png 16": _saved(deep, "PNG"),
        "png grey alpha": _saved(clear.convert("LA"), "PNG"),
        "png animated": _saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "png interlaced": _interlaced(rgb), "jpeg": _saved(rgb, "JPEG", exif=exif),
        "jpeg progressive": _saved(rgb, "JPEG", progressive=True), "jpeg grey": _saved(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": _saved(rgb.convert("CMYK"), "JPEG"), "gif": _saved(palette, "GIF"),
        "gif animated": _saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "gif clear": _saved(palette, "GIF", transparency=3), "webp": _saved(rgb, "WEBP"),
        "webp exact": _saved(clear, "WEBP", lossless=True),
        "webp animated": _saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "bmp": _saved(rgb, "BMP"), "bmp palette": _saved(palette, "BMP"), "bmp bits": _saved(rgb.convert("1"), "BMP"),
        "dib": _saved(rgb, "DIB"), "tiff": _saved(rgb, "TIFF"), "ppm": _saved(rgb, "PPM"), "ico": _saved(rgb, "ICO"),
        "pcx": _saved(rgb, "PCX"), "tga": _saved(rgb, "TGA"), "bmp runs": _run_length_bmp(),
    }  # fmt: skip
    return found


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _interlaced(image: Image.Image) -> bytes:
    """Adam7, which Pillow reads and does not write: one pixel."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 1)
    pixels = zlib.compress(b"\0" + bytes(image.getpixel((0, 0))))  # type: ignore[arg-type]
    return joined([(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")])


def _run_length_bmp() -> bytes:
    runs = b"".join(b"\x05\x01\x03\x02\x00\x00" for _ in range(8)) + b"\x00\x01"
    palette = bytes(range(16)) * 64
    info = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(runs), 0, 0, 256, 0)
    place = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", place + len(runs), 0, 0, place) + info + palette + runs


def chunks(content: bytes) -> Iterator[Chunk]:
    """Those of a sound PNG file."""
    place = len(_SIGNATURE)
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        yield content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length


def joined(parts: list[Chunk]) -> bytes:
    """A PNG file, with right checksums."""
    whole = [_SIGNATURE]
    for kind, data in parts:
        whole += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(kind + data))]
    return b"".join(whole)


def damage_chunks(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A PNG file of other chunks, whose checksums are right, and the name of what was done."""
    parts = list(chunks(content))
    kind = rng.choice(tuple(_CHANGES))
    _CHANGES[kind](parts, rng)
    return joined(parts), kind


def _header(parts: list[Chunk], rng: random.Random) -> None:
    kind, data = parts[0]
    fields = list(struct.unpack(">IIBBBBB", data))
    which = rng.randrange(7)
    fields[which] = rng.choice(_NUMBERS) % (1 << (32 if which < 2 else 8))
    parts[0] = kind, struct.pack(">IIBBBBB", *fields)


def _content(parts: list[Chunk], rng: random.Random) -> None:
    where = rng.randrange(len(parts))
    kind, data = parts[where]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 10))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    if rng.random() < 0.3:
        del changed[rng.choice((0, len(changed) // 2)) :]
    parts[where] = kind, bytes(changed)


def _add(parts: list[Chunk], rng: random.Random) -> None:
    large = b"a\0" + zlib.compress(bytes(5_000_000))
    data = rng.choice((b"", rng.randbytes(20), bytes(1000), struct.pack(">II", 2**31, 0), large))
    parts.insert(rng.randrange(len(parts) + 1), (rng.choice(_NAMES), data))


def _rename(parts: list[Chunk], rng: random.Random) -> None:
    where = rng.randrange(len(parts))
    parts[where] = rng.choice((rng.choice(_NAMES), rng.randbytes(4), parts[where][0].swapcase())), parts[where][1]


def _inflated(parts: list[Chunk], rng: random.Random) -> None:
    """Pixels that are another number than the header says."""
    for where, (kind, data) in enumerate(parts):
        if kind == b"IDAT":
            raw = zlib.decompress(data) if rng.random() < 0.7 else bytes(30_000_000)
            other = rng.choice((raw * 3, raw[: len(raw) // 2], rng.randbytes(len(raw) % 4096), b""))
            parts[where] = kind, zlib.compress(other)
            return


_CHANGES: dict[str, Callable[[list[Chunk], random.Random], None]] = {
    "header": _header,
    "content": _content,
    "added": _add,
    "renamed": _rename,
    "removed": lambda parts, rng: parts.pop(rng.randrange(len(parts))) and None,
    "shuffled": lambda parts, rng: rng.shuffle(parts),
    "repeated": lambda parts, rng: parts.insert(rng.randrange(len(parts)), rng.choice(parts)),
    "pixels": _inflated,
}


def enlarge(content: bytes, rng: random.Random) -> bytes:
    """The file with another number at each of some places of its head, where the sizes are."""
    data = bytearray(content)
    start, width, order = rng.randrange(4, min(60, len(data))), rng.choice((2, 4)), rng.choice(("little", "big"))
    data[start : start + width] = (rng.choice(_NUMBERS) % (1 << 8 * width)).to_bytes(width, order)
    return bytes(data)
