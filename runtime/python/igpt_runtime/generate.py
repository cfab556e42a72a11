"""The generation loop: prefill once, fork the cache to n samples, decode token by token."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from igpt_runtime import names
from igpt_runtime.cache import Cache, cache_bytes, fork_cache, new_cache
from igpt_runtime.config import ImageGPTConfig
from igpt_runtime.errors import OptionError
from igpt_runtime.random import uniforms
from igpt_runtime.session import Session

Tokens = npt.NDArray[np.int64]

_MAX_ROWS = 32  # rows decoded at once: more gain nothing on a CPU, whose caches they outgrow
_MAX_CACHE_BYTES = 2 << 30
_MAX_N = 1 << 16  # samples of one request: a bound on the memory it takes, far above any use
_FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class GenerationOptions:
    """One request for samples."""

    n: int = 8  # how many
    seed: int = 0  # 0 .. 2**64 - 1; the same seed gives the same tokens
    temperature: float = 1.0  # divides the logits; 0 always takes the likeliest token
    top_k: int = 0  # draw among the k likeliest tokens only; 0 is off
    top_p: float = 1.0  # draw among the likeliest tokens that reach this probability only; 1 is off

    def __post_init__(self) -> None:
        """Raise OptionError for values out of range."""
        if not 1 <= self.n <= _MAX_N:
            raise OptionError(f"n must be 1 .. {_MAX_N}, got {self.n}")
        if not 0 <= self.seed < 2**64:
            raise OptionError(f"seed must be in 0 .. 2**64 - 1, got {self.seed}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise OptionError(f"temperature must be a finite number of at least 0, got {self.temperature}")
        if self.top_k < 0:
            raise OptionError(f"top-k must be at least 0 (0 is off), got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top-p must be above 0 and at most 1 (1 is off), got {self.top_p}")


def generate(
    session: Session, primer: Tokens, options: GenerationOptions, samples: Sequence[int] | None = None
) -> Iterator[Tokens]:
    """Stream the tokens that follow `primer`, one int64 [rows] per position up to the last one.

    primer: int64 [length], the first tokens of the picture, without sos; may be empty.
    samples: indices of the samples to draw, one row each; None is range(options.n). A row depends only on its own
    index, so drawing some of them later or in another batch gives the same tokens.

    Raises:
        OptionError: the primer is longer than a picture, or holds something that is not a token.
    """
    config = session.manifest.config
    rows = range(options.n) if samples is None else samples
    _check_primer(primer, config)
    inputs = np.concatenate([np.array([config.sos]), primer]).astype(np.int64)
    positions = range(primer.size, config.n_positions)
    draws = uniforms(options.seed, rows, positions)
    cache = prefill(session, inputs[:-1], len(rows))
    return decode(session, inputs[-1], cache, positions, draws, options)


def _check_primer(primer: Tokens, config: ImageGPTConfig) -> None:
    if primer.size > config.n_positions or ((primer < 0) | (primer >= config.n_clusters)).any():
        raise OptionError(f"the primer must be at most {config.n_positions} tokens in 0 .. {config.n_clusters - 1}")


def prefill(session: Session, inputs: Tokens, rows: int) -> Cache:
    """Run `inputs` (int64 [length], shared by all rows) once and return a cache of `rows` rows that has seen them."""
    config = session.manifest.config
    if not inputs.size:
        return new_cache(config, rows)
    cache = new_cache(config, 1)
    step = DecodeStep(session, cache, GenerationOptions(temperature=0.0))
    step(inputs[None], 0, np.zeros(1, np.float32))
    return cache if rows == 1 else fork_cache(cache, config, rows, inputs.size)


def decode(
    session: Session,
    last: np.int64,
    cache: Cache,
    positions: range,
    draws: npt.NDArray[np.float32],
    options: GenerationOptions,
) -> Iterator[Tokens]:
    """Feed `last` to every row, then each row its own tokens; yields one int64 [rows] per position.

    cache: filled up to the first of `positions`; draws: float32 [rows, positions] in [0, 1).
    """
    step = DecodeStep(session, cache, options)
    tokens = np.full((len(draws), 1), last, np.int64)
    for column, position in enumerate(positions):
        tokens = step(tokens, position, draws[:, column])
        yield tokens[:, 0].copy()


class DecodeStep:
    """The decode graph with its cache bound in place: past and present are the same buffers, nothing is copied."""

    def __init__(
        self, session: Session, cache: Cache, options: GenerationOptions, *, with_logits: bool = False
    ) -> None:
        """with_logits: also keep the logits of each step, for `logits`."""
        import onnxruntime

        config = session.manifest.config
        self._cache = cache  # the OrtValues below are views that do not keep it alive
        self._graph = session.graph(names.DECODE)
        self._binding = self._graph.io_binding()
        self._past_length = np.zeros((), np.int64)
        self._uniform = np.zeros(len(cache[0]), np.float32)
        # What float32 and int64 cannot hold becomes the nearest that they can.
        temperature = min(options.temperature, float(_FLOAT32.max))
        top_k = min(options.top_k, config.n_clusters)
        # These OrtValues are views of the arrays: writing to an array is all it takes to feed the next step.
        self._keep = [
            (names.PAST_LENGTH, self._past_length),
            (names.UNIFORM, self._uniform),
            (names.TEMPERATURE, np.array(temperature, np.float32)),
            (names.TOP_K, np.array(top_k, np.int64)),
            (names.TOP_P, np.array(options.top_p, np.float32)),
        ]
        self._values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in self._keep}
        for name, value in self._values.items():
            self._binding.bind_ortvalue_input(name, value)
        for past, present, buffer in zip(names.past_names(config), names.present_names(config), cache, strict=True):
            value = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
            self._binding.bind_ortvalue_input(past, value)
            self._binding.bind_ortvalue_output(present, value)
        self._outputs = [names.NEXT_IDS, names.LOGITS] if with_logits else [names.NEXT_IDS]
        for name in self._outputs:
            self._binding.bind_output(name)

    def __call__(self, tokens: Tokens, past_length: int, uniform: npt.NDArray[np.float32]) -> Tokens:
        """Feed tokens int64 [rows, sequence] at `past_length`; returns the tokens drawn after them, int64 [rows, 1]."""
        self._past_length[...] = past_length
        self._uniform[...] = uniform
        self._binding.bind_cpu_input(names.INPUT_IDS, np.ascontiguousarray(tokens))
        self._graph.run_with_iobinding(self._binding)
        drawn: Tokens = self._binding.get_outputs()[-len(self._outputs)].numpy()
        return drawn

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits of the last step's last token, float32 [rows, n_clusters]."""
        logits: npt.NDArray[np.float32] = self._binding.get_outputs()[-1].numpy()
        return logits


def generate_all(
    session: Session,
    primer: Tokens,
    options: GenerationOptions,
    progress: Callable[[int], None] | None = None,
) -> Tokens:
    """Whole pictures, int64 [n, n_positions]: the primer and what `generate` adds to it, in batches that fit.

    progress: called after every step with the number of tokens it drew.

    Raises:
        OptionError: the primer is longer than a picture, or holds something that is not a token.
    """
    config = session.manifest.config
    _check_primer(primer, config)
    pictures = np.empty((options.n, config.n_positions), np.int64)
    pictures[:, : primer.size] = primer
    for first in range(0, options.n, rows_at_once(config)):
        samples = range(options.n)[first : first + rows_at_once(config)]
        for position, tokens in enumerate(generate(session, primer, options, samples), start=primer.size):
            pictures[samples.start : samples.stop, position] = tokens
            if progress is not None:
                progress(len(samples))
    return pictures


def rows_at_once(config: ImageGPTConfig) -> int:
    """How many rows one decode batch holds."""
    return max(1, min(_MAX_ROWS, _MAX_CACHE_BYTES // cache_bytes(config, 1)))
