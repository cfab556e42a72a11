"""Reading pictures, resizing them, and tokens <-> RGB."""

import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igpt_runtime.errors import ImageError, OptionError
from igpt_runtime.pictures import palette
from igpt_runtime.pictures.palette import image_to_tokens, resize_image, tokens_to_image
from igpt_runtime.pictures.reading import read_image, to_rgb

RNG = np.random.default_rng(7)
NOISE = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
SMOOTH = np.stack(np.meshgrid(np.arange(0, 240, 6), np.arange(0, 240, 10)), -1).astype(np.uint8)  # (24, 40, 2)
PHOTO = np.concatenate([SMOOTH, 255 - SMOOTH[..., :1]], axis=-1)
CLUSTERS = RNG.uniform(-1, 1, (512, 3)).astype(np.float32)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def raw_png(width: int, height: int, depth: int, colour: int, data: bytes, transparent: bytes = b"") -> bytes:
    """A PNG built by hand; `data` holds the rows, each after its filter byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    extra = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def pixels(source: bytes) -> np.ndarray:
    image = read_image(source)
    assert type(image) is Image.Image and image.mode == "RGB" and not image.info and not image.getexif()
    return np.asarray(image)


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


@pytest.mark.parametrize("file_format, options", [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats(file_format: str, options: dict) -> None:
    assert np.array_equal(pixels(encoded(Image.fromarray(NOISE), file_format, **options)), NOISE)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(progressive: bool) -> None:
    data = encoded(Image.fromarray(PHOTO), "JPEG", quality=95, subsampling=0, progressive=progressive)
    assert np.abs(pixels(data).astype(int) - PHOTO).max() <= 8


def test_cmyk_jpeg_is_not_inverted() -> None:
    data = encoded(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", quality=95, subsampling=0)
    assert Image.open(io.BytesIO(data)).mode == "CMYK" and b"Adobe" in data
    assert np.abs(pixels(data).astype(int) - PHOTO).max() <= 12


def test_sources_are_equal(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(NOISE), "PNG")
    path = tmp_path / "bild ä.png"
    path.write_bytes(data)
    reader, writer = os.pipe()
    feeder = threading.Thread(target=lambda: (os.write(writer, data), os.close(writer)))
    feeder.start()
    with os.fdopen(reader, "rb") as pipe:
        assert np.array_equal(np.asarray(read_image(pipe)), NOISE)
    feeder.join()
    stream = io.BytesIO(b"junk" + data)
    stream.seek(4)
    for source in (str(path), path, stream, data):
        assert np.array_equal(np.asarray(read_image(source)), NOISE)
    assert not stream.closed


def test_grey_one_bit_and_palette() -> None:
    grey = NOISE[..., 0]
    assert np.array_equal(pixels(encoded(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, -1))
    bits = grey > 127
    assert np.array_equal(pixels(encoded(Image.fromarray(bits), "PNG")), np.repeat(bits[..., None] * 255, 3, -1))
    indexed = Image.fromarray(grey)
    table = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    indexed.putpalette(table.tobytes())
    for file_format in ("PNG", "GIF", "BMP"):
        assert np.array_equal(pixels(encoded(indexed, file_format)), table[grey])


def test_alpha_is_laid_over_white() -> None:
    alpha = RNG.integers(0, 256, NOISE.shape[:2], dtype=np.uint8)
    rgba = Image.fromarray(np.dstack([NOISE, alpha]))
    for options in ({"file_format": "PNG"}, {"file_format": "WEBP", "lossless": True, "exact": True}):
        assert np.abs(pixels(encoded(rgba, **options)) - over_white(NOISE, alpha)).max() <= 1
    grey = np.repeat(NOISE[..., :1], 3, -1)
    la = Image.merge("LA", [Image.fromarray(NOISE[..., 0].copy()), Image.fromarray(alpha)])
    assert np.abs(pixels(encoded(la, "PNG")) - over_white(grey, alpha)).max() <= 1


def test_palette_with_transparency() -> None:
    index = (NOISE[..., 0] % 4).astype(np.uint8)
    table = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [0, 0, 200]], dtype=np.uint8)
    image = Image.fromarray(index)
    image.putpalette(table.tobytes())
    alphas = np.array([0, 128, 255, 255], dtype=np.uint8)
    png = pixels(encoded(image, "PNG", transparency=alphas.tobytes()))
    assert np.abs(png - over_white(table[index], alphas[index])).max() <= 1
    gif = pixels(encoded(image, "GIF", transparency=2))
    assert np.array_equal(gif, np.where((index == 2)[..., None], 255, table[index]))


def test_transparent_colour_without_alpha() -> None:
    rgb = raw_png(2, 1, 8, 2, bytes([0, 1, 2, 3, 250, 0, 0]), struct.pack(">3H", 1, 2, 3))
    assert pixels(rgb).tolist() == [[[255, 255, 255], [250, 0, 0]]]
    grey = raw_png(2, 1, 8, 0, bytes([0, 7, 9]), struct.pack(">H", 7))
    assert pixels(grey).tolist() == [[[255] * 3, [9] * 3]]
    deep = raw_png(3, 1, 16, 0, b"\0" + struct.pack(">3H", 1000, 1001, 25700), struct.pack(">H", 1000))
    assert pixels(deep).tolist() == [[[255] * 3, [4] * 3, [100] * 3]]


def test_16_bit_levels_are_scaled() -> None:
    levels = np.array([0, 1, 257, 25700, 32768, 65534, 65535])
    expected = [round(v / 257) for v in levels]
    deep = pixels(raw_png(7, 1, 16, 0, b"\0" + struct.pack(">7H", *levels)))
    assert deep[0, :, 0].tolist() == expected and np.ptp(deep, axis=2).max() == 0
    assert np.asarray(to_rgb(Image.fromarray(levels[None].astype(np.int32))))[0, :, 1].tolist() == expected
    colour = pixels(raw_png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 65535, 25700, 0, 257, 514, 65535)))
    assert colour.tolist() == [[[255, 100, 0], [1, 2, 255]]]


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.array_equal(pixels(data), np.asarray(frames[0]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation(orientation: int, file_format: str) -> None:
    # what the stored picture looks like, by the EXIF standard's "0th row, 0th column" of each orientation
    store = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"PNG": {}, "JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}[file_format]
    stored = Image.fromarray(np.ascontiguousarray(store(PHOTO)))
    upright = pixels(encoded(stored, file_format, exif=exif.tobytes(), **options))
    assert upright.shape == PHOTO.shape
    assert np.abs(upright.astype(int) - PHOTO).max() <= (8 if file_format == "JPEG" else 0)


def test_damaged_exif_is_ignored() -> None:
    data = encoded(Image.fromarray(NOISE), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of it
        assert np.array_equal(pixels(data), NOISE)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "CMYK", "LAB", "F", "RGBX", "RGBa", "PA", "La"])
def test_other_modes(mode: str) -> None:
    expected = Image.fromarray(PHOTO)
    if mode in ("F", "La", "PA"):
        expected = expected.convert("P" if mode == "PA" else "L").convert("RGB")
    if mode == "LAB":  # saturated colours lie outside what 8-bit LAB holds
        expected = Image.fromarray(PHOTO // 3 + 80)
    route = {"RGBa": "RGBA", "La": "LA", "PA": "P", "F": "L"}.get(mode)
    source = expected.convert(route) if route else expected
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(source, *profiles, outputMode="LAB")
    else:
        image = source.convert(mode)
    assert image.mode == mode
    converted = to_rgb(image)
    assert converted.mode == "RGB"
    allowed = {"HSV": 8, "LAB": 6, "YCbCr": 3}.get(mode, 1)
    assert np.abs(np.asarray(converted).astype(int) - np.asarray(expected)).max() <= allowed


ENCODINGS = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("GIF", {}),
    ("BMP", {}),
]


@pytest.mark.parametrize("file_format, options", ENCODINGS)
def test_a_cut_picture_is_never_half_read(file_format: str, options: dict) -> None:
    whole = encoded(Image.fromarray(NOISE), file_format, **options)
    expected = pixels(whole)
    refused = 0
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        try:
            assert np.array_equal(pixels(whole[:length]), expected)  # only a trailer was cut
        except ImageError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith("the given picture is ")
    assert refused >= 55
    with pytest.raises(ImageError, match="damaged or cut short .*; get a sound copy of it"):
        read_image(whole[: len(whole) * 2 // 3])


def test_any_damage_is_an_image_error() -> None:
    for file_format, options in ENCODINGS:
        whole = encoded(Image.fromarray(NOISE[:8, :8]), file_format, **options)
        for _ in range(60):
            data = bytearray(whole)
            for at in RNG.integers(0, len(data), 3):
                data[at] = RNG.integers(256)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow warns of some damage it can pass over
                    assert read_image(bytes(data)).mode == "RGB"
            except ImageError as error:
                assert "\n" not in str(error)


def test_bad_files(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    tiff = tmp_path / "scan.tiff"
    Image.fromarray(NOISE).save(tiff)
    cases = [
        (tmp_path / "absent.png", "absent.png': no such file; check the path"),
        (tmp_path, "is a directory; name a picture in it"),
        (text, "notes.png' is not a PNG, JPEG, WebP, GIF or BMP picture; convert it to one of these"),
        (tiff, "scan.tiff' is not a PNG, JPEG"),
        (text / "x.png", "cannot be opened: Not a directory; check the path"),
        ("a\0b", "cannot be opened: embedded null byte"),
        (b"", "the given picture is empty; get the file again"),
        (io.BytesIO(), "the given picture is empty; get the file again"),
        (tmp_path / "two\nlines.png", r"two\nlines.png': no such file"),
    ]
    for source, message in cases:
        with pytest.raises(ImageError) as caught:
            read_image(source)
        assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("action", ["ignore", "error"])
@pytest.mark.parametrize("height", [900, 1800, 3000])
def test_too_many_pixels(height: int, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900 * 1000)
    huge = raw_png(1000, height, 8, 2, b"")  # a header and no pixels: reading them would fail otherwise
    reason = "damaged or cut short" if height == 900 else "has more than 900000 pixels; make it smaller first"
    with warnings.catch_warnings():
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        with pytest.raises(ImageError, match=reason):
            read_image(huge)
    assert Image.MAX_IMAGE_PIXELS == 900 * 1000


@pytest.mark.parametrize(("width", "height", "rows"), [(1, 112501, True), (7, 112501, True), (1, 112500, False)])
def test_too_many_rows(width: int, height: int, rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow keeps something beside each row, so that narrow pictures would take several times the memory."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900 * 1000)
    reason = "has more than 112500 rows of pixels; make it smaller" if rows else "damaged or cut short"
    with pytest.raises(ImageError, match=reason):
        read_image(raw_png(width, height, 8, 2, b""))


def test_no_pixels() -> None:
    with pytest.raises(ImageError, match="0x5 and has no pixels"):
        to_rgb(Image.new("RGB", (0, 5)))
    with pytest.raises(ImageError):
        read_image(raw_png(0, 1, 8, 2, b"\0"))


def test_resize_squashes_or_crops() -> None:
    bars = np.zeros((8, 24, 3), dtype=np.uint8)
    bars[:, 8:16] = (255, 0, 0)
    for image in (bars, bars.transpose(1, 0, 2)):
        wide = Image.fromarray(np.ascontiguousarray(image))
        assert np.array_equal(np.asarray(resize_image(wide, 8, 8, crop=True)), np.broadcast_to((255, 0, 0), (8, 8, 3)))
        assert np.asarray(resize_image(wide, 8, 8))[0, 0].tolist() == [0, 0, 0]
    square = Image.fromarray(NOISE[:20, :20].copy())
    assert resize_image(square, 8, 8, crop=True) == resize_image(square, 8, 8)
    assert resize_image(square, 20, 20) == square
    for image in (NOISE[:, :36], NOISE[:, :36].transpose(1, 0, 2)):  # the short side to 8, then the centre of 12
        long = Image.fromarray(np.ascontiguousarray(image))
        fitted = long.resize((long.width // 3, long.height // 3), Image.Resampling.BILINEAR)
        left, top = (fitted.width - 8) // 2, (fitted.height - 8) // 2
        assert resize_image(long, 8, 8, crop=True) == fitted.crop((left, top, left + 8, top + 8))


def test_resample_filters() -> None:
    image = Image.fromarray(NOISE)
    results = set()
    for resample in Image.Resampling:
        small = resize_image(image, 8, 8, resample=resample.value)
        assert small == image.resize((8, 8), resample)
        results.add(small.tobytes())
    assert len(results) == len(Image.Resampling) >= 6
    with pytest.raises(OptionError, match="resample 99 is no filter; use one of 0 nearest, 1 lanczos, 2 bilinear"):
        resize_image(image, 8, 8, resample=99)
    with pytest.raises(OptionError, match="0x8 pixels; both sides must be at least 1"):
        resize_image(image, 8, 0)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (60000, 1), (1, 60000), (3, 1999)])
def test_any_shape(size: tuple[int, int], crop: bool) -> None:
    image = Image.new("RGB", size, (200, 100, 50))
    assert resize_image(image, 32, 32, crop=crop) == Image.new("RGB", (32, 32), (200, 100, 50))


def test_a_very_long_picture_is_resized_as_a_shorter_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stripe = np.repeat(RNG.integers(0, 256, (1, 600, 3), dtype=np.uint8), 400, axis=1)  # 240000 long
    image = Image.fromarray(stripe)
    exact = np.asarray(resize_image(image, 2, 16)).astype(int)
    monkeypatch.setattr(palette, "_LONG_SIDE", 100000)
    assert np.abs(np.asarray(resize_image(image, 2, 16)) - exact).max() <= 1
    assert resize_image(image, 4, 4, crop=True).size == (4, 4)


def test_tokens_and_back() -> None:
    tokens = RNG.integers(0, 512, 32 * 16)
    image = tokens_to_image(tokens, CLUSTERS, 16, 32)
    assert image.size == (32, 16) and image.mode == "RGB"
    assert np.array_equal(np.asarray(image).reshape(-1, 3), np.rint(127.5 * (CLUSTERS.astype(float) + 1))[tokens])
    assert np.array_equal(image_to_tokens(image, CLUSTERS, 16, 32), tokens)
    ends = np.array([[-1, -1, -1], [1, 1, 1], [0, 0.25, -0.25]], dtype=np.float32)
    colours = [[255] * 3, [0] * 3, [128, 159, 96]]
    assert np.asarray(tokens_to_image([1, 0, 2], ends, 1, 3)).tolist() == [colours]


def test_nearest_cluster_by_brute_force() -> None:
    tokens = image_to_tokens(Image.fromarray(NOISE), CLUSTERS, *NOISE.shape[:2])
    assert tokens.dtype == np.int64 and tokens.shape == (24 * 40,)
    wanted = NOISE.reshape(-1, 1, 3) / 127.5 - 1
    distance = np.square(wanted - CLUSTERS.astype(float)).sum(-1)
    assert np.allclose(distance[np.arange(len(tokens)), tokens], distance.min(1), atol=1e-5)


def test_first_of_equal_clusters_wins() -> None:
    twice = np.concatenate([CLUSTERS, CLUSTERS])
    image = Image.fromarray(NOISE)
    assert np.array_equal(image_to_tokens(image, twice, 24, 40), image_to_tokens(image, CLUSTERS, 24, 40))


def test_many_pixels_are_compared_in_parts() -> None:
    batch = RNG.integers(0, 256, (3, 50, 31, 3), dtype=np.uint8)
    tokens = palette.nearest_clusters(batch, CLUSTERS)
    assert tokens.shape == (3, 50, 31)
    for one, expected in zip(batch, tokens, strict=True):
        assert np.array_equal(image_to_tokens(Image.fromarray(one), CLUSTERS, 50, 31), expected.reshape(-1))


def test_bad_tokens() -> None:
    for tokens, message in [
        ([0, 1, 512, 3], r"token 512 at position 2 is no colour; use 0..511"),
        ([0, -1, 2, 3], "token -1 at position 1"),
        ([0, 1, 2], "3 tokens do not make a picture of 2x2; give 4"),
        ([0.0, 1.0, 2.0, 3.0], "type float64 are not colours; give whole numbers"),
        (np.array([0, 2**64 - 1, 2, 3], dtype=np.uint64), "token 18446744073709551615 at position 1"),
    ]:
        with pytest.raises(OptionError, match=message):
            tokens_to_image(tokens, CLUSTERS, 2, 2)


def test_public_names() -> None:
    assert sorted(palette.__all__) == palette.__all__
    assert all(getattr(palette, name).__doc__ for name in palette.__all__)
