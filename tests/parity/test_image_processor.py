"""Tokens agree with transformers' PIL image processor, for every picture and palette tried."""

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, load_sample_image

from igpt_runtime.pictures.palette import image_to_tokens
from igpt_runtime.pictures.reading import read_image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # transformers' own, at import
    from transformers import ImageGPTImageProcessorPil

PHOTOS = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]


def _kmeans() -> np.ndarray:
    colours = np.concatenate([photo.reshape(-1, 3)[::200] for photo in PHOTOS]) / 127.5 - 1
    return KMeans(512, n_init=1, max_iter=3, random_state=0).fit(colours).cluster_centers_


def _lattice() -> np.ndarray:
    """Colours at equal distance from many pixels, so that rounding decides."""
    levels = np.linspace(-1, 1, 8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)


PALETTES = {
    "random": np.random.default_rng(0).uniform(-1, 1, (512, 3)),
    "kmeans": _kmeans(),
    "lattice": _lattice(),
    "grey": np.repeat(np.linspace(-1, 1, 18)[:, None], 3, axis=1),
}
PALETTES = {name: clusters.astype(np.float32) for name, clusters in PALETTES.items()}


def processor(directory: Path, clusters: np.ndarray, height: int, width: int, resample: int = 2):
    """The reference as users get it: loaded from a preprocessor_config.json."""
    config = {
        "image_processor_type": "ImageGPTImageProcessor",
        "clusters": clusters.tolist(),
        "size": {"height": height, "width": width},
        "resample": resample,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(config))
    return ImageGPTImageProcessorPil.from_pretrained(directory)


def reference(process, image: Image.Image) -> np.ndarray:
    return np.asarray(process(images=image)["input_ids"][0])


def crops(count: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    images = []
    for i in range(count):
        photo = PHOTOS[i % 2]
        height, width = rng.integers(1, 200, 2)
        top, left = rng.integers(0, photo.shape[0] - height), rng.integers(0, photo.shape[1] - width)
        images.append(Image.fromarray(photo[top : top + height, left : left + width].copy()))
    return images


@pytest.mark.parametrize("name", PALETTES)
def test_photo_crops(name: str, tmp_path: Path) -> None:
    process = processor(tmp_path, PALETTES[name], 32, 32)
    for image in [*crops(80, seed=1), *map(Image.fromarray, PHOTOS)]:
        assert np.array_equal(image_to_tokens(image, PALETTES[name], 32, 32), reference(process, image)), image.size


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (7, 1999), (32, 32), (33, 31), (427, 640)])
@pytest.mark.parametrize("target", [(16, 16), (48, 48), (24, 40), (2, 2)])
def test_sizes(size: tuple[int, int], target: tuple[int, int], tmp_path: Path) -> None:
    photo = np.concatenate([PHOTOS[0]] * 4, axis=1)
    photo = np.concatenate([photo, photo], axis=0)
    image = Image.fromarray(photo[: size[0], : size[1]].copy())
    process = processor(tmp_path, PALETTES["kmeans"], *target)
    assert np.array_equal(image_to_tokens(image, PALETTES["kmeans"], *target), reference(process, image))


@pytest.mark.parametrize("name", ["grey", "lattice"])
def test_digits(name: str, tmp_path: Path) -> None:
    process = processor(tmp_path, PALETTES[name], 16, 16)
    for digit in load_digits().images[:150]:
        image = Image.fromarray((digit * (255 / 16)).astype(np.uint8)).convert("RGB")
        assert np.array_equal(image_to_tokens(image, PALETTES[name], 16, 16), reference(process, image))


@pytest.mark.parametrize("resample", [0, 1, 2, 3, 4, 5])
def test_filters(resample: int, tmp_path: Path) -> None:
    process = processor(tmp_path, PALETTES["kmeans"], 32, 32, resample)
    for image in crops(10, seed=2):
        tokens = image_to_tokens(image, PALETTES["kmeans"], 32, 32, resample=resample)
        assert np.array_equal(tokens, reference(process, image))


def test_every_level_and_batches(tmp_path: Path) -> None:
    """All 256 grey levels and 3840 random colours, one by one and as a batch, which has another memory layout."""
    colours = np.random.default_rng(3).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    colours[0, :8] = np.arange(256, dtype=np.uint8).reshape(8, 32, 1)
    images = [Image.fromarray(c) for c in colours]
    for clusters in PALETTES.values():
        process = processor(tmp_path, clusters, 32, 32)
        batch = process(images=images)["input_ids"]
        for image, expected in zip(images, batch, strict=True):
            tokens = image_to_tokens(image, clusters, 32, 32)
            assert np.array_equal(tokens, expected) and np.array_equal(tokens, reference(process, image))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_modes_and_formats(mode: str, file_format: str, tmp_path: Path) -> None:
    """Whatever the file, the tokens are those of the reference: for what we read, and for what it reads itself."""
    process = processor(tmp_path, PALETTES["random"], 32, 32)
    for crop in crops(10, seed=4):
        if mode == "I;16":
            image = Image.fromarray(np.asarray(crop.convert("L")).astype(np.uint16) * 257)
        else:
            image = crop.convert(mode)
        buffer = io.BytesIO()
        try:
            image.save(buffer, format=file_format)
        except (OSError, ValueError):
            pytest.skip(f"Pillow writes no {file_format} of mode {mode}")
        picture = read_image(buffer.getvalue())
        tokens = image_to_tokens(picture, PALETTES["random"], 32, 32)
        assert np.array_equal(tokens, reference(process, picture))
        stored = Image.open(io.BytesIO(buffer.getvalue()))
        if stored.mode != "I;16":  # the one the reference cannot convert
            again = process(images=stored, do_convert_rgb=True)["input_ids"][0]
            assert np.array_equal(tokens, again)
