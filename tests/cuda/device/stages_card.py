"""The stage that tells what card it is. Only it and the peers import torch, which loads CUDA's libraries itself."""

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from stage import Stage


def stage_env(stage: Stage) -> None:
    """The card, its two ceilings, and the versions that count."""
    with stage.attempt("nvidia-smi"):
        fields = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.mem,power.limit"
        said = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], capture_output=True, text=True
        )
        stage["nvidia-smi"] = said.stdout.strip() or said.stderr[-300:]
    stage["versions"] = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cpus": os.cpu_count(),
    }
    with stage.attempt("packages"):
        names = (
            "transformers",
            "onnx",
            "onnx-ir",
            "onnxscript",
            "safetensors",
            "numpy",
            "nvidia-cublas",
            "nvidia-cudnn-cu13",
            "nvidia-cuda-runtime",
            "nvidia-curand",
            "onnxruntime",
        )
        stage["packages"] = {name: _version_of(name) for name in names}
    if not torch.cuda.is_available():
        stage["cuda"] = "torch sees no GPU"
        return
    stage["card"] = torch.cuda.get_device_name(0)
    with stage.attempt("ceilings"):
        stage["copy_gb_per_second"], stage["read_gb_per_second"] = _bandwidth()
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
        stage["fp16_tflops"] = 2 * 8192**3 / _cuda_time(lambda: a @ b) / 1e12


def _bandwidth() -> tuple[float, float]:
    """GB per second of copying, counted twice, and of reading."""
    x = torch.randint(0, 100, (1 << 30,), dtype=torch.int32, device="cuda")  # 4 GiB
    y = torch.empty_like(x)
    copying, reading = _cuda_time(lambda: y.copy_(x)), _cuda_time(lambda: x.max())
    return 2 * x.nbytes / copying / 1e9, x.nbytes / reading / 1e9


def _version_of(name: str) -> str:
    with contextlib.suppress(Exception):
        return version(name)
    return "-"


def _cuda_time(run: Callable[[], Any], repeats: int = 10) -> float:
    """Median seconds by events."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)
