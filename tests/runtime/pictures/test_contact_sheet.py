"""Contact sheets, half-drawn pictures, animations, and writing files whole or not at all."""

import io
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igpt_runtime import files
from igpt_runtime.errors import OptionError, OutputError
from igpt_runtime.files import atomic_path, atomic_write
from igpt_runtime.pictures import contact_sheet as sheets
from igpt_runtime.pictures.contact_sheet import (
    auto_scale,
    contact_sheet,
    drawing_gif,
    partial_image,
    save_image,
    upscale,
)
from igpt_runtime.pictures.palette import tokens_to_image
from igpt_runtime.pictures.reading import read_image

RNG = np.random.default_rng(11)
CLUSTERS = RNG.uniform(-1, 1, (512, 3)).astype(np.float32)
TOKENS = RNG.integers(0, 512, 256)


def picture(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def find(page: Image.Image, cell: Image.Image) -> list[tuple[int, int]]:
    """Left and top of every place where `cell` stands in `page`."""
    pixels, wanted = np.asarray(page), np.asarray(cell)
    rows, columns = np.nonzero((pixels == wanted[0, 0]).all(-1))
    found = []
    for top, left in zip(rows.tolist(), columns.tolist(), strict=True):
        if np.array_equal(pixels[top : top + cell.height, left : left + cell.width], wanted):
            found.append((left, top))
    return found


def test_auto_scale() -> None:
    assert [auto_scale(w) for w in (1, 8, 16, 32, 48, 64, 128, 500)] == [128, 16, 8, 4, 3, 2, 1, 1]


def test_upscale_makes_squares() -> None:
    image = picture(1, (3, 2))
    assert np.array_equal(np.asarray(upscale(image, 4)), np.kron(np.asarray(image), np.ones((4, 4, 1), np.uint8)))
    with pytest.raises(OptionError, match="scale 0 is too small"):
        upscale(image, 0)


def test_partial_image() -> None:
    whole = np.asarray(tokens_to_image(TOKENS, CLUSTERS, 16, 16)).reshape(-1, 3)
    blank = np.asarray(partial_image([], CLUSTERS, 16, 16))
    assert len(np.unique(blank.reshape(-1, 3), axis=0)) == 2
    assert (blank[1:] != blank[:-1]).all() and (blank[:, 1:] != blank[:, :-1]).all()
    for given in (1, 100, 128, 256):
        drawn = np.asarray(partial_image(TOKENS[:given], CLUSTERS, 16, 16)).reshape(-1, 3)
        assert np.array_equal(drawn[:given], whole[:given])
        assert np.array_equal(drawn[given:], blank.reshape(-1, 3)[given:])
    assert partial_image([1, 2], CLUSTERS, 3, 5).size == (5, 3)
    with pytest.raises(OptionError, match="256 tokens do not fit a picture of 4x4; give at most 16"):
        partial_image(TOKENS, CLUSTERS, 4, 4)
    with pytest.raises(OptionError, match="token 512 at position 0 is no colour"):
        partial_image([512], CLUSTERS, 4, 4)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 16, 64])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (32, 32), (24, 40)])
def test_contact_sheet_shows_each_picture_once_in_order(n: int, given: bool, size: tuple[int, int]) -> None:
    completions = [picture(i, size) for i in range(n)]
    first = (picture(1000, size), picture(1001, size)) if given else (None, None)
    scale = auto_scale(max(size)) if n <= 8 else 2
    page = contact_sheet(*first, completions, scale=None if n <= 8 else 2)
    places = [find(page, upscale(image, scale)) for image in completions]
    assert all(len(place) == 1 for place in places)
    flat = [place[0] for place in places]
    assert sorted(flat, key=lambda at: (at[1], at[0])) == flat  # reading order
    assert len(set(flat)) == n
    columns, rows = {left for left, _ in flat}, {top for _, top in flat}
    assert (len(rows) == 1) if n <= 3 else len(columns) >= len(rows) > 1
    assert len(columns) * (len(rows) - 1) < n <= len(columns) * len(rows)
    if given:
        (original,), (kept,) = (find(page, upscale(image, scale)) for image in first)
        assert max(original[0], kept[0]) + size[0] * scale < min(columns)
        assert (original[1] == kept[1]) if n <= 3 else (original[0] == kept[0] and original[1] < kept[1])
    assert max(page.size) < 1700


def test_captions() -> None:
    image = Image.new("RGB", (16, 16), (0, 60, 0))
    page = np.asarray(contact_sheet(image, image, [image] * 12)).astype(int)
    background = page[0, 0]
    text = (np.abs(page - background).sum(-1) > 200) & (page[..., 1] > 100)
    cells = (page == (0, 60, 0)).all(-1)
    assert not (text & cells).any()
    lefts = [left for left in range(1, page.shape[1]) if cells[10, left] and not cells[10, left - 1]]
    tops = [top for top in range(1, page.shape[0]) if cells[top, lefts[1]] and not cells[top - 1, lefts[1]]]
    widths = []
    for top in tops:
        for left in lefts:
            under = text[top + 128 : top + 128 + 28, left : left + 128]
            across = np.flatnonzero(under.any(0))
            has_cell = cells[top, left]
            assert bool(across.size) == bool(has_cell)
            if across.size:
                assert abs((across[0] + across[-1]) / 2 - 63.5) < 4  # centred
                widths.append(int(np.ptp(across)))
    assert len(widths) == 14 and widths[0] > 30 > max(widths[2:5])  # "original" is longer than "2"


def test_small_cells_keep_their_captions_apart() -> None:
    images = [picture(i, (8, 8)) for i in range(3)]
    page = contact_sheet(images[0], images[1], images[2:], scale=1)
    (original,), (kept,), (one,) = (find(page, image) for image in images)
    assert kept[0] - original[0] > 40 and one[0] > kept[0]


def test_contact_sheet_refuses() -> None:
    with pytest.raises(OptionError, match="needs a picture; give at least one"):
        contact_sheet(None, None, [])
    with pytest.raises(OptionError, match="picture '2' is 8x9, not 16x16 as the first"):
        contact_sheet(None, picture(1), [picture(2), picture(3, (8, 9))])
    with pytest.raises(OptionError, match="scale 0 is too small"):
        contact_sheet(None, None, [picture(1)], scale=0)


@pytest.mark.parametrize("suffix", ["", ".png", ".PNG", ".webp", ".bmp", ".gif", ".jpg", ".jpeg"])
def test_save_image(suffix: str, tmp_path: Path) -> None:
    image = picture(5, (12, 16))  # 192 colours, so that a GIF holds them
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    save_image(upscale(image, 8), path)
    formats = {"": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    with Image.open(path) as stored:
        assert stored.format == formats.get(suffix, suffix[1:].upper())
    difference = np.abs(np.asarray(read_image(path)).astype(int) - np.asarray(upscale(image, 8)))
    assert difference.max() <= 40 if "j" in suffix else difference.max() == 0
    assert os.listdir(tmp_path) == [path.name]


def test_save_image_converts_other_modes(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png", ".bmp", ".webp", ".gif"):
        save_image(Image.new("RGBA", (4, 4), (9, 8, 7, 255)), tmp_path / f"a{suffix}")
        assert np.abs(np.asarray(read_image(tmp_path / f"a{suffix}")).astype(int) - (9, 8, 7)).max() <= 2


def test_save_image_refuses(tmp_path: Path) -> None:
    image = picture(1)
    (tmp_path / "dir.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OptionError, match=r"as '.tiff'; use one of .png .jpg .jpeg .webp .gif .bmp"):
        save_image(image, tmp_path / "a.tiff")
    for name, message in [
        ("dir.png", "dir.png': it is a directory; name a file in it"),
        ("file/a.png", "name a directory"),
        ("x" * 300 + "/a.png", "File name too long; choose a shorter name"),
        ("a\0.png", "embedded null"),
    ]:
        with pytest.raises(OutputError) as caught:
            save_image(image, tmp_path / name)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(OutputError, match="WEBP cannot hold 17000x1 pixels; use a smaller scale or .png"):
        save_image(Image.new("RGB", (17000, 1)), tmp_path / "wide.webp")
    assert sorted(os.listdir(tmp_path)) == ["dir.png", "file"]


def test_save_image_creates_directories(tmp_path: Path) -> None:
    save_image(picture(1), tmp_path / "new" / "below" / "a.png")
    with Image.open(tmp_path / "new" / "below" / "a.png") as saved:
        assert saved.size == picture(1).size


def test_drawing_gif(tmp_path: Path) -> None:
    frames = [partial_image(TOKENS[:n] % 200, CLUSTERS, 16, 16) for n in range(0, 257, 16)]
    drawing_gif(iter(frames), tmp_path / "a.gif", scale=3, ms_per_frame=50, last_ms=1500)
    with Image.open(tmp_path / "a.gif") as stored:
        assert (stored.n_frames, stored.size, stored.info["loop"]) == (17, (48, 48), 0)
        for i, frame in enumerate(frames):
            stored.seek(i)
            assert stored.info["duration"] == (1500 if i == 16 else 50)
            assert np.array_equal(np.asarray(stored.convert("RGB")), np.asarray(upscale(frame, 3)))  # exact colours
    assert os.listdir(tmp_path) == ["a.gif"]


def test_gif_of_many_colours_is_close(tmp_path: Path) -> None:
    frames = [picture(i, (32, 32)) for i in range(3)]
    drawing_gif(frames, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as stored:
        for i, frame in enumerate(frames):
            stored.seek(i)
            difference = np.asarray(stored.convert("RGB")).astype(int) - np.asarray(frame)
            assert np.abs(difference).mean() < 20  # 256 colours spread over the cube are 40 apart


def test_drawing_gif_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    with pytest.raises(OptionError, match="needs a frame"):
        drawing_gif([], path)
    with pytest.raises(OptionError, match="differ in size"):
        drawing_gif([picture(1), picture(2, (8, 8))], path)
    with pytest.raises(OptionError, match="end its name in .gif"):
        drawing_gif([picture(1)], tmp_path / "a.png")
    with pytest.raises(OptionError, match="frames of 10 and 2000 ms are out of range; use 20..60000"):
        drawing_gif([picture(1)], path, ms_per_frame=10)
    with pytest.raises(OptionError, match="scale 0"):
        drawing_gif([picture(1)], path, scale=0)
    assert os.listdir(tmp_path) == []


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for owner, name in ((Path, "write_bytes"), (files.os, "fsync"), (files.os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(OutputError, match="a.bin': No space left on device; free some space"):
                atomic_write(path, b"new")
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_atomic_path_cleans_up_after_any_error(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_path(tmp_path / "a.onnx") as temporary:
        assert temporary.parent == tmp_path.resolve() and temporary.suffix == ".onnx"
        temporary.write_bytes(b"half")
        assert not (tmp_path / "a.onnx").exists()
        raise error
    assert os.listdir(tmp_path) == []


def test_atomic_write_follows_links_and_the_umask(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "real")
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "link", b"data")
    finally:
        os.umask(before)
    real = tmp_path / "there" / "real"
    assert (tmp_path / "link").is_symlink() and real.read_bytes() == b"data"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert os.listdir(tmp_path / "there") == ["real"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_are_written_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    save_image(picture(1), pipe)
    reader.join(10)
    assert pipe.is_fifo() and read_image(io.BytesIO(received[0])) == picture(1)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied; choose a place you may write to"):
        atomic_write(tmp_path / "a", b"")


def test_public_names() -> None:
    for module in (sheets, files):
        assert sorted(module.__all__) == module.__all__
        assert all(getattr(module, name).__doc__ for name in module.__all__)
