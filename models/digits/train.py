"""Trains the model of handwritten digits: an ImageGPT of 16x16 pictures in 256 colours, in any ink on any ground.

At first it learns to predict pixels, and then, for fewer steps, also to name the digit: the paper's fine-tuning.
Usage: python -m models.digits.train [--output DIRECTORY] [--steps N] ... An interrupted run goes on.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from igpt_export.model.model import ImageGPT
from igpt_runtime.errors import IgptError
from models.digits import digits
from models.digits.inks import Bytes, Ints, paint, random_inks
from models.training import checkpoint
from models.training.command import Size, make_parser, tokens, train_model
from models.training.loop import Batch, Recipe, train
from models.training.palette import Floats

SIZE = Size(digits.SIDE, n_clusters=256, n_layer=6, n_embd=128, n_head=4)
RECIPE = Recipe(steps=2600, batch=32)
CLASSES = 10
FINE_TUNING = Recipe(steps=900, batch=32, muon_rate=4e-3, adam_rate=1.2e-3, warmup=50, decay=0.8)
SNAPSHOTS = (50, 100, 200, 400, 800)  # steps after which --snapshots keeps a checkpoint, besides the last
_SOFT = 0.25  # share of pictures that are softened
_HELD_OUT_SEED, _FINE_TUNING = 900, 901


class Digits:
    """Warped training digits in random inks, some of them softened; held out are upright ones."""

    name = "digits"

    def __init__(self) -> None:
        self._train, _, self._rest = digits.load_split()

    def batch(self, n: int, rng: np.random.Generator) -> Bytes:
        """Training pictures, uint8 [n, 16, 16, 3]."""
        return self.labelled_batch(n, rng)[0]

    def labelled_batch(self, n: int, rng: np.random.Generator) -> tuple[Bytes, Ints]:
        """Training pictures, uint8 [n, 16, 16, 3], and their digits [n]."""
        chosen = rng.integers(0, len(self._train.scans), n)
        scans = self._train.scans[chosen]
        coverage = digits.render(scans, digits.Augmentation(), int(rng.integers(1 << 31)))
        soft = np.flatnonzero(rng.random(n) < _SOFT)
        if len(soft):
            coverage[soft] = digits.soften(coverage[soft])
        return paint(coverage, random_inks(n, rng)), self._train.labels[chosen]

    def held_out(self) -> Bytes:
        """Pictures that are not trained on, softened as those are that users give."""
        coverage = digits.soften(digits.render(self._rest.scans))
        return paint(coverage, random_inks(len(coverage), np.random.default_rng(_HELD_OUT_SEED)))


def fine_tune(model: ImageGPT, clusters: Floats, source: Digits, recipe: Recipe, state: Path) -> None:
    """Train on with labels. The classifier is left out in the end: a probe of the features takes its place."""
    torch.manual_seed(recipe.seed)
    model.classifier = nn.Linear(model.config.n_embd, CLASSES)

    def batches(step: int) -> Batch:
        pictures, labels = source.labelled_batch(recipe.batch, np.random.default_rng([recipe.seed, _FINE_TUNING, step]))
        return tokens(pictures, clusters), torch.from_numpy(labels)

    train(model, recipe, batches, state, lambda step: None)
    model.classifier = None


def main() -> None:
    """Train, and write the checkpoint."""
    parser = make_parser(__doc__, SIZE, RECIPE, Path(__file__).parent, Path("build/digits-training"))
    parser.add_argument("--snapshots", type=Path, help="directory for checkpoints on the way")
    parser.add_argument("--fine-tuning-steps", type=int, default=FINE_TUNING.steps, help=f"[{FINE_TUNING.steps}]")
    asked = parser.parse_args()
    source = Digits()
    second = replace(FINE_TUNING, steps=asked.fine_tuning_steps, batch=asked.batch, seed=asked.seed)

    def keep(step: int, model: ImageGPT, clusters: Floats) -> None:
        if asked.snapshots is not None and (step in SNAPSHOTS or step == asked.steps):
            checkpoint.save(asked.snapshots / f"step-{step}", model, clusters)

    def finish(model: ImageGPT, clusters: Floats) -> None:
        fine_tune(model, clusters, source, second, asked.work / "fine-tuning.pt")

    try:
        train_model(asked, source, SIZE, keep, finish if second.steps else None)
    except IgptError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
