"""Turns the record of `record.py` into the table of docs/benchmarks.

Usage: python tests/matrix/report.py. Needs nothing but Python.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from page_table import BENCHMARKS, with_table  # noqa: E402

ROOT = HERE.parents[1]
RECORD = HERE / "record.json"
PAGE = BENCHMARKS / "matrix.md"

FUSED, PORTABLE = "fused", "portable"
LARGE_SEEDS = "tokens with seeds from 2^31 on"
EXACT = {"logits": 1e-3, "nats": 1e-3, "nats_per_token": 1e-4, "features": 1e-4, "probabilities": 1e-4}
# Where a value lies between two steps of an int8 cache, the last bit of a sum decides which one is kept: one kept
# otherwise moves the golden model's logits by up to 5e-3 (a wrong graph by 0.3).
TOLERANCES = {"fp32": EXACT, "int8": {**EXACT, "logits": 2e-2}}
# What messages of runtimes mean.
REASONS = (
    (r"minusOneCount <= 1", "its own GroupQueryAttention takes one row only"),
    (r"Provider type for Cast", "this build of ONNX Runtime has no kernels for float64"),
    (r"CopyKVCache|FlashAttentionDecodeQKV", "its GroupQueryAttention takes no int8 cache"),
    (r"kv_cache_bit_width", "it ignores overloads of functions inside a loop"),
)
Outcome = Mapping[str, float] | str


def runs(outcome: Outcome, precision: str) -> bool:
    """Whether a graph runs and gives what it must; large seeds are another question."""
    if isinstance(outcome, str):
        return False
    return not set(_wrong(outcome, precision)) - {LARGE_SEEDS}


def _wrong(outcome: Mapping[str, float], precision: str) -> dict[str, float]:
    # Not "more than": a NaN is wrong too.
    tolerances = TOLERANCES[precision]
    return {output: value for output, value in outcome.items() if not value <= tolerances.get(output, 0.0)}


def reason(outcome: Outcome, precision: str) -> str:
    """Why a graph does not run, or what it gives instead."""
    if isinstance(outcome, str):
        for pattern, words in REASONS:
            if re.search(pattern, outcome):
                return words
        return f"`{outcome[:120]}`"
    texts = [
        f"{output} off by {value:.1g}" if output in EXACT else f"other {output}"
        for output, value in _wrong(outcome, precision).items()
    ]
    return " and ".join(texts)


class Notes:
    """Footnotes, each once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """The number that leads to a text."""
        if text not in self.texts:
            self.texts.append(text)
        return f"<sup>{self.texts.index(text) + 1}</sup>"


def cell(profiles: Mapping[str, Outcome], precision: str, notes: Notes) -> str:
    """One graph in one runtime."""
    works = [profile for profile in (FUSED, PORTABLE) if runs(profiles[profile], precision)]
    reasons = {profile: reason(profiles[profile], precision) for profile in (FUSED, PORTABLE) if profile not in works}
    if len(reasons) == 2 and len(set(reasons.values())) == 1:
        marks = notes.mark(reasons[FUSED])
    else:
        marks = "".join(notes.mark(f"{profile}: {text}") for profile, text in reasons.items())
    if works and any(profiles[profile].get(LARGE_SEEDS) for profile in works):  # type: ignore[union-attr]
        marks += notes.mark(f"other {LARGE_SEEDS}")
    return {2: "both", 1: works[0] if works else "", 0: "no"}[len(works)] + marks


def difference(row: Mapping[str, Any]) -> str:
    """The largest one of logits, where a graph runs at all."""
    found = [
        outcome["logits"]
        for profiles in row["graphs"].values()
        for outcome in profiles.values()
        if runs(outcome, row["precision"]) and "logits" in outcome
    ]
    return f"{max(found):.0e}" if found else ""


def speed(row: Mapping[str, Any], way: str, notes: Notes) -> str:
    """Tokens a second, where they were timed."""
    if way not in row:
        return ""
    figures = row[way]
    mark = notes.mark("portable profile") if row["profile"] == PORTABLE else ""
    if figures["differing_tokens"]:
        text = f"{figures['differing_tokens']} tokens of the 8 completions differ from ONNX Runtime's in Python"
        mark += notes.mark(f"{text}: there, logits differ by up to {row['logits_differ_by']:.1g}")
    value = figures["tokens_per_second"]
    return f"{value:.0f}{mark}" if value >= 10 else f"{value:.1f}{mark}"


def table(record: Mapping[str, Any]) -> str:
    """The Markdown between the page's markers."""
    rows = record["rows"]
    graphs = list(rows[0]["graphs"])
    notes = Notes()
    lines = [
        "| | "
        + " | ".join(f"`{graph}`" for graph in graphs)
        + " | logits differ by | tokens/s, in steps | in one call |",
        "|---" * (len(graphs) + 4) + "|",
    ]
    for row in rows:
        cells = [f"{row['runtime']} {row['version']}, {row['precision']}"]
        cells += [cell(row["graphs"][graph], row["precision"], notes) for graph in graphs]
        cells += [difference(row), *(speed(row, way, notes) for way in ("steps", "once"))]
        lines.append(f"| {' | '.join(cells)} |")
    cuda = record["cuda"]
    cells = [f"ONNX Runtime {cuda['version']}, CUDA provider, fp16"]
    for graph in graphs:
        counts = cuda["graphs"].get(graph)
        cells.append("" if counts is None else f"{counts['cuda']} of {sum(counts.values())} nodes")
    lines.append(f"| {' | '.join([*cells, '', '', ''])} |")
    machine = record["machine"]
    about = (
        "*both*, *fused*, *portable*: the profiles that give what the golden pack expects; made "
        f"{record['date']} with its tiny model. "
        "Logits: in fp32 against transformers', in int8 (weights and cache) against ONNX Runtime's in Python. "
        "CUDA: nodes of the fused graphs that the provider has kernels for; asked without a GPU, it computed nothing. "
        "WebGPU: on SwiftShader, a GPU that the processor computes, hence no speed; only its decoding is used. "
        "Tokens/s: half a digit of 16x16 pixels completed 8 times, the picture's reading and prefill included; in "
        "steps with this project's loops, in OpenVINO and the evaluator a plain one over `decode`; "
        f"{machine['cpu']}, {machine['cores']} cores."
    )
    return "\n".join([*lines, "", *(f"{i}. {text}" for i, text in enumerate(notes.texts, 1)), "", about])


def clients_table(record: Mapping[str, Any]) -> str:
    """The clients in other languages: which precisions they draw as Python does, by release."""
    releases = list(next(iter(record["clients"].values())))
    lines = [f"| client | {' | '.join(releases)} |", "|---" * (len(releases) + 1) + "|"]
    for language, outcomes in record["clients"].items():
        cells = [
            ", ".join(name if how == "same" else f"{name} {how}" for name, how in outcomes[release].items())
            for release in releases
        ]
        lines.append(f"| {' | '.join([language, *cells])} |")
    return "\n".join(lines)


def write_page(record: Mapping[str, Any]) -> None:
    """Bring the page up to date."""
    page = with_table(PAGE.read_text(), "matrix", table(record))
    PAGE.write_text(with_table(page, "clients", clients_table(record)))


if __name__ == "__main__":
    write_page(json.loads(RECORD.read_text()))
