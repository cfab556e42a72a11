"""Stages that time the project's own code."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from stage import (
    HALF_SEED,
    Json,
    Stage,
    cache_bytes,
    gpu_memory,
    model_inputs,
    prefill_logits,
    session_of,
    stepped_logits,
    steps_at,
    timed,
    use,
    wait_for,
)

from igpt_runtime import GenerationOptions, generate, generate_all
from igpt_runtime.bundle import graph_io
from igpt_runtime.engine.generate import prefill
from igpt_runtime.engine.memory import free_gpu_memory
from igpt_runtime.tasks import features as task

VARIANTS: dict[str, Json] = {
    "as it is": {},
    "no CUDA graph": {"graph": False},
    "XQA": {"env": {"ORT_ENABLE_XQA": "1"}},
    "flash attention": {"env": {"ORT_ENABLE_XQA": "0", "ORT_ENABLE_CUDNN_FLASH_ATTENTION": "0"}},
    "norm not strict": {"strict": False},
    "gemms tuned": {"env": {"ORT_CUDA_GEMM_AUTO_TUNE": "1"}},
    "gemms tuned, also in CUDA graphs": {
        "env": {"ORT_CUDA_GEMM_AUTO_TUNE": "1", "ORT_CUDA_GEMM_GRAPH_REPLAY_TUNING": "1"}
    },
}


LARGEST_CACHE = 24e9  # bytes; more rows than that are not tried


def stage_speed(stage: Stage, size: str) -> None:
    """Prefill, steps and whole completions of a size."""
    wait_for(stage, f"{size}-fp16")
    use(stage.options["config"])
    stage["gpu_gb before"] = gpu_memory()
    for path in Path(stage.options["work"]).glob(f"ort-{size}-*.npy"):
        path.unlink()  # of an earlier run
    session = session_of(stage, f"graphs/{size}-fp16")
    config = session.manifest.config
    half = np.random.default_rng(HALF_SEED).integers(0, config.n_clusters, config.n_positions // 2)
    with stage.attempt("prefill"):
        runs = [timed(lambda: prefill(session, half))[0] for _ in range(3)]
        stage["prefill with the graph's opening"] = runs
    with stage.attempt("open"):
        begin = time.perf_counter()
        session.graph("decode")
        stage["opening decode"] = time.perf_counter() - begin
        next(generate(session, half, GenerationOptions(n=1)))
    for rows in stage.options["rows"]:
        if cache_bytes(config, rows) > LARGEST_CACHE:
            rows //= 2
            if cache_bytes(config, rows) > LARGEST_CACHE:
                continue
        with stage.attempt(f"steps of {rows}"):
            stage[f"steps of {rows}"] = steps_at(session, rows, stage.options["steps"])
    for n in stage.options["completions"]:
        with stage.attempt(f"completions of {n}"):
            stage[f"completions of {n}, first"] = completion(session, n)
            stage[f"completions of {n}"] = completion(session, n)
    with stage.attempt("warm prefill"):
        graph = session.graph("prefill")
        wanted = [output.name for output in graph.get_outputs() if output.name.startswith("present")]
        inputs = np.concatenate([[config.sos], half])[None].astype(np.int64)
        runs = [timed(lambda: graph.run(wanted, {"input_ids": inputs}))[0] for _ in range(6)]
        stage["prefill of 513, graph open, cache to the host"] = {
            "first": runs[0],
            "median": statistics.median(runs[1:]),
        }
        runs = [timed(lambda: graph.run(["logits"], {"input_ids": inputs}))[0] for _ in range(6)]
        stage["prefill of 513, graph open, logits only"] = {"first": runs[0], "median": statistics.median(runs[1:])}
    with stage.attempt("logits"):
        inputs = model_inputs(config, 1)
        np.save(Path(stage.options["work"]) / f"ort-{size}-prefill.npy", prefill_logits(session, inputs))
        np.save(
            Path(stage.options["work"]) / f"ort-{size}-steps.npy",
            stepped_logits(session, inputs[:, : stage.options["stepped"]]),
        )
        stage["logits saved"] = True
    stage["gpu_gb at the end"] = gpu_memory()


def completion(session: Any, n: int) -> Json:
    """Half a picture completed n times, from tokens to tokens."""
    config = session.manifest.config
    half = config.n_positions // 2
    primer = np.random.default_rng(HALF_SEED).integers(0, config.n_clusters, half)
    ticks = [time.perf_counter()]
    pictures = generate_all(
        session, primer, GenerationOptions(n=n, seed=0), lambda _: ticks.append(time.perf_counter())
    )
    seconds = time.perf_counter() - ticks[0]
    assert len(np.unique(pictures, axis=0)) == n, "two completions are the same"
    steps = [b - a for a, b in pairwise(ticks[1:])]
    return {
        "seconds": seconds,
        "tokens_per_second": n * half / seconds,
        "to_first_token_s": ticks[1] - ticks[0],
        "step_ms": 1e3 * statistics.median(steps),
    }


def stage_features(stage: Stage, size: str) -> None:
    """Pictures a second: the graph alone, of all layers and of one, and from pictures in memory to features."""
    wait_for(stage, f"{size}-fp16")
    use(stage.options["config"])
    session = session_of(stage, f"graphs/{size}-fp16")
    config = session.manifest.config
    generator = np.random.default_rng(4)
    for layers in (None, [config.n_layer // 2]):
        kept = task.checked_layers(session.manifest, layers)
        label = "all layers" if layers is None else f"layer {layers[0]}"
        with (
            stage.attempt(label),
            session.part(graph_io.PREFILL, [graph_io.FEATURES], {graph_io.FEATURES: kept}) as graph,
        ):
            for rows in stage.options["feature_rows"]:
                tokens = generator.integers(0, config.n_clusters, (rows, config.n_positions))
                runs = [
                    timed(partial(graph.run, [graph_io.FEATURES], {graph_io.INPUT_IDS: tokens}))[0] for _ in range(7)
                ]
                stage[f"{label}: {rows} at once, images/s"] = rows / statistics.median(runs[2:])
    with stage.attempt("as users call it"):
        count = 8 * stage.options["feature_rows"][-1]
        pictures = [Image.fromarray(array) for array in generator.integers(0, 256, (count, 32, 32, 3), np.uint8)]
        for batch in stage.options["feature_rows"][1:]:
            task._GPU_BATCH = batch
            seconds, _ = timed(lambda: task.features(session, pictures, layers=[config.n_layer // 2]))
            stage[f"features() of {count} pictures, {batch} at once, images/s"] = count / seconds
        seconds, _ = timed(lambda: [task.tokens_of(session, picture) for picture in pictures])
        stage["tokens of pictures, images/s"] = count / seconds


def stage_memory(stage: Stage, size: str) -> None:
    """As many rows as are decoded at once when more are asked for than fit."""
    wait_for(stage, f"{size}-fp16")
    use(stage.options["config"])
    session = session_of(stage, f"graphs/{size}-fp16")
    config = session.manifest.config
    primer = np.random.default_rng(HALF_SEED).integers(0, config.n_clusters, config.n_positions // 2)
    for name in ("first", "again"):
        with stage.attempt(name):
            rows: list[int] = []
            begin = time.perf_counter()
            with contextlib.suppress(_Enough):
                generate_all(session, primer, GenerationOptions(n=1000), partial(_stop, rows))
            seconds = time.perf_counter() - begin
            stage[name] = {"rows": rows[0], "free": free_gpu_memory(), "gpu_gb": gpu_memory(), "seconds": seconds}


class _Enough(Exception):
    """Ends a request."""


def _stop(rows: list[int], count: int) -> None:
    rows.append(count)
    if len(rows) == 4:
        raise _Enough


def stage_variants(stage: Stage, size: str) -> None:
    """The same steps run in other ways."""
    wait_for(stage, f"{size}-fp16")
    for name, config in VARIANTS.items():
        with stage.attempt(name):
            use(config)
            session = session_of(stage, f"graphs/{size}-fp16")
            stage[name] = {rows: steps_at(session, rows, 32)["step_ms"] for rows in (1, 8, 32)}
            del session


def stage_bench(stage: Stage, size: str) -> None:
    """`igpt-run bench` itself."""
    wait_for(stage, f"{size}-fp16")
    command = [
        sys.executable,
        "-c",
        "from igpt_runtime.cli import main; main()",
        "bench",
        "--model",
        str(Path(stage.options["kit"]) / f"graphs/{size}-fp16"),
        "--device",
        stage.options["device"],
        "-n",
        "8",
        "--rounds",
        "1",
        "--json",
    ]
    done = subprocess.run(
        command, env={**os.environ, **stage.options["config"].get("env", {})}, capture_output=True, text=True
    )
    stage["rc"] = done.returncode
    stage["said"] = json.loads(done.stdout) if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]
