"""The same work in igpt-run's engine and in its peers: in turns, checked, recorded as JSON.

Every system runs in a fresh process of its own environment (`peers/setup.py` makes them), every round visits all of
them. Usage: python tests/bench/compare.py --bundle fp32=DIR [--bundle int8=DIR ...] [--rounds 2] [--output RECORD]
"""

import argparse
import dataclasses
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from peers import machine  # noqa: E402
from peers.measure import WORKS  # noqa: E402
from peers.systems import Row, engine, everybody_else  # noqa: E402

# On logits, whose standard deviation is 0.45 and whose range is 4: whoever is further off computes something else. By
# variant; the rest has fp32 weights and arithmetic.
FP32_TOLERANCE = 1e-2
TOLERANCES = {"bf16": 0.1, "int8": 0.2, "int4": 1.0}
Record = dict[str, Any]


def write_checkpoint(variant: str, directory: Path) -> None:
    """igpt-export's random weights, seed 0, in Hugging Face layout: what every system is made from."""
    import torch

    from igpt_export.bundle_writer import write_weights
    from igpt_export.checkpoint.checkpoint import RandomTensors, random_checkpoint
    from igpt_export.checkpoint.tensors import ShapedTensors

    class Renamed(ShapedTensors):
        """Under transformers' names."""

        def __getitem__(self, name: str) -> torch.Tensor:
            return checkpoint.tensors[name.removeprefix("transformer.")]

    checkpoint = random_checkpoint(variant, seed=0)
    assert isinstance(checkpoint.tensors, RandomTensors)
    directory.mkdir(parents=True, exist_ok=True)
    shapes = {
        name if name.startswith("lm_head.") else f"transformer.{name}": (torch.float32, shape)
        for name, shape in checkpoint.tensors.shapes.items()
    }
    write_weights(Renamed(shapes), directory, metadata={"format": "pt"})
    (directory / "weights.safetensors").rename(directory / "model.safetensors")
    form = checkpoint.image_format
    size = {"height": form.height, "width": form.width}
    processor = {"clusters": form.clusters.tolist(), "size": size, "resample": form.resample}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor) + "\n")
    fields = {"model_type": "imagegpt", "tie_word_embeddings": False, **dataclasses.asdict(checkpoint.config)}
    (directory / "config.json").write_text(json.dumps(fields, indent=1) + "\n")


def why_not(row: Row, peers: Path) -> str | None:
    """Why a row's environment cannot be used, or None."""
    failed = peers / f"{row.environment}.failed.txt"
    if row.environment and failed.exists():
        return f"cannot be installed: {failed.read_text().strip()}"
    if row.environment and not (peers / row.environment / "installed.txt").exists():
        return "its environment has not been made"
    return None


def run_process(command: list[str], environ: dict[str, str]) -> Record:
    """The JSON record that a measuring process prints last; its progress is passed on as it comes."""
    with tempfile.TemporaryFile("w+") as stdout:
        process = subprocess.Popen(command, env=environ, stdout=stdout, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line.strip())
            if line.startswith("    "):  # its own progress; the rest are libraries' warnings
                print(line, end="", file=sys.stderr, flush=True)
        if process.wait() != 0:
            return {"failed": next((line for line in reversed(said) if line), f"ended with {process.returncode}")}
        stdout.seek(0)
        record: Record = json.loads(stdout.read().splitlines()[-1])
        return record


def measure(row: Row, options: argparse.Namespace, check: Path) -> Record:
    """One system in a process of its own: what it measured, or why there is nothing."""
    reason = why_not(row, options.peers)
    if reason:
        return {"skipped": reason}
    checkpoint = options.peers / "models/checkpoint"
    python = options.peers / row.environment / "bin/python" if row.environment else sys.executable
    command = [python, "-m", "peers.measure", row.module, row.bundle or checkpoint, "--shape", checkpoint]
    command += ["--variant", row.variant, "--threads", options.threads, "--check", check]
    command += ["--works", *options.works, "--partly", *row.partly]
    paths = [HERE] if row.environment else [HERE, ROOT / "runtime/python", ROOT]
    environ = {
        "OMP_NUM_THREADS": str(options.threads),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "TOKENIZERS_PARALLELISM": "false",
        "TORCHINDUCTOR_CACHE_DIR": str(options.peers / "inductor"),
    }
    machine.wait_until_quiet()
    others = machine.Others()
    record = run_process([str(part) for part in command], {**os.environ, **environ, **row.environ})
    share = others.share()
    if share > machine.QUIET:
        print(f"    disturbed: other programs used {share:.0%} of the machine", file=sys.stderr, flush=True)
    return {**record, "others_share": share}


def medians(rounds: list[Record]) -> Record:
    """Every figure's median over the rounds, work by work; a completion is in full if it was so in every round."""
    result: Record = {}
    for work in rounds[0]["works"]:
        figures = [r["works"][work] for r in rounds]
        result[work] = {
            name: all(f[name] for f in figures)
            if isinstance(value, bool)
            else statistics.median(f[name] for f in figures)
            for name, value in figures[0].items()
        }
    return result


def differences(check: Path, reference: Path) -> Record | None:
    """How far a system's logits are from the reference's, and what share of the greedy tokens is the same."""
    if not (check.exists() and reference.exists()):
        return None
    ours, theirs = np.load(reference), np.load(check)
    logits = float(np.abs(theirs["logits"] - ours["logits"]).max())
    return {"logits": logits, "greedy": float((theirs["greedy"] == ours["greedy"]).mean())}


def summarize(row: Row, rounds: list[Record], check: Path, reference: Path) -> Record:
    """One row of the record."""
    result: Record = {"key": row.key, "name": row.name, "variant": row.variant, "precision": row.precision}
    for missing in ("skipped", "failed"):
        reasons = [r[missing] for r in rounds if missing in r]
        if reasons:
            return {**result, missing: reasons[0]}
    first = rounds[0]
    result |= {name: first[name] for name in ("proxy", "settings", "versions")}
    result |= {"environ": row.environ, "difference": differences(check, reference), "medians": medians(rounds)}
    kept = ("works", "load_seconds", "peak_gb", "others_share")
    return {**result, "rounds": [{name: r[name] for name in kept} for r in rounds]}


def refuse_wrong(systems: list[Record]) -> None:
    """End with an error when a system that should compute the same function does not."""
    for system in systems:
        difference = system.get("difference")
        tolerance = TOLERANCES.get(system["variant"], FP32_TOLERANCE)
        if difference and not difference["logits"] <= tolerance:  # NaN is wrong too
            sys.exit(f"{system['key']}: logits differ by {difference['logits']:.2g}: its speed means nothing")


def rows_of(options: argparse.Namespace) -> list[Row]:
    """Our bundles first, then the peers, as far as --only asks for them."""
    ours = [engine(*text.split("=", 1)) for text in options.bundle]
    rows = [*ours, *everybody_else()]
    if not options.only:
        return rows
    unknown = set(options.only) - {row.key for row in rows}
    if unknown:
        sys.exit(f"no such system: {', '.join(sorted(unknown))}; there are {', '.join(row.key for row in rows)}")
    return [row for row in rows if row.key in options.only]


def run_rounds(rows: list[Row], options: argparse.Namespace, checks: Path) -> Iterator[dict[str, list[Record]]]:
    """Visit all systems in every round, every second one backwards, so that no system is always first.

    Yields, after every round, everything measured so far.
    """
    measured: dict[str, list[Record]] = {row.key: [] for row in rows}
    for number in range(options.rounds):
        for index, row in enumerate(rows if number % 2 == 0 else reversed(rows), start=1):
            label = f"round {number + 1}/{options.rounds}, {index}/{len(rows)}: {row.key}"
            print(label, file=sys.stderr, flush=True)
            result = measure(row, options, checks / f"{row.key}.npz")
            for missing in ("skipped", "failed"):
                if missing in result:
                    print(f"    {missing}: {result[missing]}", file=sys.stderr, flush=True)
            measured[row.key].append(result)
        yield measured


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", action="append", default=[], metavar="PRECISION=DIR", help="ours; repeatable")
    parser.add_argument("--variant", default="small", help="of igpt-export's random weights; the bundles' too")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--only", nargs="+", metavar="KEY", help="these systems only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", type=Path, default=ROOT / "build/peers", help="environments and converted models")
    parser.add_argument("--output", type=Path, default=HERE / "results/peers.json")
    return parser.parse_args()


def main() -> None:
    """Measure, check, record."""
    options = parse()
    options.peers = options.peers.absolute()
    rows = rows_of(options)
    if not (options.peers / "models/checkpoint/config.json").exists():
        write_checkpoint(options.variant, options.peers / "models/checkpoint")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        reference = Path(directory) / f"{rows[0].key}.npz"
        for measured in run_rounds(rows, options, Path(directory)):
            systems = [summarize(row, measured[row.key], Path(directory) / f"{row.key}.npz", reference) for row in rows]
            record = {
                "date": datetime.date.today().isoformat(),
                "machine": machine.describe(),
                "threads": options.threads,
                "model": f"{options.variant}, random weights, seed 0",
                "reference": rows[0].key,
                "minutes": round((time.monotonic() - begin) / 60, 1),
                "systems": systems,
            }
            options.output.write_text(json.dumps(record, indent=1) + "\n")
    print(options.output)
    refuse_wrong(systems)


if __name__ == "__main__":
    main()
