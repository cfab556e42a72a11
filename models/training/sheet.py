"""The sheet of pictures beside a checkpoint, by which an export calibrates, and measures what such pictures cost."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]

SHEET = "calibration.png"
_COLUMNS = 8


def save_sheet(path: Path, calibration: Bytes, held_out: Bytes) -> None:
    """Write as many pictures of either kind, uint8 [n, height, width, 3], as there are of both, in full rows."""
    count = min(len(calibration), len(held_out))
    columns = min(_COLUMNS, count)
    count -= count % columns
    both = np.concatenate([calibration[:count], held_out[:count]])
    _, height, width, _ = both.shape
    rows = both.reshape(-1, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(rows.reshape(-1, columns * width, 3)).save(path, optimize=True)
