"""The page's GIF: Pillow reads every pixel of every frame as it was."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PAGE = Path(__file__).parents[2] / "runtime" / "js" / "page"
MAKE = """
import { readFileSync, writeFileSync } from 'node:fs';
const { encodeGif } = await import(process.argv[1] + '/gif.mjs');
const { filmOf } = await import(process.argv[1] + '/film.mjs');
const { size, frames, film, scale, file } = JSON.parse(readFileSync(0));
const given = (frames ?? []).map(({ colours, delay }) => ({ colours: Uint32Array.from(colours), delay }));
const made = film ? filmOf(film) : { size, frames: given };
writeFileSync(file, encodeGif(made.size, made.frames, scale));
"""

pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="needs Node")


def gif(file: Path, scale: int, **request: Any) -> list[tuple[np.ndarray, int]]:
    """The frames that Pillow reads, [height, width, 3], and how long each is shown, in milliseconds."""
    text = json.dumps({**request, "scale": scale, "file": str(file)})
    subprocess.run(["node", "--input-type=module", "-e", MAKE, str(PAGE)], input=text, text=True, check=True)
    with Image.open(file) as image:
        assert image.info["loop"] == 0 and image.info["version"] == b"GIF89a"
        frames = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            frames.append((np.asarray(image.convert("RGB")), image.info["duration"]))
        return frames


def levels(colours: np.ndarray) -> np.ndarray:
    return np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "n_colours", "scale"),
    [(1, 1, 1, 1), (16, 16, 2, 3), (5, 7, 3, 1), (16, 16, 4, 1), (32, 32, 200, 5), (64, 64, 255, 2), (90, 70, 256, 1)],
)
def test_frames_are_exact(tmp_path: Path, height: int, width: int, n_colours: int, scale: int) -> None:
    """Noise, which fills the table of codes again and again, then some pixels of it changed, then none, then all."""
    random = np.random.default_rng(height * n_colours)
    table = random.choice(2**24, n_colours, replace=False)
    frames = [table[random.integers(0, min(n_colours, 255), (height, width))]]
    some = frames[0].copy()
    some[random.random((height, width)) < 0.1] = table[0]
    frames += [some, some, table[random.integers(0, min(n_colours, 255), (height, width))]]
    request = [{"colours": frame.ravel().tolist(), "delay": 5 * i + 3} for i, frame in enumerate(frames)]
    read = gif(tmp_path / "a.gif", scale, size={"width": width, "height": height}, frames=request)
    assert len(read) == len(frames)
    for i, (frame, (pixels, milliseconds)) in enumerate(zip(frames, read, strict=True)):
        np.testing.assert_array_equal(pixels, levels(frame).repeat(scale, 0).repeat(scale, 1))
        assert milliseconds == 10 * (5 * i + 3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (1, 700)])
def test_more_colours_than_a_table_has(tmp_path: Path, height: int, width: int) -> None:
    """As many as pixels: nothing is lost, and each frame is there after its last part."""
    random = np.random.default_rng(0)
    frames = [random.choice(2**24, (height, width), replace=False) for _ in range(2)]
    request = [{"colours": frame.ravel().tolist(), "delay": 50} for frame in frames]
    read = gif(tmp_path / "a.gif", 1, size={"width": width, "height": height}, frames=request)
    whole = [pixels for pixels, milliseconds in read if milliseconds == 500]
    assert len(whole) == 2 and all(milliseconds in (20, 500) for _, milliseconds in read)
    for frame, pixels in zip(frames, whole, strict=True):
        np.testing.assert_array_equal(pixels, levels(frame))


@pytest.mark.parametrize(("n", "kept"), [(1, 0), (1, 255), (5, 128)])
def test_a_film_of_completions(tmp_path: Path, n: int, kept: int) -> None:
    """It begins with what was kept, and rests at the end on the pictures, side by side."""
    random = np.random.default_rng(n)
    palette = random.integers(0, 256, (512, 3))
    tokens = random.integers(0, 512, (n, 256))
    tokens[:, :kept] = tokens[0, :kept]
    film = {
        "tokens": tokens.tolist(), "kept": kept, "palette": palette.tolist(), "size": {"width": 16, "height": 16},
    }  # fmt: skip
    read = gif(tmp_path / "a.gif", 2, film=film)
    pictures = palette[tokens].reshape(n, 16, 16, 3).repeat(2, 1).repeat(2, 2)
    columns = {1: 1, 5: 3}[n]
    assert len(read) <= 66 and read[-1][1] == max(milliseconds for _, milliseconds in read) == 2500
    for i in range(n):
        top, left = i // columns * 34, i % columns * 34
        here = np.s_[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(read[-1][0][here], pictures[i])
        given = np.arange(256).reshape(16, 16).repeat(2, 0).repeat(2, 1) < kept
        np.testing.assert_array_equal(read[0][0][here][given], pictures[i][given])
        assert (read[0][0][here][~given] == (0xC4, 0xC4, 0xCC)).all()
