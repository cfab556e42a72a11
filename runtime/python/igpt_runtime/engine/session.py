"""An opened bundle: execution provider chosen, graphs opened when first used."""

import contextlib
import ctypes
import functools
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from igpt_runtime.bundle.bundle import Bundle, open_bundle
from igpt_runtime.bundle.directory import MANIFEST_FILE, WEIGHTS_FILE
from igpt_runtime.bundle.graph_io import DECODE, DECODE_SHARED, POSTPROCESS, PREPROCESS
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.bundle.subgraph import part_of, with_weights_file
from igpt_runtime.engine.background import Task
from igpt_runtime.engine.cuda_start import CUDA, is_on_cuda, prepare_cuda, stdout_as_stderr
from igpt_runtime.engine.device import DeviceTensors, with_options
from igpt_runtime.engine.graph import Graph, being_cut, failure
from igpt_runtime.engine.spinning import ALLOW_SPINNING, may_spin
from igpt_runtime.errors import BundleError, DeviceError, OptionError
from igpt_runtime.privacy import ONNX_RUNTIME, turn_off

Array = npt.NDArray[Any]

DEVICES = ("auto", "cpu", "cuda")
_CPU = "CPUExecutionProvider"
# Graphs that want their weights in the order in which a kernel reads them, which takes memory and time to make.
_DECODERS = {DECODE, DECODE_SHARED}
_WITHOUT_WEIGHTS = {PREPROCESS, POSTPROCESS}
# Prefill reads every weight for hundreds of tokens: it is as fast straight from the mapped file, but for 4 bits.
_FAST_UNPACKED = {"fp32", "int8"}
# ONNX Runtime's option for graphs that come without a file.
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_RELEASE = re.compile(r"(\d+)\.(\d+)")  # how a version begins


class Session:
    """An opened bundle, which `open_session` returns.

    A graph is checked and loaded when it is first used; all graphs share one weights file. Several threads may use one
    session. It is freed with its last reference.
    """

    def __init__(self, bundle: Bundle, device: str, threads: int | None, spin: str) -> None:
        """Use `open_session`."""
        self.bundle = bundle
        """The bundle that was opened."""
        self._ort = import_onnxruntime()
        _check_release(bundle, self._ort.__version__)
        if device == "auto" and bundle.manifest.precision != "fp16":
            device = "cpu"  # CUDA has no kernels for most of what other bundles compute
        self._providers = _providers(device, self._ort.get_available_providers())
        self._required = CUDA if device == "cuda" else None
        if CUDA in self._providers:
            prepare_cuda(self._ort)
        self._threads, self._spin = threads, spin
        self._graphs: dict[str, Graph] = {}
        self._paths: dict[str, Path] = {}  # of the graphs that were checked
        self._weights_checked = False
        self._identities: dict[str, tuple[int, ...]] = {}  # of files, when they were looked at first
        self._unchanged(MANIFEST_FILE)
        self.device_tensors = DeviceTensors(self._ort)  # of decode steps on a GPU

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    def graph(self, name: str) -> Graph:
        """A graph, opened in ONNX Runtime on first use.

        Raises:
            BundleError: the graph is not in the bundle, or a file is damaged.
            DeviceError: CUDA was asked for and ONNX Runtime did not start it.
        """
        if name not in self._graphs:
            path = self._checked(name)
            for other in _DECODERS - {name} if name in _DECODERS else ():
                self._graphs.pop(other, None)  # each packs the weights: one copy is enough
            with self._checking_weights(name):
                graph = self._open(path, name)
            self._graphs[name] = graph
        return self._graphs[name]

    def _checked(self, name: str) -> Path:
        """The file of a graph, after a look at it the first time."""
        if name not in self._paths:
            self._paths[name] = self.bundle.graph_path(name)
        self._unchanged(self._paths[name].name)
        return self._paths[name]

    def _unchanged(self, *names: str) -> None:
        """Raise BundleError if files are not those that were looked at first: parts of two bundles make none."""
        for name in names:
            path = self.bundle.path / name
            try:
                status = path.stat()
            except OSError as error:
                raise BundleError(f"{path} cannot be read ({error.strerror}); open the bundle again") from error
            found = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if self._identities.setdefault(name, found) != found:
                raise BundleError(f"{path} was replaced while the bundle was open; open the bundle again")

    @contextlib.contextmanager
    def _checking_weights(self, name: str) -> Iterator[None]:
        """Compare the weights with their hash while a first graph that has some is opened, before it runs."""
        if self._weights_checked or name in _WITHOUT_WEIGHTS:
            yield
            return
        self.bundle.find(WEIGHTS_FILE)
        check = Task(functools.partial(self.bundle.check_file, WEIGHTS_FILE))
        try:
            yield
            check.result()
        except Exception:  # an interrupt does not wait
            self._identities.pop(WEIGHTS_FILE, None)  # a file that is mended may be tried again
            check.result()  # of two errors it is this one that tells what is wrong
            raise
        self._weights_checked = True

    def is_on_gpu(self, name: str) -> bool:
        """Whether a graph runs on a GPU, which is known when it is open. Raises as `graph` does."""
        return is_on_cuda(self.graph(name))

    def decodes_on_gpu(self, name: str) -> bool:
        """Whether the cache of a decode graph is on a GPU, where the graph is captured. Raises as `graph` does."""
        return self.manifest.precision == "fp16" and self.is_on_gpu(name)

    @property
    def holds_weights(self) -> bool:
        """Whether a decode graph is open, so that the weights are in memory."""
        return not _DECODERS.isdisjoint(self._graphs)

    def run_once(self, name: str, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """Outputs of a graph that is closed again, unless it was open before. Raises as `graph` does.

        On a GPU it stays open, as sending the weights there takes longer than all else; and the weights are compared.

        What comes of it must not be given away before another graph is opened: only that compares the weights with
        their hash, which takes as long as packing them for a decode graph and goes on meanwhile.
        """
        if name in self._graphs:
            return self._graphs[name].run(outputs, inputs)
        if CUDA in self._providers:
            found = self.graph(name).run(outputs, inputs)
            if not self.is_on_gpu(name):
                del self._graphs[name]
            return found
        self.bundle.find(WEIGHTS_FILE)
        graph = self._open(self._checked(name), name)
        found = graph.run(outputs, inputs)
        del graph
        return_freed_memory()
        return found

    @contextlib.contextmanager
    def part(
        self, name: str, outputs: Sequence[str], picked: Mapping[str, Sequence[int]] | None = None
    ) -> Iterator[Graph]:
        """What of a graph computes some outputs; closed afterwards.

        picked: see `igpt_runtime.bundle.subgraph.part_of`. Raises as `graph` does.
        """
        path = self._checked(name)
        with being_cut(path):
            part = part_of(path.read_bytes(), outputs, picked)
        with self._checking_weights(name):
            graph = self._open(path, name, part, outputs)
        yield graph

    def _open(self, path: Path, name: str, part: bytes | None = None, outputs: Sequence[str] | None = None) -> Graph:
        """Open the graph in a file, or a part of it that computes some outputs, which was made from that file."""
        used = [MANIFEST_FILE, path.name, *([] if name in _WITHOUT_WEIGHTS else [WEIGHTS_FILE])]
        self._unchanged(*used)
        options = self._ort.SessionOptions()
        model, folder = self._with_weights(path, name, part)
        if isinstance(model, bytes):
            options.add_session_config_entry(WEIGHTS_FOLDER, str(folder))
        on_cpu = self._providers == [_CPU]
        # What goes wrong is told once, by an error; but that CUDA does not start is told in the log only.
        options.log_severity_level = 4 if on_cpu else 3
        if name not in _DECODERS:
            if self.manifest.precision in _FAST_UNPACKED:
                options.add_session_config_entry("session.disable_prepacking", "1")
            if on_cpu:  # the kernels that matter are in the graph: looking for others takes as long as all the rest
                options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        if not may_spin(self._spin, self._threads):
            options.add_session_config_entry(ALLOW_SPINNING, "0")
        try:
            with contextlib.nullcontext() if on_cpu else stdout_as_stderr():
                providers = with_options(self._providers, self.manifest, decodes=name in _DECODERS)
                session = self._ort.InferenceSession(model, options, providers=providers, enable_fallback=not on_cpu)
            session.disable_fallback()
        except MemoryError:
            raise
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise failure(error, f"cannot open {path}") from error
        graph = Graph(session, path, self.bundle.path / WEIGHTS_FILE if WEIGHTS_FILE in used else None)
        self._unchanged(*used)
        graph.check_interface(self.manifest.graphs[name], outputs)
        if self._required and self._required not in session.get_providers():
            raise DeviceError(
                "CUDA was asked for but ONNX Runtime could not start it; igpt-run doctor tells what is missing, "
                "and --device cpu does without"
            )
        if name in _DECODERS:
            return_freed_memory()  # packing leaves up to three times the weights' size behind
        return graph

    def _with_weights(self, path: Path, name: str, part: bytes | None) -> tuple[bytes | Path, Path]:
        """What to open for a graph or its part, and the folder of its weights where that is not its file's.

        In the cache of the Hugging Face Hub a bundle's files are links. ONNX Runtime refuses weights outside of the
        graph's folder, and before release 1.32 also those of that cache; so there the graph gets their real name.
        """
        weights = path if name in _WITHOUT_WEIGHTS else self.bundle.find(WEIGHTS_FILE)
        if not weights.is_symlink():
            return path if part is None else part, path.parent
        real = weights.resolve()
        with being_cut(path):
            model = with_weights_file(path.read_bytes() if part is None else part, WEIGHTS_FILE, real.name)
        return model, real.parent

    @property
    def provider(self) -> str:
        """Name of the execution provider, like "CPUExecutionProvider".

        It is that of the graphs that are open, else the one that will be tried first.
        """
        for session in self._graphs.values():
            return str(session.get_providers()[0])
        return self._providers[0]


def open_session(
    path: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    spin: str = "auto",
    sha256: str | None = None,
) -> Session:
    """Open a bundle on a device.

    path: a directory, or a bundle's name on the Hugging Face Hub, as `open_bundle` takes it; None is the embedded demo.
    device: "auto" is CUDA for a bundle in fp16 if this ONNX Runtime has it, else the CPU; "cuda" fails without CUDA;
    "cpu" is the CPU.
    threads: threads inside one operator; None leaves ONNX Runtime's choice, one per physical core.
    spin: whether these wait for work busily, which takes processor time and is fast where nothing else runs: "always",
    "never", or "auto", which looks whether anything else runs when a graph is opened.
    sha256: of the bundle's manifest.json, in hexadecimal, so that no other bundle is taken for it; None takes any.

    Raises:
        BundleError: there is no bundle at `path`, it is damaged, or it is another one.
        DeviceError: onnxruntime is not installed, or older than the bundle needs; CUDA was asked for and is not there;
            or huggingface_hub is missing for a download.
        OptionError: the device or `spin` is unknown, `threads` is below 1, or `sha256` is none.
    """
    if device not in DEVICES:
        raise OptionError(f"unknown device {device!r}; choose one of {', '.join(DEVICES)}")
    if threads is not None and threads < 1:
        raise OptionError(f"threads must be at least 1, got {threads}")
    may_spin(spin, threads)  # which refuses an unknown one
    return Session(open_bundle(path, sha256=sha256), device, threads, spin)


def import_onnxruntime() -> Any:
    """Import onnxruntime, with its telemetry off unless the user has asked for it.

    Raises DeviceError when it is not installed, or when both distributions are.
    """
    if all(is_installed(name) for name in _DISTRIBUTIONS):
        raise DeviceError(
            "both onnxruntime and onnxruntime-gpu are installed and overwrite each other; "
            "run: pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime or onnxruntime-gpu"
        )
    turn_off(ONNX_RUNTIME)
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            f"onnxruntime cannot be imported ({error}); run: pip install onnxruntime "
            "(for CUDA: 'onnxruntime-gpu[cuda,cudnn]')"
        ) from error
    return onnxruntime


def _check_release(bundle: Bundle, release: str) -> None:
    """Raise DeviceError if ONNX Runtime is too old for a bundle: it might compute something else."""
    needed, found = bundle.manifest.onnxruntime_minimum, _RELEASE.match(release)
    if needed is None or found is None:
        return
    if (int(found[1]), int(found[2])) < tuple(map(int, needed.split("."))):
        raise DeviceError(
            f"{bundle.path} needs ONNX Runtime {needed} or newer, and {release} is installed, which fails or computes "
            "something else; run: pip install -U onnxruntime (for CUDA: 'onnxruntime-gpu[cuda,cudnn]')"
        )


def return_freed_memory() -> None:
    """Have the C library give freed memory back to the system, where it is glibc; elsewhere nothing."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def is_installed(distribution: str) -> bool:
    """Whether a distribution, by its name, was installed from a wheel."""
    # importlib.metadata would tell too, but importing it takes as long as starting the interpreter.
    prefix = distribution.replace("-", "_") + "-"
    for entry in sys.path:
        with contextlib.suppress(OSError):
            for name in os.listdir(entry or "."):
                if name.startswith(prefix) and name.endswith(".dist-info"):
                    return True
    return False


def _providers(device: str, available: list[str]) -> list[str]:
    if device == "cuda" and CUDA not in available:
        raise DeviceError(
            "CUDA was asked for but this onnxruntime has no CUDA provider; "
            "run: pip uninstall -y onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]', or use --device cpu"
        )
    return [CUDA, _CPU] if device != "cpu" and CUDA in available else [_CPU]
