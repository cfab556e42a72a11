"""Decode steps on a device: a stand-in keeps copies where CUDA keeps device memory and reruns where it captures."""

import ctypes
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnxruntime
import pytest

from igpt_runtime.bundle import graph_io
from igpt_runtime.engine import cuda_start, device, memory
from igpt_runtime.engine.cuda_start import CUDA
from igpt_runtime.engine.device import DeviceTensors, with_options
from igpt_runtime.engine.generate import DecodeStep, GenerationOptions, generate, generate_all, prefill
from igpt_runtime.engine.kv_cache import alike_cache, cache_bytes, new_cache
from igpt_runtime.engine.session import Session, open_session
from igpt_runtime.errors import MemoryShortageError

PRIMER = np.random.default_rng(2).integers(0, 16, 20)
CPU = "CPUExecutionProvider"


class Value:
    """An OrtValue in memory of its own."""

    def __init__(self, array: np.ndarray, name: str, index: int) -> None:
        assert (name, index) == ("cuda", 0)
        self._array = array.copy()
        self.real = onnxruntime.OrtValue.ortvalue_from_numpy(self._array)

    @classmethod
    def empty(cls, shape: list[int], dtype: type[np.generic], name: str, index: int) -> "Value":
        return cls(np.full(shape, np.nan, dtype), name, index)

    def update_inplace(self, array: np.ndarray) -> None:
        assert (array.dtype, array.shape) == (self._array.dtype, self._array.shape) and array.flags.c_contiguous
        self._array[...] = array

    def numpy(self) -> np.ndarray:
        return self._array.copy()

    def shape(self) -> list[int]:
        return list(self._array.shape)


class Binding:
    """A binding that knows what is bound."""

    def __init__(self, real: Any) -> None:
        self.real, self.bound = real, {}

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        self.bound[name] = value
        self.real.bind_ortvalue_input(name, value.real)

    def bind_ortvalue_output(self, name: str, value: Value) -> None:
        self.bound[name] = value
        self.real.bind_ortvalue_output(name, value.real)

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self.bound[name] = array
        self.real.bind_cpu_input(name, array)


class Graph:
    """A session that captures as ONNX Runtime does, for each thread: it runs twice, later only with what was bound."""

    def __init__(self, real: Any) -> None:
        self.real, self.captured, self.runs = real, {}, []

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def io_binding(self) -> Binding:
        return Binding(self.real.io_binding())

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        graph_id = options.get_run_config_entry("gpu_graph_id")
        self.runs.append(graph_id)
        if graph_id != "-1":
            key = graph_id, threading.get_ident()
            if key not in self.captured:
                self.captured[key] = dict(binding.bound)
                self.real.run_with_iobinding(binding.real)
            assert binding.bound == self.captured[key]
        self.real.run_with_iobinding(binding.real)


class Opened:
    """A session without captures."""

    def __init__(self, model: bytes, options: Any, providers: list[str], enable_fallback: bool) -> None:
        assert providers == [CUDA, CPU] and not enable_fallback
        self.real = onnxruntime.InferenceSession(model, options, providers=[CPU])

    def io_binding(self) -> Binding:
        return Binding(self.real.io_binding())

    def run_with_iobinding(self, binding: Binding) -> None:
        self.real.run_with_iobinding(binding.real)


class Onnxruntime:
    """The module."""

    RunOptions, SessionOptions, InferenceSession = onnxruntime.RunOptions, onnxruntime.SessionOptions, Opened

    class OrtValue:
        ortvalue_from_numpy, ortvalue_from_shape_and_type = Value, Value.empty


@pytest.fixture
def host(bundle_of: Callable[[str, str], Path]) -> Session:
    return open_session(bundle_of("fp16", "fp16"), device="cpu")


@pytest.fixture
def on_device(bundle_of: Callable[[str, str], Path]) -> tuple[Session, Graph]:
    session = open_session(bundle_of("fp16", "fp16"), device="cpu")
    graph = Graph(session.graph(graph_io.DECODE))
    session.graph(graph_io.PREFILL)
    session._graphs[graph_io.DECODE] = graph  # type: ignore[assignment]
    session.device_tensors = DeviceTensors(Onnxruntime)
    return session, graph


def test_a_batch_size_is_captured_once_and_replayed(host: Session, on_device: tuple[Session, Graph]) -> None:
    session, graph = on_device
    for n, captured in ((3, 1), (3, 1), (2, 2), (2, 2)):
        options = GenerationOptions(n, seed=n)
        assert np.array_equal(generate_all(session, PRIMER, options), generate_all(host, PRIMER, options))
        assert len(graph.captured) == captured
    assert graph.runs == ["1"] * (2 * 44 + 1) + ["2"] * (2 * 44 + 1)  # once more where it is rehearsed


def test_loops_at_the_same_time_have_tensors_of_their_own(host: Session, on_device: tuple[Session, Graph]) -> None:
    session, graph = on_device
    options = [GenerationOptions(2, seed=seed) for seed in (1, 2)]
    both = list(zip(*(generate(session, PRIMER, o) for o in options), strict=True))
    for drawn, request in zip(zip(*both, strict=True), options, strict=True):
        assert np.array_equal(np.stack(drawn, axis=1), generate_all(host, PRIMER, request)[:, PRIMER.size :])
    assert len(graph.captured) == 2
    generate_all(session, PRIMER, options[0])
    assert len(graph.captured) == 2  # the last one's are kept


def test_another_thread_captures_anew(host: Session, on_device: tuple[Session, Graph]) -> None:
    session, graph = on_device
    options = GenerationOptions(2, seed=1)
    expected = generate_all(host, PRIMER, options)
    assert np.array_equal(generate_all(session, PRIMER, options), expected)
    with ThreadPoolExecutor(1) as pool:
        assert np.array_equal(pool.submit(generate_all, session, PRIMER, options).result(), expected)
    assert graph.runs == ["1"] * 2 * (44 + 1)


def test_any_tokens_can_be_fed(host: Session, on_device: tuple[Session, Graph]) -> None:
    tokens = np.random.default_rng(5).integers(0, 16, (1, 12))
    found = []
    for session in (host, on_device[0]):
        slots = prefill(session, PRIMER)
        step = DecodeStep(session, new_cache(session.manifest, 1, slots), GenerationOptions(), with_logits=True)
        logits, position = [], PRIMER.size
        for length in (1, 1, 5, 1, 4):
            first = position - PRIMER.size
            step(tokens[:, first : first + length], position, np.zeros(1, np.float32))
            logits.append(step.logits().copy())
            position += length
        found.append(logits)
    assert np.array_equal(found[0], found[1])
    assert on_device[1].runs == ["1", "1", "1", "-1", "1", "-1"]  # only the shapes of a step are captured


@pytest.mark.parametrize("length", [0, 1, 63])
def test_rows_that_begin_alike_are_made_on_the_device(on_device: tuple[Session, Graph], length: int) -> None:
    session, _ = on_device
    manifest = session.manifest
    slots = prefill(session, np.random.default_rng(6).integers(0, 16, length))
    step = DecodeStep(session, alike_cache(manifest, 3, slots), GenerationOptions())
    expected = new_cache(manifest, 3, slots).own
    for name, part in zip(graph_io.past_names(manifest.config), expected, strict=True):
        assert np.array_equal(step._tensors.read(name), part)


def test_drawn_tokens_are_copies_nobody_can_change(on_device: tuple[Session, Graph]) -> None:
    session, _ = on_device
    step = DecodeStep(session, new_cache(session.manifest, 2), GenerationOptions())
    drawn = step(np.full((2, 1), 16), 0, np.array([0.1, 0.9], np.float32))
    with pytest.raises(ValueError, match="read-only"):
        drawn[0] = 0


def test_a_full_device_is_told(on_device: tuple[Session, Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 8\nat somewhere")

    session, _ = on_device
    told = (
        "the GPU has no 0.00 GB left (Failed to allocate memory for requested buffer of size 8); "
        "draw fewer pictures at once, or use --device cpu"
    )
    for name in ("ortvalue_from_numpy", "ortvalue_from_shape_and_type"):
        with monkeypatch.context() as context:
            context.setattr(Onnxruntime.OrtValue, name, full)
            with pytest.raises(MemoryShortageError) as caught:
                generate_all(session, PRIMER, GenerationOptions(2))
        assert str(caught.value) == told


def test_what_a_failed_request_has_bound_is_not_kept(
    host: Session, on_device: tuple[Session, Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = on_device
    request = GenerationOptions(1, seed=1)
    for wrong in (KeyboardInterrupt, RuntimeError("CUDA failure 2: out of memory")):
        with monkeypatch.context() as context:
            fill = Mock(side_effect=[None, wrong])
            context.setitem(vars(session.device_tensors._repeater), "_graph", Mock(run_with_iobinding=fill))
            with pytest.raises((KeyboardInterrupt, MemoryShortageError)):
                generate_all(session, PRIMER, request)
        assert np.array_equal(generate_all(session, PRIMER, request), generate_all(host, PRIMER, request))


def test_pictures_that_do_not_fit_at_once_are_drawn_in_turn(
    host: Session, on_device: tuple[Session, Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = on_device
    asked: list[int] = []

    def empty(shape: list[int], *arguments: Any) -> Value:
        asked.append(shape[0])
        if shape[0] > 2:
            raise RuntimeError("Failed to allocate memory")
        return Value.empty(shape, *arguments)

    monkeypatch.setattr(Onnxruntime.OrtValue, "ortvalue_from_shape_and_type", empty)
    options = GenerationOptions(7, seed=3)
    drawn, costs = [], []
    found = generate_all(session, PRIMER, options, drawn.append, costs.append)
    assert np.array_equal(found, generate_all(host, PRIMER, options))
    assert asked[:2] == [7, 3] and set(asked[2:]) == {1}
    assert sum(drawn) == 7 * 44 and len(costs) == 1


def test_memory_that_is_short_later_is_told(on_device: tuple[Session, Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    session, graph = on_device
    drawn: list[int] = []

    def run(binding: Binding, options: Any) -> None:
        if drawn:
            raise MemoryShortageError("out of memory")
        Graph.run_with_iobinding(graph, binding, options)

    monkeypatch.setattr(graph, "run_with_iobinding", run, raising=False)
    with pytest.raises(MemoryShortageError):
        generate_all(session, PRIMER, GenerationOptions(3), drawn.append)
    assert drawn == [3]


def test_memory_that_was_taken_before_counts_as_free(on_device: tuple[Session, Graph]) -> None:
    session, _ = on_device
    tensors = session.device_tensors
    assert tensors.reusable_bytes() == 0
    loop = generate(session, PRIMER, GenerationOptions(3))
    next(loop)
    assert tensors.reusable_bytes() == 0  # in use
    del loop
    kept, row = tensors.reusable_bytes(), cache_bytes(session.manifest, 1, 0)
    assert 3 * row < kept < 4 * row
    loop = generate(session, PRIMER, GenerationOptions(2))
    next(loop)
    assert row < tensors.reusable_bytes() < 2 * row
    del loop
    assert tensors.reusable_bytes() == kept


def test_a_session_nobody_refers_to_gives_a_gpus_memory_back(on_device: tuple[Session, Graph]) -> None:
    gc.disable()
    try:
        session, _ = on_device
        generate_all(session, PRIMER, GenerationOptions(2))
        (tensors,) = (weakref.ref(kept) for _, _, kept in session.device_tensors._idle)
        session.device_tensors = DeviceTensors(Onnxruntime)
        assert tensors() is None  # without the garbage collector, which may come late
    finally:
        gc.enable()


class Cuda:
    """CUDA's runtime library, with two GPUs."""

    def __init__(self, *_: object, **__: object) -> None:
        self.current, self.failed = 1, 0

    def cudaGetDevice(self, device: Any) -> int:
        device._obj.value = self.current
        return 0

    def cudaSetDevice(self, device: Any) -> int:
        self.current = getattr(device, "value", device)
        return 0

    def cudaMemGetInfo(self, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = (5 << 30, 80 << 30) if self.current == 0 else (1, 1)
        return self.failed


def test_as_many_rows_as_fit(host: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = host.manifest
    assert memory.free_gpu_memory() is None  # without CUDA
    assert memory.rows_at_once_on_gpu(manifest, 1000, 0) == 250
    cuda = Cuda()
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: cuda)
    assert memory.free_gpu_memory() == 5 << 30 and cuda.current == 1
    row = cache_bytes(manifest, 1, 0)
    monkeypatch.setattr(memory, "_GPU_RESERVE", (5 << 30) * 9 // 10 - 10 * row)
    assert memory.rows_at_once_on_gpu(manifest, 100, 0) == 10
    assert memory.rows_at_once_on_gpu(manifest, 100, 5 * row) == 13  # 14 fit, and eight batches are of 13 at most
    assert memory.rows_at_once_on_gpu(manifest, 16, 0) == 8
    monkeypatch.setattr(memory, "_GPU_RESERVE", 5 << 30)
    assert memory.rows_at_once_on_gpu(manifest, 100, 0) == 1  # what does not fit is told by the GPU
    cuda.failed = 2
    assert memory.free_gpu_memory() is None


@pytest.mark.parametrize("given", [None, "1"])
def test_what_is_done_before_cuda_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str | None
) -> None:
    name = "ORT_ENABLE_XQA"
    monkeypatch.setenv(name, given or "")
    if given is None:
        monkeypatch.delenv(name)
    monkeypatch.setattr(cuda_start, "_prepared", False)
    ort = Mock(preload_dlls=Mock(side_effect=lambda: print("Failed to load libcurand.so.10")))
    for _ in range(2):
        cuda_start.prepare_cuda(ort)
    assert ort.preload_dlls.call_count == 1 and os.environ[name] == (given or "0")
    assert capsys.readouterr() == ("", "Failed to load libcurand.so.10\n")
    print("results")
    assert capsys.readouterr().out == "results\n"


def test_threads_that_open_sessions_leave_stdout_as_it_was() -> None:
    before = sys.stdout
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda _: _redirect(), range(200)):
            pass
    assert sys.stdout is before


def _redirect() -> None:
    with cuda_start.stdout_as_stderr():
        assert sys.stdout is sys.stderr


def test_only_fp16_bundles_are_on_the_device(tiny_bundle: Path, host: Session) -> None:
    session = open_session(tiny_bundle, device="cpu")
    providers = [CUDA, CPU]
    assert with_options(providers, session.manifest, decodes=True) == [(CUDA, {"use_tf32": "0"}), CPU]
    for decodes in (False, True):
        options = {"enable_skip_layer_norm_strict_mode": "1", "enable_cuda_graph": str(int(decodes))}
        assert with_options(providers, host.manifest, decodes=decodes) == [(CUDA, options), CPU]
    assert with_options([CPU], host.manifest, decodes=True) == [CPU]
    step = DecodeStep(session, new_cache(session.manifest, 1), GenerationOptions())
    assert isinstance(step._tensors, device.HostTensors)
