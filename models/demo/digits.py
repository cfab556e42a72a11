"""The demo's data: scikit-learn's handwritten digits, split, warped, inked, rendered to 16x16, turned into tokens."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

from igpt_runtime.pictures.palette import nearest_clusters

SIDE = 16  # height and width of a picture, pixels
N_INKS = 12
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


def colour_table() -> Bytes:
    """RGB of every ink at every coverage, uint8 [12, 256, 3]: bright over a dark background of the opposite hue."""
    hue = np.arange(N_INKS)[:, None] / N_INKS + np.array([0, 1 / 3, 2 / 3])
    bright = 0.28 + 0.72 * (0.5 + 0.5 * np.cos(2 * np.pi * hue))
    dark = 0.05 + 0.17 * (0.5 - 0.5 * np.cos(2 * np.pi * hue))
    coverage = np.linspace(0, 1, 256)[None, :, None]
    mixed = bright[:, None] * coverage + dark[:, None] * (1 - coverage)
    return (mixed * 255).round().astype(np.uint8)


def paint(coverage: Bytes, inks: Ints) -> Bytes:
    """Colour pictures [n, 16, 16], each in its ink [n]; returns uint8 RGB [n, 16, 16, 3]."""
    return colour_table()[inks[:, None, None], coverage]


def random_inks(n: int, seed: int) -> Ints:
    """An ink for each of n pictures."""
    return np.random.default_rng(seed).integers(0, N_INKS, n)


def token_sequences(coverage: Bytes, inks: Ints, clusters: Floats) -> Bytes:
    """Tokens of painted pictures, uint8 [n, 256]; there are only 12 * 256 colours, so each is quantised once."""
    table = nearest_clusters(colour_table(), clusters).astype(np.uint8)
    return table[inks[:, None, None], coverage].reshape(len(coverage), -1)


def to_pixels(tokens: Ints, clusters: Floats) -> Bytes:
    """Pictures [n, 16, 16, 3] uint8 RGB of token sequences [n, 256]."""
    colours = np.rint((clusters + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return colours[tokens].reshape(-1, SIDE, SIDE, 3)


def used_clusters(clusters: Floats) -> npt.NDArray[np.bool_]:
    """Which clusters real pictures in each ink are made of, bool [12, n_clusters]."""
    used = np.zeros((N_INKS, len(clusters)), dtype=np.bool_)
    np.put_along_axis(used, nearest_clusters(colour_table(), clusters), True, 1)
    return used


def cluster_coverage(clusters: Floats) -> Floats:
    """Ink coverage in [0, 1] of the painted colour nearest to each cluster, float32 [n_clusters]."""
    painted = colour_table().reshape(-1, 3).astype(np.float32) / np.float32(127.5) - 1
    nearest = ((clusters[:, None] - painted[None]) ** 2).sum(-1).argmin(1)
    return (nearest % 256 / 255).astype(np.float32)
