"""What the stages have in common: where they put what they find, and how they run the project's own code."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from short import short

import igpt_runtime.engine.device
import igpt_runtime.engine.generate
import igpt_runtime.engine.session
from igpt_runtime import open_session
from igpt_runtime.engine import kv_cache
from igpt_runtime.engine.generate import DecodeStep, GenerationOptions, start_cache

HERE = Path(__file__).resolve().parent
ROOT = Path.cwd()
Json = dict[str, Any]

HALF_SEED = 0  # of the half picture that is completed
# Variables that ONNX Runtime reads when kernels are made, and what they are unless a way of running says otherwise.
_VARIABLES = {
    "ORT_ENABLE_XQA": "0",
    "ORT_ENABLE_CUDNN_FLASH_ATTENTION": None,
    "ORT_CUDA_GEMM_AUTO_TUNE": None,
    "ORT_CUDA_GEMM_GRAPH_REPLAY_TUNING": None,
}


class Stage:
    """Where a stage puts what it finds."""

    def __init__(self, path: Path, options: Json) -> None:
        self.path, self.options, self.found = path, options, {}
        self.begin = time.perf_counter()

    def __setitem__(self, name: str, value: Any) -> None:
        self.found[name] = value
        self.save()
        print(f"  [{time.perf_counter() - self.begin:6.1f} s] {name}: {short(value)}", flush=True)

    def save(self) -> None:
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.found, default=str))
        partial.rename(self.path)

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """What fails here is noted, and the stage goes on."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self[f"{name} FAILED"] = f"{type(error).__name__}: {str(error)[:600]}"


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = run()
    return time.perf_counter() - begin, result


def use(config: Json) -> None:
    """Have sessions that are opened from now on run like this."""
    for name, value in {**_VARIABLES, **config.get("env", {})}.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    original = igpt_runtime.engine.device.with_options  # session's own name for it is what is changed

    def changed(providers: Any, manifest: Any, *, decodes: bool) -> Any:
        result = original(providers, manifest, decodes=decodes)
        for entry in result:
            if isinstance(entry, tuple):
                entry[1].update(config.get("options", {}))
                if not config.get("graph", True):
                    entry[1]["enable_cuda_graph"] = "0"
                if not config.get("strict", True):
                    entry[1]["enable_skip_layer_norm_strict_mode"] = "0"
        return result

    igpt_runtime.engine.session.with_options = changed
    igpt_runtime.engine.generate.alike_cache = kv_cache.new_cache if config.get("host_cache") else kv_cache.alike_cache


def session_of(stage: Stage, bundle: str, device: str | None = None) -> Any:
    return open_session(Path(stage.options["kit"]) / bundle, device=device or stage.options["device"])


def gpu_memory() -> float | None:
    """GB in use on the card, by whatever tells."""
    with contextlib.suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used / 1e9
    with contextlib.suppress(Exception):
        said = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True
        )
        return float(said.stdout.split()[0]) * 1.048576e-3
    return None


def torch_device(stage: Stage) -> str:
    return "cuda" if stage.options["device"] == "cuda" else "cpu"


def wait_for(stage: Stage, *bundles: str) -> None:
    """Until `models.py`, which runs beside, has made the weights."""
    sys.path.insert(0, str(HERE))
    from models import ready

    begin = time.perf_counter()
    for bundle in bundles:
        path = Path(stage.options["kit"]) / "graphs" / bundle
        while not ready(path):
            if (path / "failed").exists() or time.perf_counter() - begin > 75:
                raise RuntimeError(f"no weights of {bundle}; see the end of the log")
            time.sleep(0.2)
    if (waited := time.perf_counter() - begin) > 1:
        stage["waited for weights"] = waited


def model_inputs(config: Any, rows: int) -> Any:
    """sos and random tokens, int64 [rows, n_positions]."""
    tokens = np.random.default_rng(5).integers(0, config.n_clusters, (rows, config.n_positions))
    tokens[:, 0] = config.sos
    return tokens


def differences(found: Any, exact: Any) -> Json:
    """Of logits [..., n_clusters]."""
    found, exact = np.asarray(found, np.float64), np.asarray(exact, np.float64)

    def log_softmax(x: Any) -> Any:
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    ours, theirs = log_softmax(found), log_softmax(exact)
    return {
        "finite": bool(np.isfinite(found).all()),
        "largest": float(np.abs(found - exact).max()),
        "relative": float(np.linalg.norm(found - exact) / np.linalg.norm(exact)),
        "kl": float((np.exp(theirs) * (theirs - ours)).sum(-1).mean()),
        "top1": float((found.argmax(-1) == exact.argmax(-1)).mean()),
        "positions": int(np.prod(found.shape[:-1])),
    }


def stepped_logits(session: Any, inputs: Any) -> Any:
    """Logits of the decode graph at every position of rows of inputs [rows, length], fed one token at a time."""
    rows = len(inputs)
    step = DecodeStep(session, start_cache(session, [], rows), GenerationOptions(), with_logits=True)
    found = []
    for position in range(inputs.shape[1]):
        step(np.ascontiguousarray(inputs[:, position : position + 1]), position, np.zeros(rows, np.float32))
        found.append(step.logits().copy())
    return np.stack(found, axis=1)


def prefill_logits(session: Any, inputs: Any) -> Any:
    graph = session.graph("prefill")
    return np.concatenate([graph.run(["logits"], {"input_ids": row[None]})[0] for row in inputs])


def cache_bytes(config: Any, rows: int) -> int:
    return 2 * config.n_layer * config.n_embd * config.n_positions * rows * 2


def weights_read(config: Any) -> int:
    """Bytes of the matrices that a step reads: all but the embeddings, of which it reads a row."""
    return 2 * (config.n_layer * 12 * config.n_embd**2 + config.n_embd * config.n_clusters)


def steps_at(session: Any, rows: int, count: int) -> Json:
    """Steps of some rows from three quarters down."""
    config = session.manifest.config
    begin = time.perf_counter()
    cache = start_cache(session, [], rows)
    made = time.perf_counter() - begin
    step = DecodeStep(session, cache, GenerationOptions())
    bound = time.perf_counter() - begin - made
    tokens = np.full((rows, 1), 3, np.int64)
    uniform = np.random.default_rng(0).random(rows, np.float32)
    start = config.n_positions * 3 // 4 - count // 2
    times = []
    for position in range(start - 8, start + count):
        seconds, tokens = timed(lambda: step(tokens, position, uniform))  # noqa: B023
        times.append(seconds)
    median = statistics.median(times[8:])
    read = weights_read(config) + cache_bytes(config, rows) * 3 // 4
    return {
        "step_ms": 1e3 * median,
        "p90_ms": 1e3 * sorted(times[8:])[int(0.9 * count)],
        "tokens_per_second": rows / median,
        "first_step_s": times[0],
        "cache_made_s": made,
        "cache_bound_s": bound,
        "bytes_read": read,
        "gb_per_second": read / median / 1e9,
        "gpu_gb": gpu_memory(),
    }


def placement(path: Path, capture: bool) -> Json:
    """How many nodes of each operator the providers have."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = [("CUDAExecutionProvider", {"enable_cuda_graph": str(int(capture))}), "CPUExecutionProvider"]
    session = ort.InferenceSession(path, options, providers=providers)
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return {name.removesuffix("ExecutionProvider"): dict(counts.most_common()) for name, counts in found.items()}
