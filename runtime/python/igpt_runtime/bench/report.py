"""A benchmark's result as text for people: one line a figure, what it is and what stands beside it."""

from igpt_runtime.bench.bandwidth import IdealMemory, Traffic
from igpt_runtime.bench.bench import Result, Steps
from igpt_runtime.bench.fresh_process import FreshProcess
from igpt_runtime.bench.hardware import Machine
from igpt_runtime.bench.verification import EXACT, Agreement

_ROW = "{:<17}{:>11}   {}"


def as_text(result: Result) -> str:
    """Lines of plain text, without a newline at the end."""
    end, prefill, fresh = result.end_to_end, result.prefill, result.fresh_process
    rows = [
        (
            "load",
            _seconds(result.load),
            f"bundle and decode graph; first token after {_seconds(result.open_to_first_token)}",
        ),
        (
            "fresh process",
            _seconds(fresh.start_to_pictures),
            f"start to {_pictures(result.n)}; first token after {_seconds(fresh.start_to_first_token)}",
        ),
        (
            "prefill",
            _seconds(prefill.seconds),
            f"{prefill.tokens:,} tokens to the first drawn one; {prefill.tokens_per_second:,.0f} tokens/s",
        ),
        *(_steps(steps) for steps in dict.fromkeys(result.decode)),
        (
            _pictures(result.n, "completion"),
            _seconds(end.seconds),
            f"end to end; {end.tokens_per_second:,.0f} tokens/s, {end.images_per_minute:,.1f} images/min",
        ),
        *_memory(fresh, result.ideal_memory),
        *([] if result.traffic is None else [_traffic(result.traffic)]),
        _verified(result.verification),
    ]
    head = f"{result.name}: {result.model}, {result.precision} weights, {result.cache_dtype} cache"
    rounds = "one round" if result.rounds == 1 else f"medians of {result.rounds} rounds"
    where = f"{result.provider}, {result.threads} threads; half an image given; {rounds}"
    return "\n".join([head, where, "", *(_ROW.format(*row) for row in rows), "", *_machine(result.machine)])


def _steps(steps: Steps) -> tuple[str, str, str]:
    text = f"a step, p90 {_seconds(steps.p90)}; {steps.tokens_per_second:,.0f} tokens/s"
    return f"decode, batch {steps.rows}", _seconds(steps.median), text


def _memory(fresh: FreshProcess, ideal: IdealMemory) -> list[tuple[str, str, str]]:
    peak, split = "unknown", ""
    if fresh.peak_memory is not None:
        peak = _bytes(fresh.peak_memory)
    if fresh.anonymous is not None and fresh.mapped is not None:
        split = f"; while drawing {_bytes(fresh.anonymous)} of its own + {_bytes(fresh.mapped)} of mapped files"
    parts = f"{_bytes(ideal.weights)} weights + {_bytes(ideal.cache)} cache: the least it takes"
    return [
        ("peak memory", peak, f"of the fresh process{split}"),
        ("ideal memory", _bytes(ideal.weights + ideal.cache), parts),
    ]


def _traffic(traffic: Traffic) -> tuple[str, str, str]:
    text = f"{_bytes(traffic.weights)} weights + {_bytes(traffic.cache)} cache a step at batch 1"
    text += f"; {traffic.share:.0%} of {traffic.ceiling / 1e9:.1f} GB/s, the fastest read here"
    if traffic.fits_cache:
        text += " (they fit the CPU's cache)"
    return "memory traffic", f"{traffic.reached / 1e9:.1f} GB/s", text


def _verified(agreement: Agreement) -> tuple[str, str, str]:
    same = f"{_floor(agreement.identical)}% of {agreement.tokens:,} tokens are the same"
    if agreement.tolerance == EXACT:
        return "verified", "yes", f"{same} when they are drawn again from the prefill graph's logits"
    # What share of tokens rounding changes depends on how flat the distributions are, and says little.
    off = f"{agreement.mean_distance:.1g} of probability on average (limit {agreement.tolerance.mean_distance:g})"
    return "verified", "yes", f"tokens drawn again from the prefill graph's logits are off by {off}; {same}"


def _floor(share: float) -> str:
    """A percentage that is 100 only when nothing is missing."""
    return "100" if share == 1 else f"{int(share * 10000) / 100:.2f}"


def _machine(machine: Machine) -> list[str]:
    cores = "" if machine.physical_cores is None else f", {machine.physical_cores} cores"
    memory = "" if machine.memory is None else f", {_bytes(machine.memory)}"
    versions = f"igpt-onnx {machine.igpt_onnx}, onnxruntime {machine.onnxruntime}, numpy {machine.numpy}"
    return [f"{machine.cpu}{cores}{memory}; {machine.system}", f"{versions}, Python {machine.python}"]


def _pictures(n: int, noun: str = "picture") -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def _bytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"
