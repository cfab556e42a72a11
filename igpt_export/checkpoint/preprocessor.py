"""A checkpoint's `preprocessor_config.json` made into an `ImageFormat`.

The runtime's only way from a picture to tokens is ImageGPT's: resize, scale to [-1, 1], nearest colour cluster. A file
that asks for other tokens is refused. `do_resize: false` is not: a picture that has the right size stays as it is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_export.checkpoint.problems import one_line, refuse
from igpt_runtime.bundle.config import LARGEST_COLOUR, ImageFormat, ImageGPTConfig

_DEFAULT_SIZE = 256  # of transformers' class; never an ImageGPT's real size
_RESAMPLE_FILTERS = range(6)  # PIL's numbers: nearest, lanczos, bilinear, bicubic, box, hamming
_TOLERANCE = 1e-5  # of the scaling; a 256th of the step between two pixel values is 3e-5


def image_format_from_hf(raw: Mapping[str, Any], config: ImageGPTConfig, where: str) -> ImageFormat:
    """A checkpoint's `preprocessor_config.json` as an ImageFormat; missing fields take transformers' defaults.

    raw: the parsed file; config: the model it belongs to; where: its path, for the message. Raises one CheckpointError
    that lists every problem.
    """
    problems: list[str] = []
    kind = raw.get("image_processor_type", raw.get("feature_extractor_type", "ImageGPTImageProcessor"))
    if not isinstance(kind, str) or not kind.startswith("ImageGPT"):
        problems.append(f"image_processor_type is {one_line(repr(kind))}, not ImageGPTImageProcessor")
    height, width = _size(raw, config, problems)
    clusters = _clusters(raw, config, problems)
    resample = raw.get("resample", ImageFormat.resample)
    if type(resample) is not int or resample not in _RESAMPLE_FILTERS:
        problems.append(f"resample is {one_line(repr(resample))}, not one of PIL's filter numbers 0 to 5")
    for key in ("do_color_quantize", "do_rescale", "do_normalize"):
        if raw.get(key, True) is not True:
            problems.append(f"{key} is {one_line(repr(raw[key]))}, but tokens cannot be made without it")
    _check_scaling(raw, problems)
    if problems:
        refuse(where, problems, "copy preprocessor_config.json from the original checkpoint")
    return ImageFormat(height=height, width=width, clusters=clusters, resample=resample)


def _size(raw: Mapping[str, Any], config: ImageGPTConfig, problems: list[str]) -> tuple[int, int]:
    """(height, width) in pixels."""
    size = raw.get("size", _DEFAULT_SIZE)
    pair = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    height, width = pair
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        problems.append(f"size is {one_line(repr(size))}, neither a number of pixels nor {{height, width}}")
        return 0, 0
    if height * width != config.n_positions:
        default = "" if "size" in raw else " (the default of a missing size)"
        fact = f"size {height}x{width}{default} has {height * width} pixels"
        problems.append(f"{fact}, but the model has n_positions = {config.n_positions}")
    return height, width


def _clusters(raw: Mapping[str, Any], config: ImageGPTConfig, problems: list[str]) -> npt.NDArray[np.float32]:
    """[n_clusters, 3] colour centres in [-1, 1]."""
    if raw.get("clusters") is None:
        problems.append("clusters are missing")
        return np.zeros((0, 3), np.float32)
    try:
        values = np.asarray(raw["clusters"])
    except ValueError:
        values = np.asarray(None)
    return check_clusters(values, config, problems)


def check_clusters(
    values: npt.NDArray[np.generic], config: ImageGPTConfig, problems: list[str]
) -> npt.NDArray[np.float32]:
    """An array as [n_clusters, 3] colour centres in [-1, 1]; what is wrong with it is added to `problems`."""
    if values.dtype.kind not in "if":
        problems.append("clusters are not rows of three numbers")
        return np.zeros((0, 3), np.float32)
    if values.shape != (config.n_clusters, 3):
        shape = list(values.shape)
        problems.append(f"clusters have shape {shape}, not [{config.n_clusters}, 3] (vocab_size - 1 colours)")
    elif not np.isfinite(values).all():
        problems.append("clusters contain NaN or infinity")
    elif np.abs(values).max() > LARGEST_COLOUR:
        problems.append(f"clusters reach {float(np.abs(values).max()):g}, but colours lie in [-1, 1]")
    with np.errstate(over="ignore"):  # a problem by now
        return values.astype(np.float32)


def _check_scaling(raw: Mapping[str, Any], problems: list[str]) -> None:
    """Add a problem unless rescaling and normalisation take 0 to -1 and 255 to 1, whatever numbers say so."""
    try:
        factor = np.float64(raw.get("rescale_factor", 1 / 255))
        mean, std = (np.broadcast_to(np.float64(raw.get(key, 0.5)), (3,)) for key in ("image_mean", "image_std"))
        with np.errstate(all="ignore"):
            ends = np.stack([(0 * factor - mean) / std, (255 * factor - mean) / std])
        fits = bool((np.abs(ends - [[-1.0], [1.0]]) <= _TOLERANCE).all())
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        problems.append("rescale_factor, image_mean and image_std do not map pixels 0..255 to [-1, 1]")
