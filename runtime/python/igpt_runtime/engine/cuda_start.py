"""What has to be done before ONNX Runtime starts CUDA."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

CUDA = "CUDAExecutionProvider"
_XQA = "ORT_ENABLE_XQA"
_lock = threading.RLock()
_prepared = False


def prepare_cuda(ort: Any) -> None:
    """Load CUDA's libraries that are in Python's packages, where the system does not look for them; once.

    It also has attention computed by cuDNN. XQA, which ONNX Runtime takes otherwise, is made for models whose heads
    share keys and values; each of ImageGPT's has its own. A user who has set the variable decides.

    ort: the onnxruntime module. What cannot be loaded is told on stderr, and when a graph is opened.
    """
    global _prepared
    with _lock:
        if _prepared:
            return
        os.environ.setdefault(_XQA, "0")  # read whenever a kernel is made
        with stdout_as_stderr():
            ort.preload_dlls()
        _prepared = True


def is_on_cuda(graph: Any) -> bool:
    """Whether an opened graph runs on CUDA, which is known only then."""
    return bool(graph.get_providers()[0] == CUDA)


@contextlib.contextmanager
def stdout_as_stderr() -> Iterator[None]:
    """Have what is printed go to stderr: ONNX Runtime prints to stdout, where our results go, when CUDA fails.

    One thread at a time, so that each finds and restores the real one.
    """
    with _lock, contextlib.redirect_stdout(sys.stderr):
        yield
