"""What a bundle does on this machine: times, rates, memory, and whether the tokens that were timed are right."""

import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from igpt_runtime.bench.bandwidth import IdealMemory, Traffic, cache_dtype, ideal_memory, measure_traffic
from igpt_runtime.bench.fresh_process import SEED, FreshProcess, Where, half_picture, measure_fresh_process
from igpt_runtime.bench.hardware import Machine, default_threads, machine
from igpt_runtime.bench.verification import Agreement, redraw
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.bundle import Bundle
from igpt_runtime.bundle.directory import WEIGHTS_FILE
from igpt_runtime.engine.generate import GenerationOptions, ResolvedOptions, Tokens, generate
from igpt_runtime.engine.session import Session, open_session
from igpt_runtime.errors import OptionError
from igpt_runtime.progress import SILENT, Progress
from igpt_runtime.tasks.complete import complete, rows_to_keep, tokens_of

_CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Steps:
    """Decode steps of one batch size; each draws one token a row."""

    rows: int
    steps: int  # in a round, the first one, which includes prefill, left out
    median: float  # seconds
    p90: float  # seconds
    tokens_per_second: float  # drawn over the time of all steps


@dataclass(frozen=True)
class Prefill:
    """The given half at batch 1, up to the first drawn token."""

    tokens: int  # fed, sos included
    seconds: float  # to the first token
    tokens_per_second: float  # fed


@dataclass(frozen=True)
class EndToEnd:
    """n completions of one half picture, from the picture to the pictures, by a loaded session."""

    seconds: float
    tokens: int  # drawn
    tokens_per_second: float
    images_per_minute: float


@dataclass(frozen=True)
class Result:
    """All that `igpt-run bench` measures; every time and rate is the median over the rounds."""

    name: str
    precision: str  # of the weights
    cache_dtype: str
    model: str  # its size, in words
    n: int
    rounds: int
    threads: int
    provider: str  # really used
    load: float  # seconds to open the bundle and the decode graph, in this process
    open_to_first_token: float  # seconds of that, prefill and the first token, in this process
    fresh_process: FreshProcess
    ideal_memory: IdealMemory  # that the fresh process's is to be compared with
    prefill: Prefill
    decode: tuple[Steps, Steps]  # at batch 1; at batch n, or the largest batches that n is split into
    end_to_end: EndToEnd
    traffic: Traffic | None  # None on a GPU, whose memory is not the one that is measured
    verification: Agreement  # of all tokens that were timed in this process
    machine: Machine


@dataclass(frozen=True)
class _Round:
    provider: str
    load: float
    open_to_first_token: float
    to_first_token: float
    alone: list[float]  # seconds of the steps at batch 1, the first left out
    together: list[float]  # at batch n
    rows: int
    seconds: float
    tokens: tuple[Tokens, Tokens]  # drawn at batch 1, int64 [1, n_positions]; in all, int64 [n, n_positions]


@dataclass
class _Measured:
    rounds: list[_Round]
    fresh: FreshProcess
    traffic: Traffic | None
    verification: Agreement


def benchmark(
    path: Path | str | None = None,
    where: Where | None = None,
    *,
    n: int = 8,
    rounds: int = 3,
    progress: Progress = SILENT,
) -> Result:
    """Measure the bundle at `path` (the embedded demo if None) and verify the tokens drawn on the way.

    where: what it runs on; None for Where().

    Raises:
        OptionError: an option is out of range, or the bundle's pictures are too small to time.
        BundleError: there is no bundle, or it is damaged or cannot generate.
        DeviceError: no usable onnxruntime, no such device, or a new process cannot use it.
        VerificationError: tokens do not follow from the model.
    """
    options = ResolvedOptions(n, SEED)  # the plain distribution, whatever the bundle recommends: all are timed alike
    if rounds < 1:
        raise OptionError(f"rounds must be at least 1, got {rounds}")
    where = where or Where()
    bundle = open_session(path, **asdict(where)).bundle
    bundle.graph_path(graph_io.DECODE)  # what is missing or damaged is told before anything is timed
    bundle.check_file(WEIGHTS_FILE)
    kept, n_positions = _kept_tokens(bundle), bundle.manifest.config.n_positions
    progress.stage("a fresh process")
    fresh = measure_fresh_process(bundle.path, n, where)
    measured = []
    for i in range(rounds):
        part = _Within(progress, f"round {i + 1} of {rounds}")
        measured.append(_round(bundle.path, where, options, kept, part))
    traffic = None
    if measured[0].provider == _CPU:
        progress.stage("memory bandwidth")
        # The steps that count attend to kept + 2 .. n_positions slots, their own one included.
        step = _steps([r.alone for r in measured], 1).median
        traffic = measure_traffic(bundle, (kept + 2 + n_positions) / 2, step)
    progress.stage("verification")
    session = open_session(bundle.path, **asdict(where))
    verification = redraw(session, [tokens for r in measured for tokens in r.tokens], kept, options)
    verification.check()
    found = _Measured(measured, fresh, traffic, verification)
    return _result(bundle, options, where.threads or default_threads(), kept, found)


def _result(bundle: Bundle, options: GenerationOptions, threads: int, kept: int, found: _Measured) -> Result:
    """Sum up the rounds."""
    measured = found.rounds
    config, form = bundle.manifest.config, bundle.manifest.image_format
    return Result(
        name=bundle.manifest.name,
        precision=bundle.manifest.precision,
        cache_dtype=cache_dtype(bundle.manifest),
        model=f"{config.n_layer} layers x {config.n_embd} wide, {form.width}x{form.height} pictures",
        n=options.n,
        rounds=len(measured),
        threads=threads,
        provider=measured[0].provider,
        load=statistics.median(r.load for r in measured),
        open_to_first_token=statistics.median(r.open_to_first_token for r in measured),
        fresh_process=found.fresh,
        ideal_memory=ideal_memory(bundle, measured[0].rows, kept),
        prefill=_prefill(kept + 1, [r.to_first_token for r in measured]),
        decode=(_steps([r.alone for r in measured], 1), _steps([r.together for r in measured], measured[0].rows)),
        end_to_end=_end_to_end(options.n, config.n_positions - kept, [r.seconds for r in measured]),
        traffic=found.traffic,
        verification=found.verification,
        machine=machine(),
    )


def _kept_tokens(bundle: Bundle) -> int:
    """Tokens of the upper half. Raises OptionError for pictures without two tokens to draw."""
    form = bundle.manifest.image_format
    kept = rows_to_keep("top-half", form.height) * form.width
    if form.height * form.width - kept < 2:
        raise OptionError(f"{bundle.path} draws pictures of one pixel, too few to time; use another bundle")
    return kept


class _Within(Progress):
    """Stages that are parts of one."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self._progress, self._stage = progress, stage

    def stage(self, name: str) -> None:
        self._progress.stage(f"{self._stage}, {name}")


def _round(path: Path, where: Where, options: GenerationOptions, kept: int, progress: Progress) -> _Round:
    """Every measurement once, with a session of its own."""
    progress.stage("one completion")
    begin = time.perf_counter()
    session = open_session(path, **asdict(where))
    session.graph(graph_io.DECODE)
    load = time.perf_counter() - begin
    form = session.manifest.image_format
    picture = half_picture(form.clusters, form.height, form.width)
    primer = tokens_of(session, picture)[:kept]
    single = ResolvedOptions(1, options.seed)
    next(generate(session, primer, single))
    open_to_first_token = time.perf_counter() - begin
    (first, *alone), one = _timed(session, primer, single)
    progress.stage(f"{options.n} completions")
    _warm_up(session, picture, options)
    clock = _Clock()
    done = complete(session, picture, options, progress=clock.tick)
    seconds = time.perf_counter() - clock.begin
    rows, together = clock.steps(session.manifest.config.n_positions - kept)
    return _Round(
        session.provider, load, open_to_first_token, first, alone, together, rows, seconds, (one, done.tokens)
    )  # fmt: skip


class _EnoughError(Exception):
    """Ends a completion at its first token."""


def _warm_up(session: Session, picture: Image.Image, options: GenerationOptions) -> None:
    """Open whatever else a completion of that many pictures needs."""

    def stop(_: int) -> None:
        raise _EnoughError

    with contextlib.suppress(_EnoughError):
        complete(session, picture, options, progress=stop)


def _timed(session: Session, primer: Tokens, options: GenerationOptions) -> tuple[list[float], Tokens]:
    """Seconds of every step of a generation, the first including prefill, and the pictures int64 [n, n_positions]."""
    drawn, times = [], [time.perf_counter()]
    for tokens in generate(session, primer, options):
        times.append(time.perf_counter())
        drawn.append(tokens)
    pictures = np.column_stack([np.tile(primer, (options.n, 1)), *drawn])
    return [end - begin for begin, end in pairwise(times)], pictures


class _Clock:
    """Notes when each step of a completion ends, and of how many rows it was."""

    def __init__(self) -> None:
        self._ticks: list[tuple[float, int]] = []
        self.begin = time.perf_counter()

    def tick(self, rows: int) -> None:
        """The progress function."""
        self._ticks.append((time.perf_counter(), rows))

    def steps(self, positions: int) -> tuple[int, list[float]]:
        """The largest batch and the seconds of its steps; each batch's first, which includes prefill, is left out."""
        largest = max(rows for _, rows in self._ticks)
        return largest, [
            end - begin
            for i, ((begin, _), (end, rows)) in enumerate(pairwise(self._ticks), start=1)
            if i % positions and rows == largest
        ]


def _steps(rounds: Sequence[Sequence[float]], rows: int) -> Steps:
    return Steps(
        rows=rows,
        steps=len(rounds[0]),
        median=statistics.median(float(np.median(times)) for times in rounds),
        p90=statistics.median(float(np.percentile(times, 90)) for times in rounds),
        tokens_per_second=statistics.median(rows * len(times) / sum(times) for times in rounds),
    )


def _prefill(tokens: int, seconds: Sequence[float]) -> Prefill:
    median = statistics.median(seconds)
    return Prefill(tokens, median, tokens / median)


def _end_to_end(n: int, positions: int, seconds: Sequence[float]) -> EndToEnd:
    median = statistics.median(seconds)
    return EndToEnd(median, n * positions, n * positions / median, 60 * n / median)
