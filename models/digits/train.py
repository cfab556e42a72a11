"""Trains the model of handwritten digits: an ImageGPT of 16x16 pictures in 256 colours, in any ink on any ground.

Usage: python -m models.digits.train [--output DIRECTORY] [--steps N] ... An interrupted run goes on.
"""

import sys
from pathlib import Path

import numpy as np

from igpt_export.model.model import ImageGPT
from igpt_runtime.errors import IgptError
from models.digits import digits
from models.digits.inks import Bytes, paint, random_inks
from models.training import checkpoint
from models.training.command import Size, make_parser, train_model
from models.training.loop import Recipe
from models.training.palette import Floats

SIZE = Size(digits.SIDE, n_clusters=256, n_layer=6, n_embd=128, n_head=4)
RECIPE = Recipe(steps=2600, batch=32)
SNAPSHOTS = (50, 100, 200, 400, 800)  # steps after which --snapshots keeps a checkpoint, besides the last
_SOFT = 0.25  # share of pictures that are softened
_HELD_OUT_SEED = 900


class Digits:
    """Warped training digits in random inks, some of them softened; held out are upright ones."""

    name = "digits"

    def __init__(self) -> None:
        self._train, _, self._rest = digits.load_split()

    def batch(self, n: int, rng: np.random.Generator) -> Bytes:
        """Training pictures, uint8 [n, 16, 16, 3]."""
        scans = self._train.scans[rng.integers(0, len(self._train.scans), n)]
        coverage = digits.render(scans, digits.Augmentation(), int(rng.integers(1 << 31)))
        soft = np.flatnonzero(rng.random(n) < _SOFT)
        if len(soft):
            coverage[soft] = digits.soften(coverage[soft])
        return paint(coverage, random_inks(n, rng))

    def held_out(self) -> Bytes:
        """Pictures that are not trained on, softened as those are that users give."""
        coverage = digits.soften(digits.render(self._rest.scans))
        return paint(coverage, random_inks(len(coverage), np.random.default_rng(_HELD_OUT_SEED)))


def main() -> None:
    """Train, and write the checkpoint."""
    parser = make_parser(__doc__, SIZE, RECIPE, Path(__file__).parent, Path("build/digits-training"))
    parser.add_argument("--snapshots", type=Path, help="directory for checkpoints on the way")
    asked = parser.parse_args()

    def keep(step: int, model: ImageGPT, clusters: Floats) -> None:
        if asked.snapshots is not None and (step in SNAPSHOTS or step == asked.steps):
            checkpoint.save(asked.snapshots / f"step-{step}", model, clusters)

    try:
        train_model(asked, Digits(), SIZE, keep)
    except IgptError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
