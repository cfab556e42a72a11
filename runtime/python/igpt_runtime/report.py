"""The result of a benchmark in words and aligned numbers, for people."""

from igpt_runtime.bench import Result
from igpt_runtime.redraw import Agreement
from igpt_runtime.traffic import Traffic


def as_text(result: Result) -> str:
    """The result for people: lines of a label and what was measured."""
    fresh, prefill, whole, here = result.fresh_process, result.prefill, result.end_to_end, result.machine
    peak = "not known" if fresh.peak_memory is None else f"{fresh.peak_memory / 1e6:,.0f} MB"
    threads = f"{result.threads} thread{'s' * (result.threads > 1)}"
    rows = [
        ("model", f"{result.name}: {result.model}, {result.precision} weights, {result.cache_dtype} cache"),
        ("provider", f"{result.provider}, {threads}"),
        ("load", f"{_time(result.load):>8}, {_time(result.open_to_first_token)} with the first token"),
        ("prefill", f"{_time(prefill.seconds):>8}, {_rate(prefill.tokens_per_second)}, for {prefill.tokens:,} tokens"),
        *(
            (
                f"decode x {steps.rows}",
                f"{_time(steps.median):>8}, {_rate(steps.tokens_per_second)}, p90 {_time(steps.p90)}",
            )
            for steps in result.decode
        ),
        (
            f"half image x {result.n}",
            f"{_time(whole.seconds):>8}, {_rate(whole.tokens_per_second)}, {whole.images_per_minute:,.1f} images/min",
        ),
        (
            "fresh process",
            f"{_time(fresh.start_to_first_token):>8} from its start to the first token, "
            f"{_time(fresh.start_to_pictures)} to {result.n} pictures; peak memory {peak}",
        ),
        ("bandwidth", "not measured on this provider" if result.traffic is None else _bandwidth(result.traffic)),
        ("verified", _verified(result.verification)),
        (
            "versions",
            f"igpt-onnx {here.igpt_onnx or 'not installed'}, onnxruntime {here.onnxruntime}, numpy {here.numpy}, "
            f"Python {here.python}",
        ),
        ("machine", f"{here.cpu}, {here.cores} cores, {here.platform}"),
        ("measured", f"{here.date}, medians of rounds: {result.rounds}"),
    ]
    width = max(len(label) for label, _ in rows) + 2
    return "\n".join(f"{label + ':':{width}}{text}" for label, text in rows)


def _bandwidth(traffic: Traffic) -> str:
    read = (traffic.weight_bytes + traffic.cache_bytes) / 1e6
    held = ", but the processor's cache holds them" if traffic.in_cache else ""
    return (
        f"{traffic.effective / 1e9:,.1f} GB/s in decode x 1, {traffic.share:.0%} of the {traffic.ceiling / 1e9:,.1f} "
        f"GB/s that memory gives; a step reads {read:,.1f} MB{held}"
    )


def _verified(verification: Agreement) -> str:
    text = f"{verification.tokens_equal:,} of {verification.tokens_checked:,} tokens are those of the prefill graph"
    if verification.tokens_equal == verification.tokens_checked:
        return text
    return f"{text} ({verification.tokens_equal / verification.tokens_checked:.2%})" + (
        f", {verification.explained:,} more within rounding" if verification.exact else ""
    )


def _rate(tokens_per_second: float) -> str:
    return f"{tokens_per_second:>9,.0f} tokens/s"


def _time(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{seconds * 1e3:,.3g} ms"
