"""Measures the clients in C, C++ and Rust beside Python: the loop of steps, memory, and the start of igpt-c.

Usage: python tests/bench/clients/measure.py SMALL_INT8 [--rounds N]. SMALL_INT8: a bundle of `make bundles`. All
draw the same pictures, which is checked. Writes results/native.json and the table of docs/benchmarks/native.md.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from native import clients  # noqa: E402
from page_table import BENCHMARKS, with_table  # noqa: E402
from peers import machine  # noqa: E402

from igpt_runtime.bundle.bundle import EMBEDDED_BUNDLES, open_bundle  # noqa: E402

RECORD = HERE.parent / "results" / "native.json"
PAGE = BENCHMARKS / "native.md"
BUILD = clients.BUILD
SYSTEMS = ("Python", "C", "C++", "Rust")
ROWS = (1, 8)  # pictures at once
STARTS = 20  # runs of igpt-c, of which the median counts


@dataclass(frozen=True)
class Run:
    """A process that has ended."""

    seconds: float
    peak: int  # bytes of memory
    output: str


def run(*command: object, **variables: str) -> Run:
    """Run to the end. Raises RuntimeError with what it said if it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=said, env={**os.environ, **variables}
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        said.seek(0), output.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command[0]}: {said.read().strip()[-500:]}")
        return Run(seconds, usage.ru_maxrss * 1024, output.read())


def build() -> dict[str, list[object]]:
    """Compile the loops with optimisation; the command of each system."""
    library = clients.build_c("c-release", "-DCMAKE_BUILD_TYPE=Release")
    main = BUILD / "loop-rs/src/main.rs"
    main.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "loop.rs", main)
    return {
        "Python": [sys.executable, HERE / "loop.py"],
        "C": [clients.compile_c(HERE / "loop.c", BUILD / "loop-c", library, "gcc", "-O3")],
        "C++": [clients.compile_c(HERE / "loop.cpp", BUILD / "loop-cpp", library, "g++", "-O3")],
        "Rust": [clients.build_rust(main, "--release")],
    }


def loops(
    commands: Mapping[str, list[object]],
    bundle: Path,
    rows: int,
    rounds: int,
    repeats: int,
    environment: dict[str, str],
) -> dict[str, Any]:
    """Seconds of each system at a bundle and a number of pictures; in turns, each round in another order."""
    seconds: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    expected = None
    for turn in range(rounds):
        for name in (*SYSTEMS[turn % 4 :], *SYSTEMS[: turn % 4]):
            found = run(*commands[name], bundle, rows, repeats, **environment)
            timed, tokens = (line.split() for line in found.output.splitlines())
            if expected is None:
                expected = tokens
            if tokens != expected:
                raise RuntimeError(f"{name} draws other pictures with {bundle.name} and {rows} rows")
            seconds[name] += [float(value) for value in timed]
    drawn = open_bundle(bundle).manifest.config.n_positions // 2 * rows
    figures = {name: {"seconds": own, "tokens_per_second": drawn / min(own)} for name, own in seconds.items()}
    print(bundle.name, rows, {name: round(row["tokens_per_second"]) for name, row in figures.items()}, flush=True)
    return figures


def main() -> None:
    """Measure, record, write the page's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", type=Path, help="bundle of small in int8")
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    environment = {"IGPT_ORT_LIBRARY": str(clients.LIBRARY)}
    commands = build()
    bundles = {"demo": open_bundle(EMBEDDED_BUNDLES[0]).path, "small, int8": asked.small}
    others = machine.Others()
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "onnxruntime": version("onnxruntime"),
        "loops": [],
    }
    for name, bundle in bundles.items():
        for rows in ROWS:
            figures = loops(commands, bundle, rows, asked.rounds, 5 if name == "demo" else 1, environment)
            record["loops"].append({"bundle": name, "rows": rows, "systems": figures})
    record["memory"] = {
        name: run(*command, asked.small, max(ROWS), 0, **environment).peak for name, command in commands.items()
    }
    picture = next((ROOT / "models").glob("*/examples/*.png"))
    with tempfile.TemporaryDirectory() as place:
        drawn = Path(place) / "drawn.png"
        once = [BUILD / "c-release/igpt-c", "complete", picture, "-o", drawn, "--bundle", bundles["demo"], "-n", 1]
        record["start of igpt-c"] = [run(*once, **environment).seconds for _ in range(STARTS)]
    record["others"] = others.share()
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), "native", table(record)))


def table(record: Mapping[str, Any]) -> str:
    """What the page shows of a record."""
    lines = [f"| tokens/s | {' | '.join(SYSTEMS)} |", "|---|" + "---|" * len(SYSTEMS)]
    for row in record["loops"]:
        speeds = {name: found["tokens_per_second"] for name, found in row["systems"].items()}
        cells = [
            f"{speed:,.0f}" + ("" if name == "Python" else f" ({speed / speeds['Python']:.2f})")
            for name, speed in speeds.items()
        ]
        lines.append(f"| {row['bundle']}, {row['rows']} at once | {' | '.join(cells)} |")
    memory = " | ".join(f"{record['memory'][name] / 1e6:,.0f} MB" for name in SYSTEMS)
    lines.append(f"| peak memory, small in int8, {max(ROWS)} at once | {memory} |")
    chip = record["machine"]
    start = statistics.median(record["start of igpt-c"])
    return "\n".join(lines) + (
        f"\n\n`igpt-c complete` with the demo, one picture, from its start to the written file: {start:.2f} s, the "
        f"median of {len(record['start of igpt-c'])}.\n\n{chip['cpu']}, {chip['cores']} cores, "
        f"{', '.join(chip['instructions'])}; ONNX Runtime {record['onnxruntime']}; {record['date']}."
    )


if __name__ == "__main__":
    main()
