"""Where a decode step's tensors live: in host memory, or on a CUDA device with the step captured as a CUDA graph."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.cuda_start import CUDA
from igpt_runtime.engine.kv_cache import AlikeRows
from igpt_runtime.engine.repeater import Repeater
from igpt_runtime.errors import MemoryShortageError

_DEVICE = "cuda"  # as ONNX Runtime calls it where memory is taken
Array = npt.NDArray[Any]
Provider = str | tuple[str, dict[str, str]]


def with_options(providers: Sequence[str], manifest: Manifest, *, decodes: bool) -> list[Provider]:
    """The execution providers with the options that a graph of a bundle wants.

    decodes: whether the graph is run step by step, so that it pays to capture it.
    """
    if manifest.precision == "fp16":
        # In older releases the norm sums squares in float16 otherwise, where they overflow.
        options = {"enable_skip_layer_norm_strict_mode": "1", "enable_cuda_graph": str(int(decodes))}
    else:
        options = {"use_tf32": "0"}  # which keeps 10 bits of float32's 23
    return [(name, options) if name == CUDA else name for name in providers]


def _contiguous(array: Array) -> Array:
    """An array as it lies in memory; unlike np.ascontiguousarray, a scalar stays one."""
    return np.asarray(array, order="C")


class HostTensors:
    """A graph's inputs and outputs in host memory: arrays that it reads and writes where they lie."""

    def __init__(self, ort: Any, graph: Any) -> None:
        """ort: the onnxruntime module; graph: its session."""
        self._ort, self._graph = ort, graph
        self._binding = graph.io_binding()
        self._arrays: dict[str, Array] = {}
        self._values: dict[str, Any] = {}  # OrtValues are views that do not keep their arrays alive

    def bind(self, name: str, array: Array, output: str | None = None) -> None:
        """Have an array read at every run as an input, and written as an output too."""
        self._binding.bind_ortvalue_input(name, self._value(name, array))
        if output is not None:
            self._arrays[output] = array
            self._binding.bind_ortvalue_output(output, self._values[name])

    def bind_output(self, name: str, array: Array) -> None:
        """Have an array written at every run."""
        self._binding.bind_ortvalue_output(name, self._value(name, array))

    def _value(self, name: str, array: Array) -> Any:
        self._arrays[name], self._values[name] = array, self._ort.OrtValue.ortvalue_from_numpy(array)
        return self._values[name]

    def write(self, name: str, values: npt.ArrayLike) -> None:
        """Set what a bound input is from now on."""
        self._arrays[name][...] = values

    def read(self, name: str) -> Array:
        """A bound output, in an array that the next run overwrites."""
        return self._arrays[name]

    def run(self, tokens: Array | None = None) -> None:
        """Run the graph once. tokens: fed this once instead of the bound ones, of any length."""
        if tokens is None:
            self._binding.bind_ortvalue_input(graph_io.INPUT_IDS, self._values[graph_io.INPUT_IDS])
        else:
            self._binding.bind_cpu_input(graph_io.INPUT_IDS, np.ascontiguousarray(tokens))
        self._graph.run_with_iobinding(self._binding)


class DeviceMemory:
    """Counts the bytes of a device's memory that are taken. ONNX Runtime keeps what it took, and gives it out again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may come while it is held
        self._taken = self._most = 0  # now, and at most so far

    def take(self, nbytes: int) -> None:
        """Note that so many more are taken; fewer, if it is negative."""
        with self._lock:
            self._taken += nbytes
            self._most = max(self._most, self._taken)

    @property
    def left_behind(self) -> int:
        """Bytes that were taken once and now belong to nobody."""
        with self._lock:
            return self._most - self._taken


class CudaTensors:
    """The same on a CUDA device. Runs of the bound shapes replay one captured CUDA graph, which fixes their addresses.

    Used by one decode loop after another; `DeviceTensors` hands it out.
    """

    def __init__(self, ort: Any, graph: Any, graph_id: int, repeater: Repeater, memory: DeviceMemory) -> None:
        """graph_id: names the captured graph; no two of a session may share one."""
        self._nbytes = 0
        self._ort, self._graph, self._repeater, self._memory = ort, graph, repeater, memory
        self._binding = graph.io_binding()
        self._values: dict[str, Any] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._captured, self._eager = ort.RunOptions(), ort.RunOptions()
        self._captured.add_run_config_entry("gpu_graph_id", str(graph_id))
        self._eager.add_run_config_entry("gpu_graph_id", "-1")
        self._thread = threading.local()  # captured graphs are those of a thread

    @property
    def nbytes(self) -> int:
        """Bytes of the device's memory that are bound."""
        return self._nbytes

    def bind(self, name: str, array: Array | AlikeRows, output: str | None = None) -> None:
        """Have a copy of an array read at every run as an input, and written as an output too."""
        known = self._values.get(name)
        if isinstance(array, AlikeRows):
            value = self._allocate(array.nbytes, lambda: self._empty(array)) if known is None else known
            self._repeater.fill(value, array)
        elif known is None:
            value = self._copy(array)
        else:
            known.update_inplace(_contiguous(array))
        if known is not None:
            return
        self._binding.bind_ortvalue_input(name, value)
        if output is not None:
            self._binding.bind_ortvalue_output(output, value)
            self._values[output] = value
        if not isinstance(array, AlikeRows):
            self._dtypes[name] = array.dtype
        self._values[name] = value

    def bind_output(self, name: str, array: Array) -> None:
        """Have something of an array's shape and type written at every run."""
        if name not in self._values:
            value = self._copy(array)
            self._binding.bind_ortvalue_output(name, value)
            self._values[name] = value

    def _copy(self, array: Array) -> Any:
        return self._allocate(
            array.nbytes, lambda: self._ort.OrtValue.ortvalue_from_numpy(_contiguous(array), _DEVICE, 0)
        )

    def _empty(self, like: AlikeRows) -> Any:
        shape = list(like.shape)
        return self._ort.OrtValue.ortvalue_from_shape_and_type(shape, like.begin.dtype.type, _DEVICE, 0)

    def _allocate(self, nbytes: int, make: Callable[[], Any]) -> Any:
        try:
            value = make()
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise MemoryShortageError(
                f"the GPU has no {nbytes / 1e9:.2f} GB left ({str(error).splitlines()[0]}); "
                "draw fewer pictures at once, or use --device cpu"
            ) from error
        self._nbytes += nbytes
        self._memory.take(nbytes)
        return value

    def __del__(self) -> None:
        """Tell that its memory is free."""
        if self._nbytes:
            self._memory.take(-self._nbytes)

    def write(self, name: str, values: npt.ArrayLike) -> None:
        """Set what a bound input is from now on: one upload."""
        value = self._values[name]
        array = np.broadcast_to(np.asarray(values, self._dtypes[name]), value.shape())
        value.update_inplace(_contiguous(array))

    def read(self, name: str) -> Array:
        """A copy of a bound output, read-only: changing it would not change what the next run reads."""
        array: Array = self._values[name].numpy()
        array.flags.writeable = False
        return array

    def run(self, tokens: Array | None = None) -> None:
        """Run the graph once. tokens: fed this once instead of the bound ones, of any length, without a CUDA graph."""
        if tokens is not None:
            self._binding.bind_cpu_input(graph_io.INPUT_IDS, np.ascontiguousarray(tokens))
            self._graph.run_with_iobinding(self._binding, self._eager)
            self._binding.bind_ortvalue_input(graph_io.INPUT_IDS, self._values[graph_io.INPUT_IDS])
            return
        if not getattr(self._thread, "rehearsed", False):
            # Capturing runs the graph more than once, each time feeding it what it drew. All it leaves behind is the
            # slot of its token, which the run that counts fills again.
            fed = self.read(graph_io.INPUT_IDS)
            self._graph.run_with_iobinding(self._binding, self._captured)
            self.write(graph_io.INPUT_IDS, fed)
            self._thread.rehearsed = True
        self._graph.run_with_iobinding(self._binding, self._captured)


class DeviceTensors:
    """Hands out a session's tensors on its device. Those of the last loop are kept, as is their captured graph.

    Each change of the number of rows captures anew; ONNX Runtime keeps what it captured until the graph is closed.
    """

    def __init__(self, ort: Any) -> None:
        """ort: the onnxruntime module."""
        self._ort = ort
        self._repeater, self._memory = Repeater(ort), DeviceMemory()
        # Both are safe to use from several threads, and from finalizers.
        self._ids = itertools.count(1)
        self._idle: deque[tuple[Any, int, CudaTensors]] = deque(maxlen=1)  # graph, rows, tensors that nobody uses

    def take(self, graph: Any, rows: int) -> CudaTensors:
        """Tensors of a decode graph for some rows, nobody else's until they are given back."""
        while self._idle:
            try:
                kept_graph, kept_rows, tensors = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if kept_graph is graph and kept_rows == rows:
                return tensors
            del tensors  # their memory goes before more is taken
        return CudaTensors(self._ort, graph, next(self._ids), self._repeater, self._memory)

    def reusable_bytes(self) -> int:
        """Bytes of the device's memory that are not free, and left for the next loop."""
        return self._memory.left_behind + sum(tensors.nbytes for _, _, tensors in list(self._idle))

    def give_back(self, graph: Any, rows: int, tensors: CudaTensors) -> None:
        """Keep tensors for the next loop."""
        self._idle.append((graph, rows, tensors))
