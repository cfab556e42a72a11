"""Trains an ImageGPT on batches of tokens, and goes on where an interrupted run ended."""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from igpt_export.model.model import ImageGPT, pooled
from igpt_runtime.errors import OptionError

_REPORT, _KEEP = 50, 200  # steps between lines, and between states on the disk
_BATCH = 16  # sequences measured at once
_CLASSES = 0.2  # weight of the classifier's loss: with 1 the likelihood suffers


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on besides the batches."""

    steps: int
    batch: int  # pictures a step
    muon_rate: float = 1e-2  # peak learning rate of the blocks' matrices
    adam_rate: float = 3e-3  # of everything else
    weight_decay: float = 0.05  # of the blocks' matrices
    warmup: int = 100  # steps in which the rates rise
    decay: float = 0.4  # share of the steps, the last ones, in which they fall to zero
    seed: int = 0


def rate_factor(step: int, recipe: Recipe) -> float:
    """Share of the peak learning rates at a step, counted from 0: a linear rise, a plateau, a linear fall."""
    return min(1.0, (step + 1) / recipe.warmup, (recipe.steps - step) / max(1, round(recipe.decay * recipe.steps)))


def make_optimizers(model: ImageGPT, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for embeddings, head, norms and biases."""
    matrices = [p for p in model.h.parameters() if p.dim() == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.muon_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


@torch.inference_mode()
def nats(model: ImageGPT, tokens: Tensor) -> Tensor:
    """What every token of sequences [n, n_positions] costs the model; same shape."""
    found = []
    for chunk in tokens.long().split(_BATCH):
        logits = model.logits(prepend_sos(chunk, model.config.sos))
        found.append(functional.cross_entropy(logits.transpose(1, 2), chunk, reduction="none"))
    return torch.cat(found)


def prepend_sos(tokens: Tensor, sos: int) -> Tensor:
    """Model input of token sequences [n, n_positions]: sos and all tokens but the last."""
    return functional.pad(tokens[:, :-1].long(), (1, 0), value=sos)


Batch = tuple[Tensor, Tensor | None]


def train(
    model: ImageGPT, recipe: Recipe, batches: Callable[[int], Batch], state: Path, after: Callable[[int], None]
) -> None:
    """Train in place: to predict the next token, and if the model has a classifier also the label.

    The classifier reads the mean of the last hidden state, and the losses are added: the paper's fine-tuning.

    batches: tokens [batch, n_positions] of a step, always the same for the same step, and labels [batch] for a
    classifier. state: the file that an interrupted run goes on from; it stays there. after: called with the number of
    each step, from 1, when it is done.

    Raises OptionError if the state is of another recipe or model.
    """
    forward = torch.compile(functools.partial(_logits, model))
    optimizers = make_optimizers(model, recipe)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    first = _resume(model, recipe, optimizers, state)
    start, recent = time.monotonic(), 0.0
    for step in range(first, recipe.steps):
        factor = rate_factor(step, recipe)
        for group, peak in zip((g for o in optimizers for g in o.param_groups), peaks, strict=True):
            group["lr"] = peak * factor
        tokens, labels = batches(step)
        with torch.autocast("cpu", torch.bfloat16):
            logits, classes = forward(prepend_sos(tokens, model.config.sos))
            loss = functional.cross_entropy(logits.float().flatten(0, 1), tokens.long().flatten())
            if classes is not None and labels is not None:
                loss = loss + _CLASSES * functional.cross_entropy(classes, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        recent += loss.item()
        done = step + 1
        if done % _REPORT == 0:
            speed = (done - first) * recipe.batch / (time.monotonic() - start)
            left = (recipe.steps - done) * recipe.batch / speed / 60
            print(f"step {done}  loss {recent / _REPORT:.4f}  rate {factor:.2f}  {speed:.1f} images/s  "
                  f"{left:.0f} min left", flush=True)  # fmt: skip
            recent = 0.0
        if done % _KEEP == 0 or done == recipe.steps:
            _keep(model, recipe, optimizers, state, done)
        after(done)


def _logits(model: ImageGPT, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Of the next tokens [batch, n_positions, n_clusters], and of the labels if the model has a classifier."""
    assert model.lm_head is not None
    last = model(inputs).last
    return model.lm_head(last), None if model.classifier is None else model.classify(pooled([last]))


def _keep(model: ImageGPT, recipe: Recipe, optimizers: list[torch.optim.Optimizer], state: Path, step: int) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    temporary = state.with_suffix(".partial")
    content = {"recipe": asdict(recipe), "config": asdict(model.config), "step": step, "model": model.state_dict()}
    torch.save({**content, "optimizers": [optimizer.state_dict() for optimizer in optimizers]}, temporary)
    os.replace(temporary, state)


def _resume(model: ImageGPT, recipe: Recipe, optimizers: list[torch.optim.Optimizer], state: Path) -> int:
    """The step to go on with; 0 if there is no state."""
    if not state.exists():
        return 0
    kept: dict[str, Any] = torch.load(state, weights_only=True)
    if (kept["recipe"], kept["config"]) != (asdict(recipe), asdict(model.config)):
        raise OptionError(f"{state} is of another recipe; remove it, or choose another --work")
    model.load_state_dict(kept["model"])
    for optimizer, content in zip(optimizers, kept["optimizers"], strict=True):
        optimizer.load_state_dict(content)
    print(f"goes on after step {kept['step']}", flush=True)
    return int(kept["step"])
