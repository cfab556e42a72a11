"""Measures the sizes of the family: export, bundle, start, speed and memory at each precision, beside transformers.

Usage: python tests/bench/sizes.py WORK [--sizes small medium large xl] [--systems transformers fp32 int8 int4]
[--parts export run]. Checkpoints of random weights and bundles are kept in WORK (50 GB with XL). Adds to
results/sizes.json, checks that logits agree with transformers', and writes the table of docs/benchmarks.
"""

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from compare import FP32_TOLERANCE, TOLERANCES, differences, write_checkpoint  # noqa: E402
from page_table import BENCHMARKS, with_table  # noqa: E402
from peers import machine  # noqa: E402

from igpt_export.checkpoint.config import config_of  # noqa: E402
from igpt_runtime.bench.bandwidth import ideal_memory  # noqa: E402
from igpt_runtime.bench.fresh_process import Where, measure_fresh_process  # noqa: E402
from igpt_runtime.bundle.bundle import open_bundle  # noqa: E402

RESULTS = HERE / "results" / "sizes.json"
PAGE = BENCHMARKS / "sizes.md"
SIZES = ("small", "medium", "large", "xl")
SYSTEMS = ("transformers", "fp32", "int8", "int4")  # transformers first, whose logits the others are compared with
MEASURED = {"xl": ("int4",)}  # in fp32 it is 27 GB, more than the memory there is
COMPLETIONS = {"xl": 1}  # of half a picture, at once; of the others 8
_WORKS = ["prefill", "decode1", "decode8"]
_STAGE = re.compile(r"exporting: ([a-z0-9 ]+)")
_COLUMNS = (
    *("export", "of it tracing", "its memory", "bundle", "start to first token", "prefill", "tokens/s, 1 row"),
    *("8 rows", "8 completions", "images/min", "memory", "over weights and cache", "logits differ by"),
)


@dataclass(frozen=True)
class Run:
    """A process that has ended."""

    seconds: float
    peak: int  # bytes in memory at most, mapped files included
    anonymous: int  # bytes of its own memory at most, seen every 20 ms
    output: str
    said: list[tuple[float, str]]  # lines on stderr, and after how many seconds


def run(command: list[str], cwd: Path = ROOT) -> Run:
    """Run to the end, and watch the memory. Raises RuntimeError with its last line if it fails."""
    begin = time.monotonic()
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, cwd=cwd, stdout=output, stderr=subprocess.PIPE, text=True) as process,
    ):
        most = [0, 0]
        watching = threading.Thread(target=_watch, args=(process.pid, most))
        watching.start()
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append((time.monotonic() - begin, line.rstrip()))
            print(f"    {line.rstrip()}", file=sys.stderr, flush=True)
        process.wait()
        seconds = time.monotonic() - begin
        watching.join()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {said[-1][1] if said else process.returncode}")
        output.seek(0)
        return Run(seconds, *most, output.read(), said)


def _watch(pid: int, most: list[int]) -> None:
    while True:
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            found = [int(status[key].split()[0]) << 10 for key in ("VmHWM", "RssAnon")]
        except (OSError, KeyError):  # it has ended
            return
        most[:] = map(max, most, found)
        time.sleep(0.02)


def stage_seconds(done: Run) -> dict[str, float]:
    """How long each stage of an export took, by what it said when the stage began."""
    begun: dict[str, float] = {}
    for seconds, line in done.said:
        if found := _STAGE.match(line):
            begun.setdefault(found[1].strip(), seconds)
    ends = [*list(begun.values())[1:], done.seconds]
    return {name: end - begin for (name, begin), end in zip(begun.items(), ends, strict=True)}


def copy_seconds(path: Path) -> float:
    """What copying a file on its disk takes."""
    target = path.with_name("copy")
    begin = time.monotonic()
    shutil.copyfile(path, target)
    seconds = time.monotonic() - begin
    target.unlink()
    return seconds


def measured(system: str, model: Path, check: Path, *options: str) -> dict[str, Any]:
    """Works of `peers.measure` in a process of its own, the memory that takes, and the logits written to `check`."""
    command = [sys.executable, "-m", "peers.measure", system, str(model), "--works", *_WORKS, "--check", str(check)]
    done = run([*command, *options], HERE)
    return {"works": json.loads(done.output.splitlines()[-1])["works"], "peak": done.peak, "anonymous": done.anonymous}


def export(precision: str, checkpoint: Path, bundle: Path) -> dict[str, Any]:
    """Export a checkpoint as a user would."""
    command = [sys.executable, "-m", "igpt_export", "--checkpoint", str(checkpoint), "--precision", precision]
    if precision != "fp32":
        command += ["--max-loss-increase", "inf"]  # of random weights
    done = run([*command, "--output", str(bundle), "--force", "--json"])
    return {
        "seconds": done.seconds,
        "stages": stage_seconds(done),
        "peak": done.peak,
        "anonymous": done.anonymous,
        "bundle_bytes": sum(path.stat().st_size for path in bundle.iterdir()),
        "report": {key: value for key, value in json.loads(done.output).items() if key != "output"},
    }


def complete(size: str, bundle: Path) -> dict[str, Any]:
    """Half a picture completed n times in a process of its own, from its start on."""
    opened, n = open_bundle(bundle), COMPLETIONS.get(size, 8)
    fresh = measure_fresh_process(bundle, n, Where("cpu"))
    ideal = ideal_memory(opened, n, opened.manifest.config.n_positions // 2)
    return {
        "n": n,
        "start_seconds": fresh.start_to_first_token,
        "seconds": fresh.start_to_pictures,
        "peak": fresh.peak_memory,
        "anonymous": fresh.anonymous,
        "ideal_memory": ideal.weights + ideal.cache,
    }


def table(record: dict[str, Any]) -> str:
    """The table of docs/benchmarks."""
    order = [f"{size} {system}" for size in SIZES for system in (*SYSTEMS[1:], SYSTEMS[0])]
    lines = [f"| {' | '.join(['', *_COLUMNS])} |", "|---" * (len(_COLUMNS) + 1) + "|"]
    lines += [f"| {' | '.join([name, *_cells(record['rows'][name])])} |" for name in order if name in record["rows"]]
    cpu, date = record["machine"]["cpu"], record["date"]
    facts = [f"Random weights, seed 0; {cpu}, {record['machine']['cores']} cores, {date}."]
    facts += [
        f"{name}: other programs used {row['disturbed']:.0%} of the machine during a part of it."
        for name, row in record["rows"].items()
        if row.get("disturbed")
    ]
    lines += ["", " ".join(facts)]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    """One of each of _COLUMNS; empty where nothing was measured."""
    exported = steps = completed = [""]
    if export := row.get("export"):
        tracing = f"{export['stages']['tracing graphs']:.0f} s"
        exported = [f"{export['seconds']:.0f} s", tracing, _memory(export), _gigabytes(export["bundle_bytes"])]
    if works := row.get("works"):
        rates = [f"{works['decode1']['tokens_per_second']:.1f}", f"{works['decode8']['tokens_per_second']:.0f}"]
        steps = [f"{works['prefill']['seconds']:.2f} s", *rates]
    if done := row.get("completion"):
        count, seconds = done["n"], done["seconds"]
        shown = f"{seconds:.0f} s" if count == 8 else f"{count} in {seconds:.0f} s"
        share = f"{done['anonymous'] / done['ideal_memory']:.2f}"
        completed = [shown, f"{count * 60 / seconds:.1f}", _memory(done), share]
    elif works and not export:  # of transformers, whose completions are extrapolated
        seconds = works["prefill"]["seconds"] + 512 * works["decode8"]["step_seconds"]
        completed = [f"~{seconds:.0f} s", f"~{8 * 60 / seconds:.1f}", _memory(row), ""]
    start = f"{done['start_seconds']:.1f} s" if done else ""
    difference = row.get("difference")
    off = f"{difference['logits']:.0e}" if difference else "reference" if works and not export else ""
    return [*_padded(exported, 4), start, *_padded(steps, 3), *_padded(completed, 4), off]


def _padded(cells: list[str], count: int) -> list[str]:
    return [*cells, *[""] * (count - len(cells))]


def _memory(of: dict[str, Any]) -> str:
    """A process's own memory, and with mapped files."""
    return f"{_gigabytes(of['anonymous'])} ({of['peak'] / 1e9:.2f})"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def measure_row(size: str, system: str, work: Path, parts: Sequence[str], row: dict[str, Any]) -> dict[str, Any]:
    """What is asked for of one row, added to what was measured of it before. Ends the program if logits are wrong."""
    checkpoint, bundle, check = work / size, work / f"{size}-{system}", work / f"{size}-{system}.npz"
    if system == "transformers":
        return measured("transformers", checkpoint, check, "--variant", "eager")
    if "export" in parts:
        row = {**row, "export": export(system, checkpoint, bundle)}
    if "run" in parts:
        row = {**row, "completion": complete(size, bundle)}
        row |= measured("engine", bundle, check, "--shape", str(checkpoint), "--variant", system)
        row["difference"] = differences(check, work / f"{size}-transformers.npz")
        # Random weights' logits, and with them what rounding does, grow with the root of the width.
        tolerance = TOLERANCES.get(system, FP32_TOLERANCE) * (config_of(size).n_embd / config_of("small").n_embd) ** 0.5
        if row["difference"] and not row["difference"]["logits"] <= tolerance:
            sys.exit(f"{size} {system}: logits differ by {row['difference']['logits']:.2g}: its speed means nothing")
    return row


def main() -> None:
    """Measure what is asked for; what was measured before stays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--parts", nargs="*", choices=("export", "run"), default=["export", "run"])
    options = parser.parse_args()
    work = options.work.absolute()
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"copy_seconds": {}, "rows": {}}
    for size in options.sizes:
        checkpoint = work / size
        if not (checkpoint / "model.safetensors").exists():
            write_checkpoint(size, checkpoint)
        record["copy_seconds"][size] = copy_seconds(checkpoint / "model.safetensors")
        for system in [name for name in SYSTEMS if name in options.systems and name in MEASURED.get(size, SYSTEMS)]:
            machine.wait_until_quiet()
            others = machine.Others()
            name = f"{size} {system}"
            before = record["rows"].get(name, {})
            row = measure_row(size, system, work, options.parts, before)
            shares = [others.share(), *([before.get("disturbed") or 0] if len(options.parts) == 1 else [])]
            record["rows"][name] = {**row, "disturbed": max(shares) if max(shares) > machine.QUIET else None}
            record |= {"date": datetime.date.today().isoformat(), "machine": machine.describe()}
            RESULTS.write_text(json.dumps(record, indent=1) + "\n")
            PAGE.write_text(with_table(PAGE.read_text(), "sizes", table(record)))


if __name__ == "__main__":
    main()
