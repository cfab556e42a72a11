"""Stages that tell whether it works, and whether it is right."""

import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
from stage import (
    HERE,
    ROOT,
    Json,
    Stage,
    differences,
    model_inputs,
    placement,
    prefill_logits,
    session_of,
    stepped_logits,
    timed,
    use,
    wait_for,
)

from igpt_runtime import GenerationOptions, classify, features, generate, generate_all, read_image, tokens_of
from igpt_runtime.bench.verification import redraw


def stage_smoke(stage: Stage) -> None:
    """Whether ONNX Runtime's CUDA provider starts and draws, and in which way of running."""
    stage["onnxruntime"] = {
        "version": ort.__version__,
        "file": ort.__file__,
        "available": ort.get_available_providers(),
    }
    for name, config in stage.options["configs"].items():
        use(config)
        with stage.attempt(name):
            session = session_of(stage, "bundles/digits-fp16")
            graph = session.graph("prefill")
            stage[f"{name}: providers of prefill"] = graph.get_providers()
            logits = graph.run(["logits"], {"input_ids": np.arange(64)[None] % 200})[0]
            assert np.isfinite(logits).all(), "prefill gives NaN or infinity"
            primer = np.arange(128) % 200
            seconds, pictures = timed(partial(generate_all, session, primer, GenerationOptions(n=2, seed=1)))
            stage[f"{name}: providers of decode"] = session.graph("decode").get_providers()
            assert ((pictures >= 0) & (pictures < 256)).all() and len(set(pictures[0, 128:])) > 3, "no picture"
            stage[f"{name}: first two completions"] = seconds
            stage["works"] = name
            break
    if "works" not in stage.found:
        stage["diagnosis"] = diagnosis()
    if stage.options["device"] == "cuda":
        for graph in ("prefill", "decode"):
            with stage.attempt(f"placement of {graph}"):
                path = Path(stage.options["kit"]) / "bundles/digits-fp16" / f"{graph}.onnx"
                found = placement(path, capture=graph == "decode")
                stage[f"placement of {graph}"] = {
                    "CPU": found.get("CPU", {}),
                    "CUDA nodes": sum(found.get("CUDA", {}).values()),
                }
        with stage.attempt("captures"):
            stage["captures"] = count_captures(stage)


def diagnosis() -> Json:
    """Which of the libraries that the provider wants can be loaded."""
    found: Json = {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH")}
    for name in (
        "libcuda.so.1",
        "libcudart.so.13",
        "libcublasLt.so.13",
        "libcublas.so.13",
        "libcurand.so.10",
        "libcudnn.so.9",
        "libnvrtc.so.13",
    ):
        try:
            ctypes.CDLL(name)
            found[name] = "loads"
        except OSError as error:
            found[name] = str(error)
    with contextlib.suppress(OSError):
        maps = Path("/proc/self/maps").read_text()
        found["mapped"] = sorted({line.split()[-1] for line in maps.splitlines() if "/lib" in line and "libcu" in line})
    return found


def count_captures(stage: Stage) -> Json:
    """Of 60 steps, of two loops at 2 rows and one at 3: how many times ONNX Runtime logs that it replays a graph."""
    session = session_of(stage, "bundles/digits-fp16")
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        kept = os.dup(2)
        ort.set_default_logger_severity(1)
        os.dup2(file.fileno(), 2)
        try:
            for rows in (2, 2, 3):
                loop = generate(session, np.arange(128) % 200, GenerationOptions(n=rows))
                for _ in range(20):
                    next(loop)
                del loop
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            ort.set_default_logger_severity(2)
        file.seek(0)
        said = file.read()
    return {"replays": said.count("Replaying CUDA graph"), "steps": 60}


def stage_parity(stage: Stage) -> None:
    """fp16 on the GPU against fp32 on the CPU, and the promises of the README, with the model of digits and small."""
    use(stage.options["config"])
    gpu, cpu = session_of(stage, "bundles/digits-fp16"), session_of(stage, "bundles/digits-fp32", "cpu")
    files = sorted((ROOT / "models/digits/examples").glob("*.png"))[:8]
    tokens = np.stack([tokens_of(cpu, read_image(path)) for path in files])
    inputs = np.concatenate([np.full((len(tokens), 1), cpu.manifest.config.sos), tokens[:, :-1]], axis=1).astype(
        np.int64
    )
    exact = prefill_logits(cpu, inputs)
    with stage.attempt("digits prefill"):
        stage["digits prefill"] = differences(prefill_logits(gpu, inputs), exact)
    with stage.attempt("digits steps"):
        stage["digits steps"] = differences(stepped_logits(gpu, inputs), exact)
    half = tokens.shape[1] // 2
    with stage.attempt("greedy"):
        greedy = GenerationOptions(n=1, temperature=0.0)
        pairs = [(generate_all(gpu, row[:half], greedy), generate_all(cpu, row[:half], greedy)) for row in tokens[:4]]
        stage["greedy tokens as on the CPU"] = float(np.mean([(a == b)[:, half:].mean() for a, b in pairs]))
    with stage.attempt("seeds"):
        drawn = [
            (
                generate_all(gpu, tokens[0][:half], GenerationOptions(n=8, seed=seed)),
                generate_all(cpu, tokens[0][:half], GenerationOptions(n=8, seed=seed)),
            )
            for seed in range(4)
        ]
        same = np.concatenate([(a == b)[:, half:] for a, b in drawn])
        stage["same seed as on the CPU"] = {
            "tokens": float(same.mean()),
            "pictures": float(same.all(1).mean()),
            "of": len(same),
        }
        again = generate_all(gpu, tokens[0][:half], GenerationOptions(n=8, seed=0))
        stage["twice the same"] = bool(np.array_equal(again, drawn[0][0]))
        fewer = {n: generate_all(gpu, tokens[0][:half], GenerationOptions(n=n, seed=0)) for n in (1, 3, 32)}
        stage["rows as with n=8"] = {
            n: float((rows[: min(n, 8)] == drawn[0][0][: min(n, 8)]).all(1).mean()) for n, rows in fewer.items()
        }
    with stage.attempt("redraw"):
        agreement = redraw(gpu, [drawn[0][0]], half, GenerationOptions(n=8, seed=0))
        stage["redrawn"] = {
            "identical": agreement.identical,
            "distance": agreement.distance,
            "mean": agreement.mean_distance,
        }
        agreement.check()
    with stage.attempt("classes and features"):
        paths = [str(path) for path in files]
        a, b = (classify(s, paths) for s in (gpu, cpu))
        stage["classes"] = {"largest": float(np.abs(a - b).max()), "same": float((a.argmax(1) == b.argmax(1)).mean())}
        a, b = (features(s, paths) for s in (gpu, cpu))
        stage["features"] = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    with stage.attempt("graph and eager"):
        captured = [generate_all(gpu, tokens[1][:half], GenerationOptions(n=n, seed=n)) for n in (1, 8, 3)]
        use({**stage.options["config"], "graph": False})
        eager = session_of(stage, "bundles/digits-fp16")
        plain = [generate_all(eager, tokens[1][:half], GenerationOptions(n=n, seed=n)) for n in (1, 8, 3)]
        stage["captured as eager"] = [bool(np.array_equal(a, b)) for a, b in zip(captured, plain, strict=True)]
        use(stage.options["config"])
    with stage.attempt("small"):
        wait_for(stage, "small-fp16", "small-fp32")
        gpu, cpu = session_of(stage, "graphs/small-fp16"), session_of(stage, "graphs/small-fp32", "cpu")
        inputs = model_inputs(cpu.manifest.config, 1)
        exact = prefill_logits(cpu, inputs)
        stage["small prefill"] = differences(prefill_logits(gpu, inputs), exact)
        stage["small steps"] = differences(stepped_logits(gpu, inputs), exact)


def stage_tests(stage: Stage) -> None:
    """The project's own tests of GPUs, on bundles of the tiny model made beforehand."""
    environment = {**os.environ, **stage.options["config"].get("env", {}), "KIT": stage.options["kit"]}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/cuda/test_gpu.py",
        "--noconftest",
        "-p",
        "gpu_fixtures",
        "-c",
        os.devnull,
        "--rootdir",
        str(ROOT),
        "-p",
        "no:cacheprovider",
        "-rs",
        "--tb=short",
        "-q",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    stage["rc"], stage["said"] = done.returncode, (done.stdout + done.stderr)[-3000:]
