"""Whether the CUDA provider starts, and which library is missing where it does not."""

import re

from igpt_runtime.doctor.child import Outcome
from igpt_runtime.doctor.finding import BROKEN, OK, WARNING, Finding, one_line
from igpt_runtime.doctor.start_provider import start_provider

_TOPIC, _NAME = "ONNX Runtime", "CUDA"
CUDA = "CUDAExecutionProvider"
_DRIVER = re.compile(r"libcuda\.so|nvcuda\.dll|libnvidia-", re.IGNORECASE)
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


def cuda(device: str, threads: int | None) -> Finding:
    """Whether CUDA starts. Where it does not, ONNX Runtime takes the CPU, unless --device cuda asks for CUDA."""
    started = start_provider("cuda", threads)
    if started.error is None and started.said["started"] == CUDA:
        return Finding(_TOPIC, _NAME, OK, "starts and runs a graph")
    status = BROKEN if device == "cuda" else WARNING
    missing = missing_library(started.messages)
    if missing is None:
        return Finding(_TOPIC, _NAME, status, f"does not start: {reason(started)}", "compare with what nvidia-smi says")
    if _DRIVER.match(missing):
        return Finding(_TOPIC, _NAME, status, f"does not start: {missing} is missing", "install NVIDIA's driver")
    remedy = "run: pip install 'onnxruntime-gpu[cuda,cudnn]', which brings CUDA's libraries; then look again"
    return Finding(_TOPIC, _NAME, status, f"does not start: {missing} is missing", remedy)


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
