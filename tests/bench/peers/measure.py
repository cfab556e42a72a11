"""Measures one system in this process: one JSON line on stdout, progress on stderr.

Usage, from tests/bench: PYTHON_OF_ITS_ENVIRONMENT -m peers.measure SYSTEM MODEL [--variant V] [--works ...]
"""

import argparse
import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from peers import workload
from peers.workload import Completion, Shape, System

WORKS = ("prefill", "decode1", "decode8", "complete8", "complete32")


def progress(text: str) -> None:
    """One line for the person who waits."""
    print(f"    {text}", file=sys.stderr, flush=True)


def run_prefill(system: System) -> dict[str, Any]:
    """Median seconds of repeated prefills, after one to warm up."""
    system.prefill()
    timed = [system.prefill() for _ in range(workload.PREFILL_REPEATS)]
    return {"seconds": float(np.median(timed)), "repeats": len(timed)}


def run_decode(system: System, rows: int) -> dict[str, Any]:
    """Tokens a second of the median step."""
    steps = workload.DECODE_STEPS[rows]
    timed = system.decode(rows, steps + workload.WARM_STEPS)[workload.WARM_STEPS :]
    step = float(np.median(timed))
    return {"tokens_per_second": rows / step, "step_seconds": step, "steps": len(timed)}


def run_complete(system: System, shape: Shape, rows: int, in_full: bool) -> dict[str, Any]:
    """Seconds and tokens a second of half an image to `rows` completions; refuses tokens that cannot be right."""
    done: Completion = system.complete(rows, in_full=in_full)
    if done.tokens is not None:
        assert done.tokens.shape == (rows, shape.half), done.tokens.shape
        assert done.tokens.min() >= 0 and done.tokens.max() < shape.n_clusters, "a token out of range"
        assert len(np.unique(done.tokens, axis=0)) == rows, "two completions are the same: nothing was sampled"
    tokens_per_second = rows * shape.half / done.seconds
    result = {"seconds": done.seconds, "tokens_per_second": tokens_per_second, "timed_steps": done.timed_steps}
    return result | {"in_full": done.tokens is not None}


def run(system: System, shape: Shape, work: str, in_full: bool) -> dict[str, Any]:
    """One work by its name."""
    if work == "prefill":
        return run_prefill(system)
    if work.startswith("decode"):
        return run_decode(system, int(work.removeprefix("decode")))
    return run_complete(system, shape, int(work.removeprefix("complete")), in_full)


def save_check(system: System, path: Path) -> None:
    """Write what the driver compares between systems that compute the same function."""
    logits, greedy = system.check()
    np.savez(path, **{k: v for k, v in (("logits", logits), ("greedy", greedy)) if v is not None})


def main() -> None:
    """Load, check, time, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", help="a module of this package")
    parser.add_argument("model", type=Path, help="checkpoint directory; a bundle for the engine")
    parser.add_argument("--shape", type=Path, help="checkpoint directory that says the shape, where MODEL does not")
    parser.add_argument("--variant", default="fp32", help="which of the system's models or modes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--works", nargs="*", choices=WORKS, default=list(WORKS))
    parser.add_argument("--partly", nargs="*", choices=WORKS, default=[], help="completions to time on some steps only")
    parser.add_argument("--check", type=Path, help="write logits and greedy tokens here (.npz)")
    options = parser.parse_args()
    shape = workload.read_shape(options.shape or options.model)
    module = importlib.import_module(f"peers.{options.system}")
    begin = time.perf_counter()
    system = module.load(options.model, shape, options.variant, options.threads)
    record: dict[str, Any] = {"load_seconds": time.perf_counter() - begin, "works": {}}
    progress(f"loaded in {record['load_seconds']:.1f} s; {system.settings}")
    if options.check and not system.proxy:
        save_check(system, options.check)
    for work in options.works:
        result = run(system, shape, work, work not in options.partly)
        record["works"][work] = result
        figures = (("seconds", "s"), ("tokens_per_second", "tokens/s"))
        progress(work + "".join(f"  {result[name]:.2f} {unit}" for name, unit in figures if name in result))
    record |= {"settings": system.settings, "proxy": system.proxy, "versions": module.versions()}
    record["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps(record))


if __name__ == "__main__":
    main()
