"""The sampler inside the decode graph against a second implementation of its rules in NumPy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save

from igpt_runtime.bundle.directory import WEIGHTS_FILE
from igpt_runtime.engine.generate import DecodeStep, ResolvedOptions
from igpt_runtime.engine.kv_cache import new_cache
from igpt_runtime.engine.random import uniforms
from igpt_runtime.engine.session import Session, open_session

Floats = npt.NDArray[np.float64]

LAST = 1 - 2**-24  # the largest draw
NEAR = 1e-5  # draws this close to a border may fall on either side of it
CONTEXTS = ([16], [16, 3, 0, 9], [16, *range(15)])


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return open_session(tiny_bundle, device="cpu")


def draw(
    session: Session, context: list[int], options: ResolvedOptions, draws: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """A token for every draw after the same context, and the logits they were drawn from."""
    step = DecodeStep(session, new_cache(session.manifest, len(draws)), options, with_logits=True)
    tokens = step(np.tile(np.array(context), (len(draws), 1)), 0, draws)
    assert tokens.shape == (len(draws), 1) and tokens.dtype == np.int64
    return tokens[:, 0], step.logits()


def distribution(logits: npt.NDArray[np.float32], options: ResolvedOptions) -> tuple[npt.NDArray[np.int64], Floats]:
    """The tokens that may be drawn, likeliest first and lower first among equals, and their probabilities."""
    order = np.array(sorted(range(len(logits)), key=lambda token: (-logits[token], token)))
    if options.temperature == 0:
        return order[:1], np.ones(1)
    if options.top_k:
        order = order[: options.top_k]
    with np.errstate(over="ignore"):
        scaled = (logits[order].astype(np.float64) - float(logits[order[0]])) / float(np.float32(options.temperature))
    probability = np.exp(scaled) / np.exp(scaled).sum()
    likelier = np.concatenate([[0.0], np.cumsum(probability)[:-1]])
    if options.top_p < 1:
        probability = probability[likelier < options.top_p]
    probability = probability[probability > 1e-30]
    return order[: len(probability)], probability / probability.sum()


OPTIONS = [
    pytest.param(ResolvedOptions(temperature=t, top_k=k, top_p=p), id=f"temperature={t:g} k={k} p={p:g}")
    for t in (0.0, 1e-30, 0.3, 1.0, 2.5, 1e6)
    for k in (0, 1, 3, 16, 1000)
    for p in (1.0, 0.9, 0.37, 1e-6, 1e-300)
]


@pytest.mark.parametrize("options", OPTIONS)
def test_tokens_are_those_of_the_rules(session: Session, options: ResolvedOptions) -> None:
    draws = np.concatenate([[0, 2**-24, 0.5, LAST], uniforms(3, range(1), range(60))[0]]).astype(np.float32)
    for context in CONTEXTS:
        tokens, logits = draw(session, context, options, draws)
        assert (logits == logits[0]).all()
        allowed, probability = distribution(logits[0], options)
        borders = np.cumsum(probability)
        expected = allowed[np.minimum(np.searchsorted(borders, draws, side="right"), len(allowed) - 1)]
        sure = np.abs(borders[:-1, None] - draws).min(axis=0, initial=1) > NEAR
        assert sure.mean() > 0.9 and sure[0]
        assert np.array_equal(tokens[sure], expected[sure])
        assert set(tokens) <= set(allowed)


def test_every_token_is_drawn_somewhere(session: Session) -> None:
    """Guards the grid above against logits so uneven that it would test one token only."""
    _, logits = draw(session, [16], ResolvedOptions(), np.zeros(1, np.float32))
    allowed, probability = distribution(logits[0], ResolvedOptions(temperature=2.5))
    middles = (np.cumsum(probability) - probability / 2).astype(np.float32)
    tokens, _ = draw(session, [16], ResolvedOptions(temperature=2.5), middles)
    assert tokens.tolist() == allowed.tolist() and len(allowed) == 16


def test_equal_logits_are_taken_lower_token_first(
    bundle_copy: Path, replace_file: Callable[[Path, str, bytes], None]
) -> None:
    tensors = load_file(bundle_copy / WEIGHTS_FILE)
    tensors["lm_head.weight"][[2, 13]] = tensors["lm_head.weight"][7]
    replace_file(bundle_copy, WEIGHTS_FILE, save(tensors))
    tied = open_session(bundle_copy, device="cpu")
    _, logits = draw(tied, [16], ResolvedOptions(), np.zeros(1, np.float32))
    assert logits[0, 2] == logits[0, 7] == logits[0, 13]
    allowed, probability = distribution(logits[0], ResolvedOptions())
    assert [token for token in allowed if token in (2, 7, 13)] == [2, 7, 13]
    middles = (np.cumsum(probability) - probability / 2).astype(np.float32)
    assert draw(tied, [16], ResolvedOptions(), middles)[0].tolist() == allowed.tolist()
    k = allowed.tolist().index(2) + 1  # the cut falls between equals
    assert draw(tied, [16], ResolvedOptions(top_k=k), np.array([LAST], np.float32))[0].tolist() == [2]


def test_rows_are_drawn_independently(session: Session) -> None:
    contexts = np.array([[16, 1], [16, 5], [16, 11]])
    draws = np.array([0.2, 0.6, 0.9], np.float32)
    step = DecodeStep(session, new_cache(session.manifest, 3), ResolvedOptions())
    together = step(contexts, 0, draws)[:, 0]
    alone = [
        draw(session, row.tolist(), ResolvedOptions(), u[None])[0][0] for row, u in zip(contexts, draws, strict=True)
    ]
    assert together.tolist() == alone


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.8])
def test_frequencies_are_the_softmax(session: Session, temperature: float) -> None:
    options = ResolvedOptions(temperature=temperature)
    draws = uniforms(1, range(2000), range(1))[:, 0]
    tokens, logits = draw(session, [16, 2], options, draws)
    weights = np.exp(logits[0].astype(np.float64) / temperature)
    expected = len(draws) * weights / weights.sum()
    common = expected >= 5
    observed = np.bincount(tokens, minlength=16)
    chi_square = np.square(observed - expected)[common] / expected[common]
    assert common.sum() >= 4
    assert chi_square.sum() < common.sum() + 6 * np.sqrt(2 * common.sum())
