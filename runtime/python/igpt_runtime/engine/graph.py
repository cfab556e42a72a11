"""A graph that ONNX Runtime has opened: compared with the manifest, and with errors that say what to do."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy.typing as npt

from igpt_runtime.bundle.graph_io import TensorSpec
from igpt_runtime.bundle.manifest import GraphRecord, shortened
from igpt_runtime.errors import BundleError, DeviceError, IgptError, MemoryShortageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnxruntime

Array = npt.NDArray[Any]

_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
}  # fmt: skip
# How ONNX Runtime, CUDA and the C++ library say it.
_NO_MEMORY = re.compile(r"out of memory|bad.?alloc|failed to allocate memory|insufficient memory|ALLOC_FAILED", re.I)
_GPU = re.compile(r"CUDA|cuDNN|cuBLAS|GPU|nvidia", re.I)
_LIBRARY = re.compile(r"load library|shared (object|library)|LoadLibrary", re.I)
_ENVIRONMENT = re.compile(r"environment variable", re.I)
_FILE = re.compile(r"system error number|no such file|doesn't exist|permission denied|too many open files", re.I)
_THREADS = re.compile(r"pthread|resource temporarily unavailable|thread.*(create|start)", re.I)
_LONGEST = 500  # characters of a reason that are shown


def failure(error: BaseException, doing: str, remedy: str = "export the bundle again") -> IgptError:
    """What ONNX Runtime has raised, as an error that names its cause and what to do about it.

    doing: what it was about to do, as in "cannot open PATH"; remedy: where the cause is none that has its own.
    """
    reason = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
    fact = f"ONNX Runtime {doing} ({reason})"
    on_gpu = _GPU.search(reason) is not None
    if _NO_MEMORY.search(reason):
        if on_gpu:
            return MemoryShortageError(
                f"{fact}: the GPU has no memory left; draw fewer pictures at once, end what else runs there, or use "
                "--device cpu"
            )
        return MemoryShortageError(f"{fact}: no memory is left; ask for fewer pictures at once, or free some")
    if on_gpu or _LIBRARY.search(reason):
        return DeviceError(f"{fact}; igpt-run doctor tells what is missing, and --device cpu does without")
    if _ENVIRONMENT.search(reason):
        return DeviceError(f"{fact}; igpt-run doctor tells which variable has a value that it refuses")
    if _FILE.search(reason):
        return BundleError(f"{fact}; check the file and its permissions")
    if _THREADS.search(reason):
        return DeviceError(f"{fact}: no more threads can be started; use --threads 1, or raise the limit")
    return BundleError(f"{fact}; {remedy}")


@contextmanager
def being_cut(path: Path) -> "Iterator[None]":
    """While the file of a graph is read and changed, have its faults raise BundleError: it may be of another origin."""
    try:
        yield
    except ValueError as error:
        raise BundleError(f"{path} cannot be cut ({error}); export the bundle again") from error


class Graph:
    """An opened graph. It is used as ONNX Runtime's own session, whose other methods it has too."""

    def __init__(self, opened: "onnxruntime.InferenceSession", path: Path, weights: Path | None) -> None:
        """path: of its file; weights: the file that it maps into memory; None for none."""
        self._opened, self._path, self._weights = opened, path, weights
        self._identity = None if weights is None else _identity(weights)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, Array]) -> list[Array]:
        """The named outputs, all for None.

        Raises:
            BundleError: it cannot be computed, or the weights file has been changed meanwhile.
            MemoryShortageError, DeviceError: that is why.
        """
        with self._running():
            found: list[Array] = self._opened.run(outputs, inputs)
            return found

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        """Compute what is bound. Raises as `run` does."""
        with self._running():
            self._opened.run_with_iobinding(binding, options)

    def check_interface(self, record: GraphRecord, picked: Sequence[str] | None = None) -> None:
        """Compare inputs and outputs with those of the manifest.

        picked: the outputs of a part of the graph, of which some may have fewer values than in the whole graph.

        Raises BundleError if they differ.
        """
        try:
            inputs, outputs = map(_specs, (self._opened.get_inputs(), self._opened.get_outputs()))
        except UnicodeDecodeError as error:
            raise BundleError(f"{self._path} has names that are no text; export the bundle again") from error
        self._compare("input", inputs, record.inputs)
        if picked is None:
            self._compare("output", outputs, record.outputs)
            return
        wanted = {spec.name: spec.dtype for spec in record.outputs if spec.name in picked}
        if {spec.name: spec.dtype for spec in outputs} != wanted:
            self._refuse(f"other outputs than {', '.join(picked)}")

    def _compare(self, kind: str, found: Sequence[TensorSpec], specs: Sequence[TensorSpec]) -> None:
        if list(found) != list(specs):
            strange = next((one for one in found if one not in specs), None)
            what = (
                f"another {kind} ({strange.name!r}, {strange.dtype} {list(strange.shape)})"
                if strange
                else f"other {kind}s"
            )
            self._refuse(what)

    def _refuse(self, what: str) -> NoReturn:
        raise BundleError(f"{self._path} has {shortened(what)} than the manifest says; export the bundle again")

    @contextmanager
    def _running(self) -> "Iterator[None]":
        # Reading a mapped file where it has been cut off would end the process.
        if self._weights is not None and self._identity is not None:
            now = _identity(self._weights)
            if now is not None and now[:2] == self._identity[:2] and now != self._identity:
                raise BundleError(f"{self._weights} was changed while the bundle was open; open the bundle again")
        try:
            yield
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            remedy = "open the bundle with another release of it, or export the bundle again"
            raise failure(error, f"failed in {self._path}", remedy) from error


def _specs(values: Sequence[Any]) -> list[TensorSpec]:
    """What ONNX Runtime says of inputs or outputs. Raises UnicodeDecodeError for names that are no UTF-8."""
    return [TensorSpec(one.name, _DTYPES.get(one.type, one.type), tuple(one.shape)) for one in values]


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced (the first two) or written to; None if it is gone, which harms nobody."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
