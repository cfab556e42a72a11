"""Writes the demo's digits as directories that are classes: train, val and test, each with zero .. nine.

Usage: python folders.py DIRECTORY. Pictures are upright, 64x64, each in a random ink; the split is the demo model's.
"""

import argparse
from pathlib import Path

import digits
import numpy as np
from PIL import Image

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SCALE = 4
_INK_SEED = 500


def write(directory: Path) -> None:
    """Write all 1797 pictures, `directory`/part/class/number.png."""
    for name, part in zip(("train", "val", "test"), digits.load_split(), strict=True):
        inks = digits.random_inks(len(part.labels), _INK_SEED)
        for i, pixels in enumerate(digits.paint(digits.render(part.scans), inks)):
            place = directory / name / WORDS[part.labels[i]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.repeat(np.repeat(pixels, _SCALE, 0), _SCALE, 1)).save(place / f"{i:04}.png")


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    write(parser.parse_args().directory)


if __name__ == "__main__":
    main()
