"""The data: scikit-learn's handwritten digits, split, warped and rendered to coverage with ink."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

SIDE = 16  # height and width of a picture, pixels
SPLIT_SEED = 0
HELD_OUT = 360  # of 1797 digits
VALIDATION = 144  # of the remaining 1437
_SUPERSAMPLING = 3  # rendered pixels per side of a picture's pixel, averaged
_ZOOM = 1.08  # part of the canvas seen, relative to the 8x8 scan: leaves a small margin around the digit
_THRESHOLD = 0.47  # scan value in the middle of a stroke's edge
_SOFTNESS = 0.45  # range of scan values over which a stroke's edge fades
_CHUNK = 4096  # pictures rendered at once

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """One part of the split."""

    scans: Floats  # [n, 8, 8] in [0, 1], 1 is ink
    labels: Ints  # [n], 0..9


@dataclass(frozen=True)
class Augmentation:
    """Half-widths of the uniform distributions a training digit is warped by."""

    rotation: float = 0.20  # radians
    scale: float = 0.10  # relative, each axis
    shear: float = 0.20  # horizontal shift per height
    translation: float = 0.07  # of half a picture
    elastic: float = 0.05  # displacement of a coarse grid's nodes, of half a picture
    thickness: float = 0.10  # shift of the stroke threshold, in scan values


def load_split() -> tuple[Part, Part, Part]:
    """The training, validation and held-out digits; stratified by class, always the same."""
    digits = load_digits()
    scans, labels = (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)
    rest, held_out = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=SPLIT_SEED
    )
    train, validation = train_test_split(rest, test_size=VALIDATION, stratify=labels[rest], random_state=SPLIT_SEED)
    first, second, third = (Part(scans[part], labels[part]) for part in (train, validation, held_out))
    return first, second, third


def _warp(n: int, side: int, augmentation: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random sampling grids [n, size, size, 2], larger than the picture, in the scan's [-1, 1] coordinates.

    Also stroke thresholds [n, 1, 1, 1].
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    size = side * _SUPERSAMPLING
    angle, shear = uniform(n) * augmentation.rotation, uniform(n) * augmentation.shear
    zoom = _ZOOM * (1 + uniform(n, 2) * augmentation.scale)
    shift = uniform(n, 2) * augmentation.translation
    row_x = torch.stack([zoom[:, 0] * angle.cos(), shear - zoom[:, 1] * angle.sin(), shift[:, 0]], 1)
    row_y = torch.stack([zoom[:, 0] * angle.sin(), zoom[:, 1] * angle.cos(), shift[:, 1]], 1)
    grid = functional.affine_grid(torch.stack([row_x, row_y], 1), [n, 1, size, size], align_corners=False)
    nodes = uniform(n, 2, 4, 4) * augmentation.elastic
    elastic = functional.interpolate(nodes, (size, size), mode="bicubic", align_corners=True)
    threshold = _THRESHOLD + uniform(n, 1, 1, 1) * augmentation.thickness
    return grid + elastic.permute(0, 2, 3, 1), threshold


def render(scans: Floats, augmentation: Augmentation | None = None, seed: int = 0, side: int = SIDE) -> Bytes:
    """Render scans [n, 8, 8] as ink coverage, uint8 [n, side, side]; without augmentation upright and centred."""
    generator = torch.Generator().manual_seed(seed)
    amount = augmentation or Augmentation(0, 0, 0, 0, 0, 0)
    rendered = []
    for chunk in torch.from_numpy(scans)[:, None].split(_CHUNK):
        grid, threshold = _warp(len(chunk), side, amount, generator)
        value = functional.grid_sample(chunk, grid, mode="bicubic", align_corners=False)
        stroke = ((value - threshold) / _SOFTNESS + 0.5).clamp(0, 1)
        coverage = functional.avg_pool2d(stroke, _SUPERSAMPLING)[:, 0]
        rendered.append((coverage * 255).round().to(torch.uint8))
    return torch.cat(rendered).numpy()


def soften(coverage: Bytes, factor: int = 8) -> Bytes:
    """Pictures [n, 16, 16] as they come back from a file `factor` times their size: the image processor's filter blurs.

    A picture that a user gives is rarely 16x16, so this is how the model meets most of them.
    """
    softened = []
    for picture in coverage:
        large = Image.fromarray(picture).resize((SIDE * factor, SIDE * factor), Image.Resampling.NEAREST)
        softened.append(np.asarray(large.resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
    return np.stack(softened)
