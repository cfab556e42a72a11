"""Measures the sizes of the family: export, bundle, start, speed and memory at each precision, beside transformers.

Usage: python tests/bench/sizes.py WORK [--sizes small medium large xl] [--precisions fp32 int8 int4]. Checkpoints of
random weights and bundles are kept in WORK. Adds to results/sizes.json and writes the README's table from it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from compare import write_checkpoint  # noqa: E402
from readme_table import with_table  # noqa: E402

RESULTS = HERE / "results" / "sizes.json"
README = ROOT / "README.md"
SIZES = ("small", "medium", "large", "xl")
PRECISIONS = ("fp32", "int8", "int4")
EXPORTED = {"xl": ("int4",)}  # in fp32 it is 27 GB
COMPARED = ("small", "medium", "large")  # by transformers, whose XL does not fit memory
COLUMNS = (
    *("export", "its memory", "bundle", "start to first token", "prefill", "tokens/s, 1 row", "8 rows", "images/min"),
    "memory",
)
_WORKS = ["prefill", "decode1", "decode8"]
_FIRST_TOKEN = """
import sys
from igpt_runtime import GenerationOptions, generate, open_session
import numpy as np
session = open_session(sys.argv[1])
next(generate(session, np.arange(session.manifest.config.n_positions // 2) % 512, GenerationOptions(n=1)))
"""


@dataclass(frozen=True)
class Run:
    """A process that has ended."""

    seconds: float
    peak: int  # bytes in memory at most, mapped files included
    anonymous: int  # bytes of its own memory at most, seen every 20 ms
    output: str


def run(command: list[str], cwd: Path = ROOT) -> Run:
    """Run to the end, and watch the memory. Raises RuntimeError with its last line if it fails."""
    begin = time.monotonic()
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        most = [0, 0]
        watching = threading.Thread(target=_watch, args=(process.pid, most))
        watching.start()
        output, errors = process.communicate()
        watching.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(errors.splitlines() or ['failed'])[-1]}")
    return Run(time.monotonic() - begin, *most, output)


def _watch(pid: int, most: list[int]) -> None:
    while True:
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            found = [int(status[key].split()[0]) << 10 for key in ("VmHWM", "RssAnon")]
        except (OSError, KeyError):  # it has ended
            return
        most[:] = map(max, most, found)
        time.sleep(0.02)


def copy_seconds(path: Path) -> float:
    """What copying a file on its disk takes, until it is there."""
    target = path.with_name("copy")
    begin = time.monotonic()
    shutil.copyfile(path, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    seconds = time.monotonic() - begin
    target.unlink()
    return seconds


def measured(system: str, model: Path, *options: str) -> dict[str, Any]:
    """Works of `peers.measure` in a process of its own, and the memory that takes."""
    command = [sys.executable, "-m", "peers.measure", system, str(model), "--works", *_WORKS, *options]
    done = run(command, HERE)
    works: dict[str, Any] = json.loads(done.output.splitlines()[-1])["works"]
    seconds = works["prefill"]["seconds"] + 512 * works["decode8"]["step_seconds"]
    return {
        "prefill_seconds": works["prefill"]["seconds"],
        "tokens_per_second_1": works["decode1"]["tokens_per_second"],
        "tokens_per_second_8": works["decode8"]["tokens_per_second"],
        "images_per_minute": 8 * 60 / seconds,  # extrapolated from these
        "peak": done.peak,
        "anonymous": done.anonymous,
    }


def measure_bundle(size: str, precision: str, checkpoint: Path, work: Path) -> dict[str, Any]:
    """Export a checkpoint, and run the bundle."""
    bundle = work / f"{size}-{precision}"
    command = ["-m", "igpt_export.cli", "--checkpoint", str(checkpoint), "--precision", precision]
    if precision != "fp32":
        command += ["--max-loss-increase", "inf"]  # of random weights
    done = run([sys.executable, *command, "--output", str(bundle), "--force"])
    start = run([sys.executable, "-c", _FIRST_TOKEN, str(bundle)])
    return {
        "export_seconds": done.seconds,
        "export_peak": done.peak,
        "export_anonymous": done.anonymous,
        "bundle_bytes": sum(path.stat().st_size for path in bundle.iterdir()),
        "start_seconds": start.seconds,
        **measured("engine", bundle, "--shape", str(checkpoint), "--variant", precision),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The README's table."""
    lines = [f"| {' | '.join(['', *COLUMNS])} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in rows:
        export = ["", "", ""]
        if "export_seconds" in row:
            peak = f"{row['export_anonymous'] / 1e9:.2f} GB ({row['export_peak'] / 1e9:.2f})"
            export = [f"{row['export_seconds']:.0f} s", peak, f"{row['bundle_bytes'] / 1e9:.2f} GB"]
        start = f"{row['start_seconds']:.1f} s" if "start_seconds" in row else ""
        speed = [
            f"{row['prefill_seconds']:.2f} s",
            f"{row['tokens_per_second_1']:.1f}",
            f"{row['tokens_per_second_8']:.0f}",
        ]
        memory = f"{row['anonymous'] / 1e9:.2f} GB ({row['peak'] / 1e9:.2f})"
        cells = [row["name"], *export, start, *speed, f"~{row['images_per_minute']:.1f}", memory]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is asked for; what was measured before stays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument(
        "--precisions", nargs="*", choices=[*PRECISIONS, "transformers"], default=[*PRECISIONS, "transformers"]
    )
    options = parser.parse_args()
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"copy_seconds": {}, "rows": {}}
    for size in options.sizes:
        checkpoint = options.work / size
        if not (checkpoint / "model.safetensors").exists():
            write_checkpoint(size, checkpoint)
        record["copy_seconds"][size] = copy_seconds(checkpoint / "model.safetensors")
        for precision in options.precisions:
            name = f"{size} {precision}"
            if precision == "transformers":
                if size not in COMPARED:
                    continue
                row = measured("transformers", checkpoint, "--variant", "eager")
            elif precision in EXPORTED.get(size, PRECISIONS):
                row = measure_bundle(size, precision, checkpoint, options.work)
            else:
                continue
            record["rows"][name] = {"name": name, **row}
            print(json.dumps(record["rows"][name]), flush=True)
            RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    order = [f"{size} {precision}" for size in SIZES for precision in (*PRECISIONS, "transformers")]
    rows = [record["rows"][name] for name in order if name in record["rows"]]
    README.write_text(with_table(README.read_text(), "sizes", table(rows)))


if __name__ == "__main__":
    main()
