"""Which execution providers start, and what one that does not start is missing."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from igpt_runtime.doctor.child import Outcome, run
from igpt_runtime.doctor.finding import BROKEN, OK, UNKNOWN, WARNING, Finding, fault, one_line
from igpt_runtime.doctor.telemetry import VARIABLES

_TOPIC = "ONNX Runtime"
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_PATIENCE = 300  # seconds: the first use of a GPU may compile its kernels
_DRIVER = re.compile(r"libcuda\.so|nvcuda\.dll|libnvidia-", re.IGNORECASE)
_PRELOADED = re.compile(r"lib(cublas|cudart|cudnn|cufft|curand|nvrtc)")
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_MISSING = (
    re.compile(r"([\w.+-]+\.so[\w.]*): cannot open shared object file"),
    re.compile(r'which depends on "([^"]+)" which is missing'),
)
# What ONNX Runtime says that tells more than the rest, the best first.
_REASONS = (
    re.compile(r"(CUDA failure \d+: [^;\n]+)"),
    re.compile(r"(CUDNN failure \d+: [^;\n]+)"),
    re.compile(r"(Failed to load library [^\n]+)"),
    re.compile(r"EP Error ([^\n]+) when using"),
)


def start(device: str, threads: int | None, preload: bool = False) -> Outcome:
    """Start a provider in a new process, as the commands do."""
    return run("start", timeout=_PATIENCE, device=device, threads=threads, variables=VARIABLES, preload=preload)


def providers(cpu: Outcome, device: str, threads: int | None) -> Iterator[Finding]:
    """The CPU's and CUDA's. cpu: what `start("cpu")` gave; device: what was asked for, auto, cpu or cuda."""
    if cpu.error is not None:
        yield _of_error("CPU", cpu)
    elif cpu.said["started"] != _CPU:
        yield Finding(_TOPIC, "CPU", UNKNOWN, f"{cpu.said['started']} started instead", "give --device cpu")
    else:
        yield Finding(_TOPIC, "CPU", OK, "starts and runs a graph")
    listed = cpu.said.get("providers")
    if listed is None:  # it cannot be imported
        return
    if _CUDA in listed:
        yield _cuda(device, threads)
    elif device == "cuda":
        remedy = "run: pip uninstall -y onnxruntime; then: pip install onnxruntime-gpu. Or give --device cpu"
        yield Finding(_TOPIC, "CUDA", BROKEN, "this package of ONNX Runtime has no CUDA provider", remedy)
    else:
        yield Finding(_TOPIC, "CUDA", OK, "not in this package of ONNX Runtime; all runs on the CPU")


def _of_error(name: str, outcome: Outcome) -> Finding:
    if outcome.died is None:
        return fault(_TOPIC, name, BROKEN, str(outcome.error))
    remedy = "install ONNX Runtime again; if that does not help, it has no kernels for this processor"
    return Finding(_TOPIC, name, BROKEN, one_line(f"does not start: {outcome.error}"), remedy)


def _cuda(device: str, threads: int | None) -> Finding:
    """Whether CUDA starts. Where it does not, ONNX Runtime takes the CPU, unless --device cuda asks for CUDA."""
    first = start("cuda", threads)
    if first.error is None and first.said["started"] == _CUDA:
        return Finding(_TOPIC, "CUDA", OK, "starts and runs a graph")
    status = BROKEN if device == "cuda" else WARNING
    second = start("cuda", threads, preload=True)
    if second.error is None and second.said["started"] == _CUDA:
        what = missing_library(first.messages) or "a library"
        found = f"does not start: {what} is not where the system looks, but onnxruntime.preload_dlls() finds it"
        return Finding(_TOPIC, "CUDA", status, found, _how_to_find())
    # The second has got further, if there is a difference.
    missing = missing_library(second.messages)
    if missing is None:
        return Finding(_TOPIC, "CUDA", status, f"does not start: {reason(second)}", "compare with what nvidia-smi says")
    if _DRIVER.match(missing):
        return Finding(_TOPIC, "CUDA", status, f"does not start: {missing} is missing", "install NVIDIA's driver")
    remedy = "run: pip install 'onnxruntime-gpu[cuda,cudnn]', which brings CUDA's libraries; then look again"
    return Finding(_TOPIC, "CUDA", status, f"does not start: {missing} is missing", remedy)


def missing_library(messages: str) -> str | None:
    """The library that ONNX Runtime says it could not load; None if it says nothing of one."""
    for pattern in _MISSING:
        if match := pattern.search(messages):
            return match[1]
    return None


def reason(outcome: Outcome) -> str:
    """Why a provider did not start, in one line."""
    messages = _COLOURS.sub("", outcome.messages)
    for pattern in _REASONS:
        if match := pattern.search(messages):
            return one_line(match[1])
    return one_line(outcome.error or "ONNX Runtime gives no reason")


def _how_to_find() -> str:
    """What lets ONNX Runtime find the libraries that are in Python's packages."""
    remedy = "in Python, call onnxruntime.preload_dlls() before a session is opened"
    if sys.platform != "linux":
        return remedy
    libraries = (path for entry in sys.path for path in Path(entry or ".").glob("nvidia/*/lib/*.so.*"))
    folders = sorted({str(path.parent) for path in libraries if _PRELOADED.match(path.name)})
    return f"set LD_LIBRARY_PATH={':'.join(folders)}; {remedy}" if folders else remedy
