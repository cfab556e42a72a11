"""Draws tokens a second time: from the prefill graph's logits of whole pictures, by `runtime/SPEC.md`'s rule in NumPy.

Nothing of the generation loop takes part: no cache, no decode graph, no sampler in a graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from igpt_runtime import names
from igpt_runtime.errors import VerificationError
from igpt_runtime.generate import GenerationOptions, Tokens
from igpt_runtime.random import uniforms
from igpt_runtime.session import Session
from igpt_runtime.traffic import cache_dtype

Floats = npt.NDArray[np.float32]

TOLERANCE = 1e-3  # how far rounding may move a logit, or a cumulative probability
_EXPLAINED_SHARE = 0.01  # of the tokens that may differ at all; rounding takes far fewer
_ALWAYS_ALLOWED = 2  # differences, where so few tokens were drawn that a share says nothing


@dataclass(frozen=True)
class Agreement:
    """How many drawn tokens the second drawing gives too."""

    tokens_checked: int
    tokens_equal: int
    explained: int  # of the others: a move of logits and sums by TOLERANCE gives the drawn token
    exact: bool  # whether weights and cache are float32, so that every difference needs an explanation
    first_difference: str | None  # one that is not explained, or else any

    def check(self) -> None:
        """Raise VerificationError if the bundle is exact and differences are not explained, or far too many."""
        different = self.tokens_checked - self.tokens_equal
        allowed = max(_ALWAYS_ALLOWED, _EXPLAINED_SHARE * self.tokens_checked)
        if self.exact and (different > self.explained or different > allowed):
            raise VerificationError(
                f"{different} of the {self.tokens_checked} tokens drawn do not follow from the prefill graph's logits, "
                f"{self.explained} of them within rounding ({self.first_difference}); export the bundle again, "
                "or try another onnxruntime"
            )


def redraw(session: Session, rounds: Sequence[Tokens], kept: int, options: GenerationOptions) -> Agreement:
    """Draw every token from position `kept` on again, each from its picture's own earlier tokens.

    rounds: each int64 [n, n_positions], the samples 0 .. n - 1 of `options`, which must have neither top_k nor top_p; a
    picture that is the same in several rounds is checked and counted once.

    Raises:
        BundleError: a file of the bundle is damaged.
    """
    assert (options.top_k, options.top_p) == (0, 1)
    config, graph = session.manifest.config, session.graph(names.PREFILL)
    positions = range(kept, config.n_positions)
    draws = uniforms(options.seed, range(options.n), positions)
    pictures = {(row, drawn.tobytes()): drawn for tokens in rounds for row, drawn in enumerate(tokens)}
    equal = explained = 0
    examples: dict[bool, str] = {}
    for (row, _), picture in pictures.items():
        inputs = np.concatenate([[config.sos], picture[:-1]]).astype(np.int64)
        logits = graph.run([names.LOGITS], {names.INPUT_IDS: inputs[None]})[0][0, kept:]
        redrawn = draw_tokens(logits, draws[row], options)
        for i in np.flatnonzero(redrawn != picture[kept:]):
            token, again = int(picture[kept + i]), int(redrawn[i])
            near = is_near(logits[i], float(draws[row, i]), token, options.temperature)
            explained += near
            examples.setdefault(near, f"picture {row + 1}, position {kept + i}: token {token}, expected {again}")
        equal += int((redrawn == picture[kept:]).sum())
    return Agreement(
        tokens_checked=len(pictures) * len(positions),
        tokens_equal=equal,
        explained=explained,
        exact=_is_exact(session),
        first_difference=examples.get(False, examples.get(True)),
    )


def draw_tokens(logits: Floats, uniform: Floats, options: GenerationOptions) -> Tokens:
    """The token each row of logits gives, int64 [rows].

    logits: float32 [rows, n_clusters]; uniform: float32 [rows] in [0, 1).
    """
    # A stable sort puts the lower token first of equal logits.
    order = np.argsort(-logits, axis=-1, kind="stable").astype(np.int64)
    with np.errstate(over="ignore", under="ignore"):
        temperature = np.float32(min(options.temperature, float(np.finfo(np.float32).max)))
        top_p = np.float32(options.top_p)
        if temperature <= 0:
            return order[:, 0]
        ranked = np.take_along_axis(logits, order, axis=-1)
        scaled = (ranked - ranked[:, :1]) / temperature
        if options.top_k:
            scaled[:, options.top_k :] = -np.inf
        weights = np.exp(scaled)
    probability = weights / weights.sum(axis=-1, keepdims=True)
    likelier = np.cumsum(probability, axis=-1) - probability
    kept = np.where(likelier >= top_p, np.float32(0), probability)
    kept[:, 0] = probability[:, 0]
    cumulative = np.cumsum(kept, axis=-1)
    rank = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(axis=-1)
    rank = np.minimum(rank, (kept > 0).sum(axis=-1) - 1)
    return np.take_along_axis(order, rank[:, None], axis=-1)[:, 0]


def is_near(logits: Floats, uniform: float, token: int, temperature: float = 1.0) -> bool:
    """Whether `token` is drawn when logits (float32 [n_clusters]) and cumulative probabilities move by TOLERANCE.

    Tokens whose logits are that close may swap ranks. The token's stretch of [0, 1) begins after all that are surely
    likelier, at the earliest, and ends after all that may be likelier and itself, at the latest.
    """
    weights = np.exp((logits.astype(np.float64) - float(logits.max())) / temperature)
    probability = weights / weights.sum()
    begin = probability[logits > logits[token] + 2 * TOLERANCE].sum()
    end = probability[logits >= logits[token] - 2 * TOLERANCE].sum()
    return bool(begin - TOLERANCE <= uniform <= end + TOLERANCE)


def _is_exact(session: Session) -> bool:
    return session.manifest.precision == "fp32" and cache_dtype(session.manifest) == "float32"
