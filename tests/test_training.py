"""What the recipes of the models share: a training that goes on, palettes, the start of a model."""

import math
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from igpt_export.model.model import ImageGPT
from igpt_runtime.bundle.config import ImageGPTConfig
from igpt_runtime.errors import OptionError
from models.training import loop
from models.training.likelihood import fit_counts
from models.training.palette import fit_palette
from models.training.start import start

CONFIG = ImageGPTConfig(vocab_size=9, n_positions=16, n_embd=16, n_layer=1, n_head=2)
RECIPE = loop.Recipe(steps=6, batch=4, warmup=2)
CLUSTERS = torch.linspace(-1, 1, 8)[:, None].expand(8, 3)


def batches(step: int) -> loop.Batch:
    return torch.randint(0, 8, (4, 16), generator=torch.Generator().manual_seed(step)), None


def trained(state: Path, last: int) -> ImageGPT:
    """A model after the recipe, of which a run that ends after step `last` may be a part."""
    model = start(CONFIG, 4, CLUSTERS, 0)

    def after(step: int) -> None:
        if step == last < RECIPE.steps:
            raise KeyboardInterrupt

    if last < RECIPE.steps:
        with pytest.raises(KeyboardInterrupt):
            loop.train(model, RECIPE, batches, state, after)
        model = start(CONFIG, 4, CLUSTERS, 0)
    loop.train(model, RECIPE, batches, state, lambda step: None)
    return model


@pytest.mark.slow
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_KEEP", 2)
    whole = trained(tmp_path / "whole.pt", RECIPE.steps).state_dict()
    interrupted = trained(tmp_path / "interrupted.pt", 3).state_dict()
    # Sums of gradients by several threads are not always in the same order.
    assert all((whole[name] - interrupted[name]).abs().max() < 1e-6 for name in whole)
    before = start(CONFIG, 4, CLUSTERS, 0).state_dict()
    assert all((whole[name] - tensor).abs().max() > 1e-3 for name, tensor in before.items() if "ln" not in name)


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    model = start(CONFIG, 4, CLUSTERS, 0)
    loop._keep(model, RECIPE, loop.make_optimizers(model, RECIPE), tmp_path / "state.pt", 2)
    other = loop.Recipe(steps=7, batch=4)
    with pytest.raises(OptionError, match="is of another recipe; remove it, or choose another --work"):
        loop.train(model, other, batches, tmp_path / "state.pt", lambda step: None)


def test_rates_rise_stay_and_fall() -> None:
    recipe = loop.Recipe(steps=100, batch=1, warmup=10, decay=0.4)
    factors = [loop.rate_factor(step, recipe) for step in range(100)]
    assert factors[0] == 0.1 and factors[9:61] == [1.0] * 52 and factors[-1] == pytest.approx(1 / 40)
    assert all(after < before for before, after in pairwise(factors[61:]))


def test_nats_are_those_of_torch() -> None:
    model = start(CONFIG, 4, CLUSTERS, 1)
    tokens = batches(0)[0]
    inputs = torch.cat([torch.full((4, 1), 8), tokens[:, :-1]], 1)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model.logits(inputs).flatten(0, 1), tokens.flatten())
    assert loop.nats(model, tokens).mean().item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_palette_has_white_and_black() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4000, 3), np.uint8)
    clusters = fit_palette(pixels, 16, 0)
    assert clusters.shape == (16, 3) and clusters.dtype == np.float32 and np.abs(clusters).max() <= 1
    assert (clusters == 1).all(1).sum() == 1 and (clusters == -1).all(1).sum() == 1


def test_a_model_starts_with_rows_columns_and_colours() -> None:
    clusters = torch.rand(8, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = start(ImageGPTConfig(vocab_size=9, n_positions=64, n_embd=64, n_layer=1, n_head=2), 8, clusters, 0)
    places = model.wpe.weight.detach()
    unit = places / places.norm(dim=1, keepdim=True)
    near = (unit[9] @ unit.T).argsort(descending=True)[1:5].tolist()
    assert set(near) == {1, 8, 10, 17}  # above, left, right, below
    tokens = model.wte.weight.detach()[:-1]
    distances, apart = torch.cdist(clusters, clusters).flatten(), torch.cdist(tokens, tokens).flatten()
    assert torch.corrcoef(torch.stack([distances, apart]))[0, 1] > 0.9


def test_count_models_are_those_of_a_plain_count() -> None:
    """Against dictionaries, one token after the other."""
    rng = np.random.default_rng(0)
    training, measured = rng.integers(0, 3, (40, 12)), rng.integers(0, 3, (5, 12))
    model = fit_counts(training, measured, width=4, vocabulary=3)
    counted: dict[tuple[int, ...], int] = defaultdict(int)

    def contexts(row: np.ndarray, place: int) -> tuple[int, int]:
        left = int(row[place - 1]) if place % 4 else 3
        return left, int(row[place - 4]) if place >= 4 else 3

    for row in training:
        for place, token in enumerate(map(int, row)):
            left, up = contexts(row, place)
            for key in ((token,), (-1, left), (left, token, 9), (-1, left, up), (left, up, token, 9)):
                counted[key] += 1
    for row, unigram, neighbours in zip(
        measured, model.unigram_nats(measured), model.neighbour_nats(measured), strict=True
    ):
        for place, token in enumerate(map(int, row)):
            left, up = contexts(row, place)
            p = (counted[token,] + 1) / (training.size + 3)
            assert unigram[place] == pytest.approx(-math.log(p))
            p = (counted[left, token, 9] + model.strength * p) / (counted[-1, left] + model.strength)
            p = (counted[left, up, token, 9] + model.strength * p) / (counted[-1, left, up] + model.strength)
            assert neighbours[place] == pytest.approx(-math.log(p))
