"""Fills a cache on a CUDA device from the one row that all of its rows begin with."""

import functools
from typing import Any

import numpy as np

from igpt_runtime.bundle.repeating_graph import FILLED, PADS, ROW, SHAPE, repeating_graph
from igpt_runtime.engine.cuda_start import CUDA, stdout_as_stderr
from igpt_runtime.engine.graph import failure
from igpt_runtime.engine.kv_cache import AlikeRows


class Repeater:
    """The graph that does it, opened when it is first used."""

    def __init__(self, ort: Any) -> None:
        """ort: the onnxruntime module."""
        self._ort = ort

    def fill(self, value: Any, rows: AlikeRows) -> None:
        """Write into an OrtValue of the device what `rows` says. Raises MemoryShortageError or DeviceError."""
        try:
            binding = self._graph.io_binding()
            binding.bind_cpu_input(ROW, np.ascontiguousarray(rows.begin))
            binding.bind_cpu_input(PADS, np.array([*[0] * 6, rows.shape[2] - rows.begin.shape[2], 0], np.int64))
            binding.bind_cpu_input(SHAPE, np.array(rows.shape, np.int64))
            binding.bind_ortvalue_output(FILLED, value)
            self._graph.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise failure(error, "cannot fill a cache on the GPU by CUDA", "use --device cpu") from error

    @functools.cached_property
    def _graph(self) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        with stdout_as_stderr():
            return self._ort.InferenceSession(
                repeating_graph(), options, providers=[CUDA, "CPUExecutionProvider"], enable_fallback=False
            )
