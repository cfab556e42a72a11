"""The generation loop: prefill once, share what was given among n samples, decode token by token."""

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import ImageGPTConfig, SamplingDefaults
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.cuda_start import CUDA
from igpt_runtime.engine.device import CudaTensors, HostTensors
from igpt_runtime.engine.kv_cache import Cache, Slots, alike_cache, new_cache, share_prefix, shares_prefix
from igpt_runtime.engine.memory import rows_at_once, rows_at_once_on_gpu
from igpt_runtime.engine.numbers import check_numbers
from igpt_runtime.engine.random import uniforms
from igpt_runtime.engine.session import Session, import_onnxruntime
from igpt_runtime.errors import MemoryShortageError, OptionError

Tokens = npt.NDArray[np.int64]
Costs = Callable[[npt.NDArray[np.float32]], None]  # called with the nats of every token that was given, [length]

_MAX_N = 1 << 16  # samples of one request: a bound on the memory it takes, far above any use
_FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class GenerationOptions:
    """One request for pictures. A field that is None takes the recommended sampling of the bundle's manifest.

    Raises:
        OptionError: a value is out of range.
    """

    n: int = 8  # number of pictures, 1 .. 65536
    seed: int = 0  # 0 .. 2**64 - 1; the same seed gives the same tokens
    temperature: float | None = None  # divides the logits, at least 0; 0 always takes the likeliest token
    top_k: int | None = None  # draw among the k likeliest tokens, at least 0; 0 is off
    top_p: float | None = None  # draw among the likeliest tokens that reach this probability, 0 < top_p <= 1; 1 is off

    def __post_init__(self) -> None:
        """Raise OptionError for values out of range."""
        if not 1 <= self.n <= _MAX_N:
            raise OptionError(f"n must be 1 .. {_MAX_N}, got {self.n}")
        if not 0 <= self.seed < 2**64:
            raise OptionError(f"seed must be in 0 .. 2**64 - 1, got {self.seed}")
        if problem := self._sampling(SamplingDefaults()).problem():
            raise OptionError(problem)

    def resolved(self, manifest: Manifest) -> "ResolvedOptions":
        """The same request, with the recommended sampling of `manifest` for each field that is None."""
        sampling = self._sampling(manifest.sampling)
        return ResolvedOptions(self.n, self.seed, sampling.temperature, sampling.top_k, sampling.top_p)

    def _sampling(self, defaults: SamplingDefaults) -> SamplingDefaults:
        return SamplingDefaults(
            defaults.temperature if self.temperature is None else self.temperature,
            defaults.top_k if self.top_k is None else self.top_k,
            defaults.top_p if self.top_p is None else self.top_p,
        )


@dataclass(frozen=True)
class ResolvedOptions(GenerationOptions):
    """A request whose fields all have a value. By default it draws from the plain distribution."""

    temperature: float = 1.0  # as in `GenerationOptions`, like `n` and `seed`
    top_k: int = 0  # likewise
    top_p: float = 1.0  # likewise


def generate(
    session: Session,
    primer: Tokens,
    options: GenerationOptions,
    samples: Sequence[int] | None = None,
    *,
    slots: Slots | None = None,
) -> Iterator[Tokens]:
    """Stream the tokens that follow `primer`: one int64 [samples] for each position up to the last one.

    primer: int64 [length], the first tokens of the picture, without sos; may be empty.
    samples: numbers of the samples to draw; None is range(options.n). A sample depends on its own number only, so
    drawing some of them later or in another batch gives the same tokens.
    slots: what `igpt_runtime.engine.generate.prefill` returned for the same primer; without it, prefill is run.

    Raises:
        OptionError: the primer is longer than a picture, or holds something that is not a token.
        BundleError: a graph is not in the bundle, or a file is damaged.
        DeviceError: CUDA was asked for and ONNX Runtime did not start it.
    """
    config = session.manifest.config
    rows = range(options.n) if samples is None else samples
    _check_primer(primer, config)
    positions = range(primer.size, config.n_positions)
    if not positions:
        return iter(())
    draws = uniforms(options.seed, rows, positions)
    last = primer[-1] if primer.size else config.sos
    slots = prefill(session, primer) if slots is None else slots
    return decode(session, last, start_cache(session, slots, len(rows)), positions, draws, options)


def _check_primer(primer: Tokens, config: ImageGPTConfig) -> None:
    if (
        primer.ndim != 1
        or (primer.size and primer.dtype.kind not in "iu")
        or primer.size > config.n_positions
        or ((primer < 0) | (primer >= config.n_clusters)).any()
    ):
        raise OptionError(f"the primer must be at most {config.n_positions} tokens in 0 .. {config.n_clusters - 1}")


def prefill(session: Session, primer: Tokens, costs: Costs | None = None) -> Slots:
    """The cache of sos and all of `primer` (int64 [length]) but its last token, which the first decode step feeds.

    Returns key and value of every block, [1, n_head, length, head_dim]; no arrays for an empty primer. Whether the
    weights are whole is known when a decode graph is open.

    costs: called with the nats of every token of the primer, float32 [length], unless it is empty.
    """
    if not primer.size:
        return []
    config = session.manifest.config
    inputs = np.concatenate([[config.sos], primer[:-1]]).astype(np.int64)
    outputs = [*graph_io.present_names(config), *([graph_io.LOGITS] if costs else [])]
    found = session.run_once(graph_io.PREFILL, outputs, {graph_io.INPUT_IDS: inputs[None]})
    if costs is not None:
        costs(nats(found.pop()[0], primer))
    return found


def nats(logits: npt.NDArray[np.float32], tokens: Tokens) -> npt.NDArray[np.float32]:
    """Minus the log-likelihood of tokens [n], from logits [n, clusters]; NaN or infinity if these are no good."""
    with np.errstate(all="ignore"):
        peak = logits.max(axis=1)
        total = np.exp(logits - peak[:, None]).sum(axis=1, dtype=np.float64)
        cost = np.log(total) + peak - logits[np.arange(len(tokens)), tokens]
        found: npt.NDArray[np.float32] = cost.astype(np.float32)
    return found


def start_cache(session: Session, slots: Slots, rows: int) -> Cache:
    """A cache for `rows` rows that have all seen `slots`, in the form that is fastest to decode."""
    if shares_prefix(session.manifest, rows, slots[0].shape[2] if slots else 0):
        return share_prefix(session.manifest, rows, slots)
    make = alike_cache if session.decodes_on_gpu(graph_io.DECODE) else new_cache
    return make(session.manifest, rows, slots)


def decode(
    session: Session,
    last: np.int64 | int,
    cache: Cache,
    positions: range,
    draws: npt.NDArray[np.float32],
    options: GenerationOptions,
) -> Iterator[Tokens]:
    """Feed `last` to every row, then each row its own tokens; yields one int64 [rows] per position.

    cache: filled up to the first of `positions`; draws: float32 [rows, positions] in [0, 1).
    """
    step = DecodeStep(session, cache, options)
    del cache  # the step has it, on a device in its own memory
    tokens = np.full((len(draws), 1), last, np.int64)
    for column, position in enumerate(positions):
        last_one = position == positions[-1]
        if last_one:
            step.keep_logits()
        tokens = step(tokens, position, draws[:, column])
        if last_one:  # what is no number in the cache stays so until here
            check_numbers(session, step.logits())
        yield tokens[:, 0].copy()


class DecodeStep:
    """A decode graph with everything bound once: past and present are the same buffers, and so are the fed and the
    drawn token, so that a step copies nothing but its position and its uniforms (and from a device its tokens)."""

    def __init__(
        self, session: Session, cache: Cache, options: GenerationOptions, *, with_logits: bool = False
    ) -> None:
        """with_logits: also keep the logits of each step, for `logits`."""
        config = session.manifest.config
        options = options.resolved(session.manifest)
        graph = session.graph(cache.graph)
        on_gpu = session.decodes_on_gpu(cache.graph)
        on_device = session.device_tensors.take(graph, cache.rows) if on_gpu else None
        self._tensors = tensors = on_device or HostTensors(import_onnxruntime(), graph)
        tensors.bind(graph_io.PAST_LENGTH, np.zeros((), np.int64))
        tensors.bind(graph_io.UNIFORM, np.zeros(cache.rows, np.float32))
        # What float32 and int64 cannot hold becomes the nearest that they can.
        tensors.bind(graph_io.TEMPERATURE, np.array(min(options.temperature, float(_FLOAT32.max)), np.float32))
        tensors.bind(graph_io.TOP_K, np.array(min(options.top_k, config.n_clusters), np.int64))
        tensors.bind(graph_io.TOP_P, np.array(options.top_p, np.float32))
        for name, prefix in zip(graph_io.prefix_names(config), cache.prefix, strict=False):
            tensors.bind(name, prefix)
        parts: Sequence[Any] = cache.own  # arrays for the host, or AlikeRows for a device
        for past, present, own in zip(graph_io.past_names(config), graph_io.present_names(config), parts, strict=True):
            tensors.bind(past, own, output=present)
        tensors.bind(graph_io.INPUT_IDS, np.zeros((cache.rows, 1), np.int64), output=graph_io.NEXT_IDS)
        self._logits: tuple[int, int] | None = (cache.rows, config.n_clusters)  # their shape, until they are kept
        if with_logits or isinstance(tensors, CudaTensors):  # whose outputs cannot change once they are captured
            self.keep_logits()
        self._drawn: Tokens | None = None
        if on_device is not None:  # only now that all is bound may another step have them
            give_back = session.device_tensors.give_back
            weakref.finalize(self, give_back, graph, cache.rows, on_device).atexit = False

    def __call__(self, tokens: Tokens, past_length: int, uniform: npt.NDArray[np.float32]) -> Tokens:
        """Feed tokens int64 [rows, sequence] at `past_length`; sequence is 1 where rows share a prefix.

        Returns the tokens drawn after the last ones, int64 [rows, 1], in an array that the next step may overwrite.
        """
        self._tensors.write(graph_io.PAST_LENGTH, past_length)
        self._tensors.write(graph_io.UNIFORM, uniform)
        if tokens.shape[1] > 1:
            self._tensors.run(tokens)
        else:
            if tokens is not self._drawn:  # drawn tokens are where the graph reads them already
                self._tensors.write(graph_io.INPUT_IDS, tokens)
            self._tensors.run()
        drawn: Tokens = self._tensors.read(graph_io.NEXT_IDS)
        self._drawn = drawn
        return drawn

    def keep_logits(self) -> None:
        """From now on keep the logits of each step, for `logits`."""
        if self._logits is not None:
            self._tensors.bind_output(graph_io.LOGITS, np.empty(self._logits, np.float32))
            self._logits = None

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits of the last step's tokens, float32 [rows, n_clusters], in an array the next step may overwrite."""
        return self._tensors.read(graph_io.LOGITS)


def generate_all(
    session: Session,
    primer: Tokens,
    options: GenerationOptions,
    progress: Callable[[int], None] | None = None,
    costs: Costs | None = None,
) -> Tokens:
    """Whole pictures, int64 [n, n_positions]: the primer, and what `generate` draws after it.

    They are drawn in as few batches as fit into the memory there is.

    primer: int64 [length], as in `generate`.
    progress: called after every step with the number of tokens that this step drew.
    costs: see `prefill`.

    Raises:
        OptionError: the primer is longer than a picture, or holds something that is not a token.
        MemoryShortageError: not even one picture fits into the memory there is.
        BundleError: a graph is not in the bundle, or a file is damaged.
        DeviceError: CUDA was asked for and ONNX Runtime did not start it.
    """
    config = session.manifest.config
    _check_primer(primer, config)
    pictures = np.empty((options.n, config.n_positions), np.int64)
    pictures[:, : primer.size] = primer
    if primer.size == config.n_positions:
        return pictures
    manifest = session.manifest
    slots: Slots | None = None
    may_be_on_gpu = manifest.precision == "fp16" and session.provider == CUDA
    if may_be_on_gpu:  # what it leaves of the memory is known when the graphs are open
        slots = prefill(session, primer, costs)
    on_gpu = may_be_on_gpu and session.decodes_on_gpu(graph_io.DECODE)
    if on_gpu:
        at_once = rows_at_once_on_gpu(manifest, options.n, session.device_tensors.reusable_bytes())
    else:
        at_once = rows_at_once(manifest, options.n, primer.size, loaded=session.holds_weights)
    if slots is None:
        slots = prefill(session, primer, costs)
    first = 0
    while first < options.n:
        samples = range(options.n)[first : first + at_once]
        drawn = generate(session, primer, options, samples, slots=slots)
        if samples.stop == options.n and not on_gpu:
            slots = None  # the last batch has what it needs of them
        try:
            begun = next(drawn)
        except MemoryShortageError:
            if not on_gpu or len(samples) == 1:
                raise
            at_once = len(samples) // 2  # what was taken for this batch is free again
            continue
        for position, tokens in enumerate(itertools.chain([begun], drawn), start=primer.size):
            pictures[samples.start : samples.stop, position] = tokens
            if progress is not None:
                progress(len(samples))
        first = samples.stop
    return pictures
