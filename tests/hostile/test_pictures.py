"""Pictures as they come: long texts and profiles, wrong checksums, arrays, links, pipes, a command's own outputs."""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageCms, PngImagePlugin

from igpt_runtime import classify, open_session, read_image
from igpt_runtime.cli import main
from igpt_runtime.errors import ImageError
from igpt_runtime.pictures.folder import SUFFIXES, find_pictures
from igpt_runtime.pictures.reading import as_image

SEVEN = Path(__file__).parents[2] / "models/digits/examples/seven.png"
PIXELS = np.asarray(Image.open(SEVEN).convert("RGB"))


def png(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", right if checksum is None else checksum)


def with_chunk(added: bytes) -> bytes:
    """A PNG file with a chunk after its header."""
    whole = png()
    return whole[:33] + added + whole[33:]


def text_of(size: int, compressed: bool) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * size, zip=compressed)
    return info


@pytest.mark.parametrize("compressed", [False, True])
def test_a_long_text(compressed: bool) -> None:
    assert (np.asarray(read_image(png(pnginfo=text_of(3 << 20, compressed)))) == PIXELS).all()


def test_a_long_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(3 << 20)
    assert (np.asarray(read_image(png(icc_profile=profile))) == PIXELS).all()


@pytest.mark.parametrize("kind", [b"tEXt", b"tIME", b"pHYs", b"eXIf", b"iCCP", b"acTL"])
def test_a_wrong_checksum_beside_the_pixels(kind: bytes) -> None:
    assert (np.asarray(read_image(with_chunk(chunk(kind, b"Comment\0hi", 0)))) == PIXELS).all()


def test_a_wrong_checksum_of_the_pixels() -> None:
    whole = bytearray(png())
    place = whole.index(b"IDAT")
    length = int.from_bytes(whole[place - 4 : place], "big")
    whole[place + 4 + length] ^= 1  # the first byte of the checksum
    with pytest.raises(ImageError, match="is damaged or cut short .the checksum of its chunk IDAT at byte"):
        read_image(bytes(whole))


@pytest.mark.parametrize("end", [9, 20, 40, 60, -200])
def test_a_file_that_is_cut_short(end: int) -> None:
    with pytest.raises(ImageError):
        read_image(png()[:end])


def test_only_the_end_is_missing() -> None:
    """All pixels are there."""
    assert (np.asarray(read_image(png()[:-13])) == PIXELS).all()


def test_every_byte_of_a_small_png_may_be_wrong() -> None:
    """It is read as it was, or refused in one line, but for bytes that are no part of the pixels."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[:3, :3]).save(buffer, "PNG")
    whole = buffer.getvalue()
    for place in range(len(whole)):
        for flipped in (1, 128):
            damaged = bytearray(whole)
            damaged[place] ^= flipped
            try:
                found = read_image(bytes(damaged))
            except ImageError as error:
                assert "\n" not in str(error)
                continue
            assert (np.asarray(found) == PIXELS[:3, :3]).all(), place


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (b"", "is empty; get the file again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    ],
)
def test_what_is_no_picture(picture: bytes, expected: str) -> None:
    with pytest.raises(ImageError, match=expected):
        read_image(picture)


def test_the_python_api_takes_what_people_have() -> None:
    session = open_session("digits")
    data = SEVEN.read_bytes()
    grey = np.asarray(Image.open(SEVEN).convert("L"))
    transparent = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, np.uint8)])
    expected = classify(session, str(SEVEN))
    given = (
        SEVEN, [SEVEN], (SEVEN,), data, bytearray(data), memoryview(data), io.BytesIO(data), Image.open(SEVEN), PIXELS,
        PIXELS[None], [PIXELS], transparent,
    )  # fmt: skip
    for picture in given:
        assert (classify(session, picture) == expected).all()
    assert classify(session, np.stack([PIXELS, PIXELS])).shape == (2, 10)
    assert as_image(grey).mode == "RGB"
    for wrong, message in (
        (3, "a picture is a path, .* a PIL image or an array, or a sequence of these, but this is int"),
        ([3], "a picture is a path, the bytes of a file, a binary stream, a PIL image or an array, but this is int"),
        (PIXELS / 255, r"uint8 \[height, width\] or \[height, width, 3 or 4\], not float64"),
        (PIXELS.transpose(2, 0, 1), r"not uint8 \[3, 128, 128\]"),
        (np.zeros((0, 4, 3), np.uint8), "4x0 and has no pixels"),
    ):
        with pytest.raises(ImageError, match=message):
            classify(session, wrong)  # type: ignore[arg-type]


def test_suffixes_are_pillows() -> None:
    Image.init()
    formats = {"PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB"}
    assert {suffix for suffix, name in Image.registered_extensions().items() if name in formats} == SUFFIXES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them behind a link that leads back, and what is none."""
    real = tmp_path / "real"
    (real / "three").mkdir(parents=True)
    data = tmp_path / "data"
    (data / "two").mkdir(parents=True)
    Image.fromarray(PIXELS).save(real / "three/a.jpe", "JPEG")
    Image.fromarray(PIXELS).save(data / "two/b.jfif", "JPEG")
    Image.fromarray(PIXELS).save(data / "c.PNG")
    (data / "three").symlink_to("../real/three")
    (data / "two/back").symlink_to("..")
    (data / "notes.txt").write_text("x")
    (data / ".hidden.png").write_text("x")
    os.mkfifo(data / "x.png")
    return data


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_walk(folder: Path, refused: Callable[..., str]) -> None:
    found = find_pictures([str(folder)])
    assert [Path(name).name for name in found.names] == ["c.PNG", "a.jpe", "b.jfif"]
    assert found.said() == "1 hidden, 1 of another kind (.txt), 1 pipes, sockets and devices"
    result = CliRunner().invoke(main, ["score", str(folder), "--json"])
    assert json.loads(result.stdout)["pictures"] == 3
    assert f"passed over: {found.said()}" in result.stderr.splitlines()
    assert "it is a pipe, not a file" in refused(main, "classify", folder / "x.png")
    result = CliRunner().invoke(main, ["classify", str(folder / "x.png"), str(folder / "c.PNG"), "--skip-broken"])
    assert result.exit_code == 3 and "it is a pipe" in result.stderr


@pytest.mark.parametrize(
    ("command", "options"),
    [("score", ["--maps", "DIR"]), ("complete", ["--output-dir", "DIR", "-n", "1", "--separate", "--gif"])],
)
def test_a_commands_own_outputs_are_no_inputs(command: str, options: list[str], tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(PIXELS).save(tmp_path / f"{name}.png")
    arguments = [command, str(tmp_path), *[option.replace("DIR", str(tmp_path)) for option in options], "--json"]
    first = CliRunner().invoke(main, arguments)
    again = CliRunner().invoke(main, [*arguments, "--force"])
    assert first.exit_code == again.exit_code == 0
    images = [[row["image"] for row in json.loads(result.stdout)["images"]] for result in (first, again)]
    assert images[0] == images[1] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert "written by this command" in again.stderr


def test_standard_input_has_an_end() -> None:
    class Endless(io.RawIOBase):
        read_so_far = 0

        def read(self, size: int = -1) -> bytes:
            self.read_so_far += size
            assert size > 0 and self.read_so_far < 1 << 30
            return bytes(size)

    with pytest.raises(ImageError, match="has more than 536,870,912 bytes; make it smaller first"):
        read_image(Endless())  # type: ignore[arg-type]
