"""Trains the demo model: an ImageGPT of 32x32 pictures in 512 colours; or one of your own, of a directory of pictures.

Usage: python -m models.emoji.train [--data DIRECTORY] [--output DIRECTORY] [--steps N] ... An interrupted run goes on.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from igpt_runtime.bundle.config import ImageGPTConfig
from igpt_runtime.errors import IgptError
from igpt_runtime.pictures.palette import nearest_clusters
from models.emoji.emoji import SIDE, Bytes
from models.emoji.sources import Demo, Folder, Source
from models.training import checkpoint
from models.training.loop import Recipe, nats, train
from models.training.palette import Floats, fit_palette
from models.training.sheet import SHEET, save_sheet
from models.training.start import start

N_CLUSTERS = 512
_CUBE = 0.25  # share of the palette's pixels that are any colour, so that a photograph keeps its own
_PALETTE_PICTURES, _PALETTE_PIXELS = 2000, 300_000
_MEASURED, _EVERY = 128, 500  # held-out pictures measured on the way, and steps between
_SHEET = 64  # pictures of either kind on the sheet beside the checkpoint
_SEEDS = {"palette": 1, "measured": 2, "batches": 3, "sheet": 4}


def tokens(pictures: Bytes, clusters: Floats) -> torch.Tensor:
    """Sequences int64 [n, 1024] of pictures uint8 [n, 32, 32, 3]."""
    return torch.from_numpy(nearest_clusters(pictures, clusters).reshape(len(pictures), -1))


def palette(source: Source, seed: int) -> Floats:
    """512 colours: those of the pictures, and some of all the others."""
    rng = np.random.default_rng([seed, _SEEDS["palette"]])
    pixels = source.batch(_PALETTE_PICTURES, rng).reshape(-1, 3)
    chosen = pixels[rng.choice(len(pixels), round(_PALETTE_PIXELS * (1 - _CUBE)))]
    cube = rng.integers(0, 256, (round(_PALETTE_PIXELS * _CUBE), 3), np.uint8)
    return fit_palette(np.concatenate([chosen, cube]), N_CLUSTERS, seed)


def main() -> None:
    """Train, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of pictures to train on instead of emoji and digits")
    parser.add_argument("--no-mirror", action="store_true", help="with --data: never mirror the pictures, such as text")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="where the checkpoint is written")
    parser.add_argument("--work", type=Path, default=Path("build/emoji-training"), help="what a run goes on from")
    parser.add_argument("--n-layer", type=int, default=6)
    parser.add_argument("--n-embd", type=int, default=256)
    parser.add_argument("--n-head", type=int, default=4)
    defaults = Recipe(steps=5500, batch=8)
    for field in fields(Recipe):
        value = getattr(defaults, field.name)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(value), default=value)
    asked = parser.parse_args()
    recipe = Recipe(**{field.name: getattr(asked, field.name) for field in fields(Recipe)})
    try:
        source = Demo(Path("build/emoji")) if asked.data is None else Folder(asked.data, mirror=not asked.no_mirror)
    except IgptError as error:
        sys.exit(f"Error: {error}")
    torch.manual_seed(recipe.seed)
    kept = asked.work / "palette.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(palette(source, recipe.seed).tolist()))
    clusters = np.array(json.loads(kept.read_text()), np.float32)
    config = ImageGPTConfig(
        vocab_size=N_CLUSTERS + 1, n_positions=SIDE**2, n_embd=asked.n_embd, n_layer=asked.n_layer, n_head=asked.n_head
    )
    model = start(config, SIDE, torch.from_numpy(clusters), recipe.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} numbers", flush=True)
    held_out = source.held_out()
    order = np.random.default_rng(_SEEDS["measured"]).permutation(len(held_out))[:_MEASURED]
    measured = tokens(held_out[order], clusters)

    def batches(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, _SEEDS["batches"], step])
        return tokens(source.batch(recipe.batch, rng), clusters)

    def measure(step: int) -> None:
        if step % _EVERY == 0 or step == recipe.steps:
            begun = time.monotonic()
            mean = nats(model, measured).mean().item()
            bits, seconds = mean / math.log(2), time.monotonic() - begun
            print(f"step {step}  held-out {mean:.4f} nats, {bits:.3f} bits a token  ({seconds:.0f} s)", flush=True)

    train(model, recipe, batches, asked.work / "state.pt", measure)
    checkpoint.save(asked.output, model, clusters)
    some = np.random.default_rng([recipe.seed, _SEEDS["sheet"]])
    save_sheet(asked.output / SHEET, source.batch(_SHEET, some), held_out[order[:_SHEET]])


if __name__ == "__main__":
    main()
