"""Writes the sheet of digits that `igpt-export` calibrates with: 32 training digits over 32 held-out ones, softened.

Usage: python models/demo/calibration.py
"""

from pathlib import Path

import numpy as np
from digits import SIDE, load_split, paint, random_inks, render, soften
from PIL import Image

SHEET = Path(__file__).resolve().parents[2] / "igpt_export" / "precision" / "calibration.png"
_COLUMNS = 8
_EACH = 32  # digits of each kind


def main() -> None:
    """Render and write the sheet."""
    train, _, held_out = load_split()
    scans = np.concatenate([train.scans[:_EACH], held_out.scans[:_EACH]])
    painted = paint(soften(render(scans)), random_inks(2 * _EACH, seed=3))
    rows = painted.reshape(-1, _COLUMNS, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(rows.reshape(-1, _COLUMNS * SIDE, 3)).save(SHEET, optimize=True)


if __name__ == "__main__":
    main()
