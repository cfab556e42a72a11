"""Turns the record of `compare.py` into the table of docs/benchmarks and a plot.

Usage: python tests/bench/report.py [--record RECORD] [--page PAGE] [--plot PNG] [--check]
The plot needs matplotlib (environment `plot` of peers/setup.py); without --plot nothing but Python is needed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from page_table import BENCHMARKS, with_table  # noqa: E402

ROOT = HERE.parent.parent
OURS = "igpt-run"
COLUMNS = (
    ("8 completions", "complete8"),
    ("32 completions", "complete32"),
    ("decode, 1 row", "decode1"),
    ("8 rows", "decode8"),
    ("prefill", "prefill"),
)
Record = dict[str, Any]


def measured(record: Record) -> list[Record]:
    """The systems that have figures."""
    return [system for system in record["systems"] if "medians" in system]


def cell(system: Record, work: str) -> str:
    """One figure: seconds of a prefill, tokens a second of the rest, and seconds too of a completion."""
    figures = system["medians"].get(work)
    if figures is None:
        return ""
    if work == "prefill":
        return f"{figures['seconds']:.2f} s"
    speed = f"{figures['tokens_per_second']:.0f}"
    if work.startswith("decode"):
        return speed
    about = "" if figures["in_full"] else "~"
    return f"{about}{figures['seconds']:.1f} s ({about}{speed})"


def difference(system: Record, reference: str) -> str:
    """How far the logits are from the reference's."""
    if system["proxy"]:
        return "proxy"
    if system["key"] == reference:
        return "reference"
    if not system.get("difference"):
        return ""
    return f"{system['difference']['logits']:.0e}"


def label(system: Record) -> str:
    """A row's name; ours is set off."""
    text = f"{system['name']} {system['variant']}"
    return f"**{text}**" if system["name"] == OURS else text


def table(record: Record) -> str:
    """The Markdown between the page's markers."""
    heads = ["", *(head for head, _ in COLUMNS), "difference"]
    lines = [f"| {' | '.join(heads)} |".replace("|  |", "| |"), "|" + "---|" * len(heads)]
    for system in measured(record):
        cells = [label(system), *(cell(system, work) for _, work in COLUMNS), difference(system, record["reference"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", notes(record)])


def notes(record: Record) -> str:
    """What a reader needs to judge the table."""
    machine = record["machine"]
    systems = measured(record)
    versions = {f"{name} {value}" for system in systems for name, value in system["versions"].items()}
    rounds = max((len(system["rounds"]) for system in systems), default=0)
    instructions = ", ".join(machine["instructions"])
    turns = "one round" if rounds == 1 else f"medians of {rounds} rounds"
    parts = [
        f"{record['model']}; {machine['cpu']}, {record['threads']} threads ({instructions}), {record['date']};",
        f"{turns} in turns. Tokens/s unless a unit is given, in brackets for completions.",
        "Difference: largest one between a system's logits and the reference's.",
    ]
    if any(system["proxy"] for system in systems):
        parts.append("Proxy: another function of the same shape and cost.")
    if any(not figures.get("in_full", True) for system in systems for figures in system["medians"].values()):
        parts.append("`~`: extrapolated from steps at evenly spread positions.")
    for system in record["systems"]:
        for missing in ("skipped", "failed"):
            if missing in system:
                parts.append(f"{system['name']} {system['variant']} {missing}: {system[missing]}.")
    parts.append("Versions: " + ", ".join(sorted(versions)) + ".")
    return "\n".join(parts)


def draw(record: Record, path: Path) -> None:
    """Bars of tokens a second, 8 and 32 completions of half an image, fastest first."""
    # Without the version of matplotlib, the same record gives the same file.
    chart(record).savefig(path, dpi=150, metadata={"Software": None})


def chart(record: Record) -> Any:
    """The matplotlib figure that `draw` writes."""
    from matplotlib.figure import Figure

    works = (("complete8", "8 completions"), ("complete32", "32 completions"))
    systems = measured(record)
    figure = Figure(figsize=(9.6, 0.3 * len(systems) + 2.4), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    for axis, (work, title) in zip(figure.subplots(1, 2), works, strict=True):
        speeds = [(s["medians"][work]["tokens_per_second"], s) for s in systems if work in s["medians"]]
        speeds.sort(key=lambda pair: pair[0])
        names = [f"{s['name']} {s['variant']}" + (" (proxy)" if s["proxy"] else "") for _, s in speeds]
        colors = ["#d55e00" if s["name"] == OURS else "#9aa5b1" for _, s in speeds]
        bars = axis.barh(names, [speed for speed, _ in speeds], color=colors)
        texts = [("" if s["medians"][work]["in_full"] else "~") + f"{speed:.0f}" for speed, s in speeds]
        axis.bar_label(bars, texts, padding=3, fontsize=9)
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("tokens per second (more is better)", fontsize=10)
        axis.margins(x=0.14, y=0.02)
        axis.tick_params(labelsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Completing half an image: speed of {OURS} and of other runtimes", fontsize=13)
    figure.supxlabel(_circumstances(record), fontsize=9)
    return figure


def _circumstances(record: Record) -> str:
    """The lines below the chart: model, machine, date, and what its marks mean."""
    machine, systems = record["machine"], measured(record)
    instructions = ", ".join(machine["instructions"])
    lines = [
        f"Model: ImageGPT {record['model']}. Measured: {record['date']}.",
        f"CPU: {machine['cpu']}, {record['threads']} threads ({instructions}).",
    ]
    marks = []
    if any(system["proxy"] for system in systems):
        marks.append("Proxy: another function of the same shape and cost.")
    if any(not figures.get("in_full", True) for system in systems for figures in system["medians"].values()):
        marks.append("~: extrapolated from some of the steps.")
    return "\n".join([*lines, *([" ".join(marks)] if marks else [])])


def main() -> None:
    """Write, or with --check only compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, default=HERE / "results/peers.json")
    parser.add_argument("--page", type=Path, default=BENCHMARKS / "peers.md")
    parser.add_argument("--plot", type=Path, help="also draw this PNG")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    options = parser.parse_args()
    record = json.loads(options.record.read_text())
    text = options.page.read_text()
    updated = with_table(text, "peers", table(record))
    if options.check:
        sys.exit(None if text == updated else f"{options.page} does not show {options.record}")
    options.page.write_text(updated)
    if options.plot:
        draw(record, options.plot)


if __name__ == "__main__":
    main()
