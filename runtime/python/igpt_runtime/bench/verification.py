"""Whether drawn tokens follow from the model: they are drawn again, on another path, and compared.

The other path shares nothing with the decode loop but the weights: one run of the prefill graph over each finished
picture gives the logits at every position, and NumPy draws from them in float64 by section 4 of runtime/SPEC.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from igpt_runtime.bench.bandwidth import cache_dtype
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.generate import GenerationOptions, ResolvedOptions, Tokens
from igpt_runtime.engine.random import uniforms
from igpt_runtime.engine.session import Session
from igpt_runtime.errors import VerificationError

Floats = npt.NDArray[np.floating]
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Tolerance:
    """How far two computations of the same logits may differ in what is drawn from them."""

    identical: float  # least share of tokens that are drawn again exactly
    distance: float  # largest probability between a uniform and the interval of the token that was drawn with it
    mean_distance: float  # the same, averaged over all tokens, 0 where the uniform is inside
    tie: float  # logits this close may stand in either order


# Both graphs compute in float32 and differ in rounding: logits by less than 1e-4.
EXACT = Tolerance(identical=0.999, distance=1e-3, mean_distance=1e-5, tie=1e-4)
# Quantised kernels and caches round differently in the two graphs, and tokens next to the right one are drawn. Their
# share depends on how flat the distributions are and says little; how far off they are tells whether the logits are
# those of the same model. Measured with the demo model over 4,096 tokens, on average and at most: an int8 cache 0.0004
# and 0.2, with int4 weights 0.001 and 0.5; the coarsest int8 weights and activations (a scale a tensor) 0.005 and 0.3;
# a cache rounded to 4 bits 0.03 and 0.7; tokens drawn with the uniforms of other samples 0.2 and 1. After a picture of
# noise, which is what `igpt-run bench` gives, an int8 cache is 0.005 off on average, and with int8 weights 0.009.
QUANTISED = Tolerance(identical=0.0, distance=0.75, mean_distance=0.02, tie=0.05)
# float16 was 0.0002 off at most and 3e-7 on average (0.04 where a tie of 5e-4 was not taken for one).
HALF = Tolerance(identical=0.0, distance=0.05, mean_distance=1e-3, tie=0.05)


@dataclass(frozen=True)
class Agreement:
    """What `redraw` found."""

    tokens: int  # drawn again, each different picture of a sample once
    identical: float  # share of them that came out the same
    distance: float  # see Tolerance
    mean_distance: float
    tolerance: Tolerance

    def check(self) -> None:
        """Raise VerificationError when the tokens do not follow from the model."""
        allowed, wrong = self.tolerance, []
        if self.identical < allowed.identical:
            wrong.append(f"{self.identical:.2%} of {self.tokens:,} are drawn again, not {allowed.identical:.1%}")
        if self.distance > allowed.distance:
            wrong.append(f"one is {self.distance:.2g} off in probability, more than {allowed.distance:g}")
        if self.mean_distance > allowed.mean_distance:
            wrong.append(f"they are {self.mean_distance:.2g} off on average, more than {allowed.mean_distance:g}")
        if wrong:
            raise VerificationError(
                f"the timed tokens do not follow from the prefill graph's logits ({'; '.join(wrong)}); "
                "the times mean nothing: export the bundle again"
            )


def redraw(session: Session, pictures: Sequence[Tokens], kept: int, options: GenerationOptions) -> Agreement:
    """Draw the tokens of finished pictures again and compare.

    pictures: each int64 [rows, n_positions], row i drawn as sample i of `options` after `kept` given tokens.

    Raises:
        BundleError: the bundle has no prefill graph or it is damaged.
    """
    tolerance, used = tolerance_of(session.manifest), options.resolved(session.manifest)
    rows = {(sample, row.tobytes()): row for tokens in pictures for sample, row in enumerate(tokens)}
    same, distances = [], []
    for (sample, _), row in rows.items():
        draws = uniforms(used.seed, [sample], range(kept, row.size))[0]
        ranked = _Ranked.of(_logits(session, row)[kept:], used)
        same.append(ranked.draw(draws) == row[kept:])
        distances.append(ranked.distances(row[kept:], draws, tolerance.tie))
    identical, distance = np.concatenate(same), np.concatenate(distances)
    return Agreement(identical.size, float(identical.mean()), float(distance.max()), float(distance.mean()), tolerance)


def tolerance_of(manifest: Manifest) -> Tolerance:
    """What to ask of a bundle: rounding where weights and cache are floats, else the differences of quantisation."""
    if manifest.precision == "fp16":
        return HALF
    return EXACT if (manifest.precision, cache_dtype(manifest)) == ("fp32", "float32") else QUANTISED


def _logits(session: Session, picture: Tokens) -> npt.NDArray[np.float32]:
    """What the prefill graph predicts for every token of a picture, float32 [n_positions, n_clusters]."""
    inputs = np.concatenate([[session.manifest.config.sos], picture[:-1]])[None].astype(np.int64)
    logits: npt.NDArray[np.float32] = session.graph(graph_io.PREFILL).run(
        [graph_io.LOGITS], {graph_io.INPUT_IDS: inputs}
    )[0][0]
    return logits


@dataclass(frozen=True)
class _Ranked:
    """Distributions at some positions, tokens sorted as they are drawn."""

    logits: Floats  # float32 [positions, n_clusters], by token
    order: Tokens  # int64 [positions, n_clusters], token of each rank
    sorted: Floats  # float64 [positions, n_clusters], logits by rank
    probability: Floats  # float64 [positions, n_clusters], by rank; 0 where a filter drops it; not renormalised
    greedy: bool

    @classmethod
    def of(cls, logits: npt.NDArray[np.float32], options: ResolvedOptions) -> "_Ranked":
        """Steps 1 to 5 of the rules."""
        order = np.argsort(-logits, axis=1, kind="stable")
        ranked = np.take_along_axis(logits, order, axis=1).astype(np.float64)
        temperature = float(np.float32(min(options.temperature, _FLOAT32_MAX)))
        if temperature <= 0:
            first = np.zeros_like(ranked)
            first[:, 0] = 1
            return cls(logits, order, ranked, first, True)
        with np.errstate(over="ignore", under="ignore"):
            weight = np.exp((ranked - ranked[:, :1]) / temperature)
        if options.top_k:
            weight[:, options.top_k :] = 0
        probability = weight / weight.sum(axis=1, keepdims=True)
        likelier = np.cumsum(probability, axis=1) - probability
        dropped = likelier >= float(np.float32(options.top_p))
        dropped[:, 0] = False
        return cls(logits, order, ranked, np.where(dropped, 0.0, probability), False)

    def draw(self, draws: npt.NDArray[np.float32]) -> Tokens:
        """Step 6: a token int64 [positions] for a uniform at each position."""
        cumulative = np.cumsum(self.probability, axis=1)
        rank = (cumulative <= draws[:, None] * cumulative[:, -1:]).sum(axis=1)
        last = np.count_nonzero(self.probability, axis=1) - 1
        tokens: Tokens = np.take_along_axis(self.order, np.minimum(rank, last)[:, None], axis=1)[:, 0]
        return tokens

    def distances(self, tokens: Tokens, draws: npt.NDArray[np.float32], tie: float) -> Floats:
        """How far each uniform lies outside its token's interval, in probability; 0 inside; float64 [positions].

        The interval is as wide as the order of tokens within `tie` of each other may make it.
        """
        own = np.take_along_axis(self.logits, tokens[:, None], axis=1).astype(np.float64)
        total = self.probability.sum(axis=1)
        lower = (self.probability * (self.sorted > own + tie)).sum(axis=1) / total
        upper = (self.probability * (self.sorted >= own - tie)).sum(axis=1) / total
        uniform = np.zeros(len(draws)) if self.greedy else draws.astype(np.float64)
        outside: Floats = np.maximum(np.maximum(lower - uniform, uniform - upper), 0)
        return outside
