"""The command that trains a model from pictures: its options, the palette, the training, and what is written."""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from igpt_export.model.model import ImageGPT
from igpt_runtime.bundle.config import ImageGPTConfig
from igpt_runtime.errors import OptionError
from igpt_runtime.pictures.palette import nearest_clusters
from models.training import checkpoint
from models.training.loop import Batch, Recipe, nats, train
from models.training.palette import Floats, fit_palette
from models.training.sheet import SHEET, save_sheet
from models.training.start import start

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
After = Callable[[int, ImageGPT, Floats], None]
Finish = Callable[[ImageGPT, Floats], None]

_PALETTE_PICTURES, _PALETTE_PIXELS = 2000, 300_000
_CUBE = 0.25  # share of the palette's pixels that are any colour, so that a photograph keeps its own
_MEASURED, _EVERY = 128, 500  # held-out pictures measured on the way, and steps between
_SHEET = 64  # pictures of either kind on the sheet beside the checkpoint
_SEEDS = {"palette": 1, "measured": 2, "batches": 3, "sheet": 4}


class Source(Protocol):
    """Pictures of one size to train on, and others to measure with."""

    name: str  # what they are, in words

    def batch(self, n: int, rng: np.random.Generator) -> Bytes:
        """Training pictures, uint8 [n, side, side, 3]."""

    def held_out(self) -> Bytes:
        """Pictures that are not trained on."""


@dataclass(frozen=True)
class Size:
    """Of a model."""

    side: int  # height and width of a picture, pixels
    n_clusters: int
    n_layer: int
    n_embd: int
    n_head: int

    def config(self) -> ImageGPTConfig:
        """As a checkpoint has it."""
        return ImageGPTConfig(
            vocab_size=self.n_clusters + 1, n_positions=self.side**2,
            n_embd=self.n_embd, n_layer=self.n_layer, n_head=self.n_head,
        )  # fmt: skip


def make_parser(text: str | None, size: Size, recipe: Recipe, output: Path, work: Path) -> argparse.ArgumentParser:
    """The options that all trainings have, with these defaults."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=output, help=f"where the checkpoint is written [{output.name}]")
    parser.add_argument("--work", type=Path, default=work, help=f"what an interrupted run goes on from [{work}]")
    for name in ("n_layer", "n_embd", "n_head"):
        parser.add_argument(_option(name), type=int, default=getattr(size, name), help=f"[{getattr(size, name)}]")
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        parser.add_argument(_option(field.name), type=type(value), default=value, help=f"[{value}]")
    return parser


def train_model(
    asked: argparse.Namespace, source: Source, size: Size, after: After = lambda *_: None, finish: Finish | None = None
) -> None:
    """Train as asked by the options of `make_parser`, and write the checkpoint and its sheet of pictures.

    size: of which the options give blocks, width and heads. after: called with the number of each step, the model and
    its clusters. finish: a second training of the model, before it is written.

    Raises OptionError if the directory of an interrupted run has one of other pictures, recipe or size.
    """
    recipe = Recipe(**{field.name: getattr(asked, field.name) for field in fields(Recipe)})
    size = Size(size.side, size.n_clusters, asked.n_layer, asked.n_embd, asked.n_head)
    torch.manual_seed(recipe.seed)
    clusters = _palette(asked.work / "palette.json", source, size.n_clusters, recipe.seed)
    model = start(size.config(), size.side, torch.from_numpy(clusters), recipe.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} numbers", flush=True)
    held_out = source.held_out()
    order = measured_on_the_way(len(held_out))
    measured = tokens(held_out[order], clusters)

    def batches(step: int) -> Batch:
        rng = np.random.default_rng([recipe.seed, _SEEDS["batches"], step])
        return tokens(source.batch(recipe.batch, rng), clusters), None

    def measure(step: int) -> None:
        if step % _EVERY == 0 or step == recipe.steps:
            begun = time.monotonic()
            mean = nats(model, measured).mean().item()
            bits, seconds = mean / math.log(2), time.monotonic() - begun
            print(f"step {step}  held-out {mean:.4f} nats, {bits:.3f} bits a token  ({seconds:.0f} s)", flush=True)
        after(step, model, clusters)

    train(model, recipe, batches, asked.work / "state.pt", measure)
    if finish is not None:
        finish(model, clusters)
        mean = nats(model, measured).mean().item()
        print(f"at last  held-out {mean:.4f} nats a token", flush=True)
    checkpoint.save(asked.output, model, clusters)
    some = np.random.default_rng([recipe.seed, _SEEDS["sheet"]])
    save_sheet(asked.output / SHEET, source.batch(_SHEET, some), held_out[order[:_SHEET]])


def measured_on_the_way(n: int) -> Ints:
    """Which of n held-out pictures a training measures, and so may have been tuned to."""
    return np.random.default_rng(_SEEDS["measured"]).permutation(n)[:_MEASURED]


def tokens(pictures: Bytes, clusters: Floats) -> torch.Tensor:
    """Sequences int64 [n, height * width] of pictures uint8 [n, height, width, 3]."""
    return torch.from_numpy(nearest_clusters(pictures, clusters).reshape(len(pictures), -1))


def _palette(kept: Path, source: Source, n_clusters: int, seed: int) -> Floats:
    """Colours of the pictures, and some of all others; those of the run that is gone on with, if there is one."""
    made_of = [source.name, n_clusters, seed]
    if not kept.exists():
        rng = np.random.default_rng([seed, _SEEDS["palette"]])
        pixels = source.batch(_PALETTE_PICTURES, rng).reshape(-1, 3)
        chosen = pixels[rng.choice(len(pixels), round(_PALETTE_PIXELS * (1 - _CUBE)))]
        cube = rng.integers(0, 256, (round(_PALETTE_PIXELS * _CUBE), 3), np.uint8)
        clusters = fit_palette(np.concatenate([chosen, cube]), n_clusters, seed)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"of": made_of, "clusters": clusters.tolist()}))
    found = json.loads(kept.read_text())
    if found["of"] != made_of:
        raise OptionError(f"{kept.parent} has a run with other pictures; remove it, or choose another --work")
    return np.array(found["clusters"], np.float32)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
