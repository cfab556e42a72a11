"""Trains the demo model: a palette by k-means, then an ImageGPT on the training digits' tokens, in two stages.

The first stage sees crisp pictures; the second, shorter one also sees pictures as they come back from a larger file.
Usage: python train.py [--steps N] [--output DIRECTORY] [--from-first-stage DIRECTORY] ...
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import checkpoint
import digits
import numpy as np
import torch
from likelihood import prepend_sos
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional

from igpt_export.model.model import ImageGPT
from igpt_runtime.bundle.config import ImageGPTConfig

N_CLUSTERS = 256
SNAPSHOTS = (50, 100, 200, 400, 800)  # steps of the first stage after which a snapshot is kept, besides its last


@dataclass(frozen=True)
class Recipe:
    """Everything the trained weights depend on."""

    n_layer: int = 6
    n_embd: int = 128
    steps: int = 2600  # of the first stage
    softened_steps: int = 600  # of the second stage
    softened_rate: float = 0.4  # peak learning rates of the second stage, relative to the first's
    batch: int = 32  # pictures a step
    muon_rate: float = 1e-2  # peak learning rate of the blocks' matrices
    adam_rate: float = 3e-3  # peak learning rate of everything else
    weight_decay: float = 0.05
    warmup: int = 100  # steps; then a cosine down to zero
    seed: int = 0


def fit_palette(scans: digits.Floats, seed: int) -> digits.Floats:
    """K-means over the pixels of the training digits in every ink; returns clusters [256, 3] in [-1, 1]."""
    coverage = digits.render(np.repeat(scans, 4, 0), digits.Augmentation(), seed)
    counts = np.bincount(coverage.ravel(), minlength=256)
    colours = digits.colour_table().reshape(-1, 3) / 127.5 - 1
    weights = np.tile(counts, digits.N_INKS)
    fitted = KMeans(N_CLUSTERS, n_init=4, random_state=seed).fit(colours, sample_weight=weights)
    return fitted.cluster_centers_.astype(np.float32)


def make_pool(scans: digits.Floats, clusters: digits.Floats, n: int, seed: int, *, soft: bool = False) -> Tensor:
    """Token sequences uint8 [n, 256] of augmented digits in random inks, in random order. soft: soften half."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(scans)) for _ in range(-(-n // len(scans)))])[:n]
    coverage = digits.render(scans[order], digits.Augmentation(), seed)
    if soft:
        coverage[::2] = digits.soften(coverage[::2])
    return torch.from_numpy(digits.token_sequences(coverage, digits.random_inks(n, seed), clusters))


def make_optimizers(model: ImageGPT, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for embeddings, head, norms and biases."""
    matrices = [p for p in model.h.parameters() if p.dim() == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    muon = torch.optim.Muon(
        matrices, lr=recipe.muon_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [
        muon,
        torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine to zero."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - recipe.warmup) / (steps - recipe.warmup))


def train(
    model: ImageGPT,
    pool: Tensor,
    clusters: digits.Floats,
    recipe: Recipe,
    output: Path,
    snapshots: Path | None = None,
) -> None:
    """One stage: go over the pool [steps * batch, 256] once; writes the checkpoint every 500 steps and at the end.

    snapshots: directory for checkpoints on the way, `step-N` each.
    """
    steps = len(pool) // recipe.batch
    forward = torch.compile(model.logits)
    optimizers = make_optimizers(model, recipe)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: rate_factor(step, steps, recipe)) for o in optimizers
    ]
    start, recent = time.monotonic(), 0.0
    for step, tokens in enumerate(pool.split(recipe.batch), 1):
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(prepend_sos(tokens, model.config.sos))
            loss = functional.cross_entropy(logits.float().flatten(0, 1), tokens.long().flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in (*optimizers, *schedules):
            stepper.step()
        model.zero_grad()
        recent += loss.item()
        if step % 50 == 0:
            _report(step, recent / 50, schedules[1].get_last_lr()[0], time.monotonic() - start, steps, recipe.batch)
            recent = 0.0
        if step % 500 == 0 or step == steps:
            checkpoint.save(output, model, clusters)
        if snapshots is not None and (step in SNAPSHOTS or step == steps):
            checkpoint.save(snapshots / f"step-{step}", model, clusters)


def _report(step: int, loss: float, rate: float, seconds: float, steps: int, batch: int) -> None:
    speed = step * batch / seconds
    left = (steps - step) * batch / speed / 60
    print(
        f"step {step}  loss {loss:.4f}  rate {rate:.2e}  {speed:.1f} images/s  {seconds:.0f} s  {left:.1f} min left",
        flush=True,
    )


@dataclass(frozen=True)
class Places:
    """Directories to read and write."""

    output: Path
    from_first_stage: Path | None  # a checkpoint to start the second stage from
    snapshots: Path | None  # for checkpoints on the way through the first stage


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[Recipe, Places]:
    """The recipe, every field of which is an option, and the directories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--from-first-stage", type=Path, help="checkpoint directory to start the second stage from")
    parser.add_argument("--snapshots", type=Path, help="directory for checkpoints on the way through the first stage")
    for field in fields(Recipe):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    options = vars(parser.parse_args(arguments))
    places = Places(**{field.name: options.pop(field.name) for field in fields(Places)})
    return Recipe(**options), places


def first_stage(scans: digits.Floats, recipe: Recipe, places: Places) -> tuple[ImageGPT, digits.Floats]:
    """Fit the palette and train a new model on crisp pictures."""
    clusters = fit_palette(scans, recipe.seed)
    pool = make_pool(scans, clusters, recipe.steps * recipe.batch, recipe.seed + 1)
    config = ImageGPTConfig(
        vocab_size=N_CLUSTERS + 1,
        n_positions=digits.SIDE**2,
        n_embd=recipe.n_embd,
        n_layer=recipe.n_layer,
        n_head=recipe.n_embd // 32,
    )
    model = ImageGPT(config).initialize(recipe.seed)
    train(model, pool, clusters, recipe, places.output, snapshots=places.snapshots)
    return model, clusters


def main() -> None:
    """Train and write the checkpoint."""
    recipe, places = parse_arguments()
    torch.manual_seed(recipe.seed)
    scans = digits.load_split()[0].scans
    start = places.from_first_stage
    model, clusters = first_stage(scans, recipe, places) if start is None else checkpoint.load(start)[:2]
    if not recipe.softened_steps:
        return
    pool = make_pool(scans, clusters, recipe.softened_steps * recipe.batch, recipe.seed + 2, soft=True)
    rate = recipe.softened_rate
    second = replace(recipe, muon_rate=rate * recipe.muon_rate, adam_rate=rate * recipe.adam_rate)
    train(model.requires_grad_(True).train(), pool, clusters, second, places.output)


if __name__ == "__main__":
    main()
