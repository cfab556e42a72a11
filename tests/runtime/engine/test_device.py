"""Decode steps on a device: a stand-in keeps copies where CUDA keeps device memory and reruns where it captures."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from igpt_runtime.bundle import graph_io
from igpt_runtime.engine import device, memory
from igpt_runtime.engine.device import CUDA, DeviceTensors, with_options
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

    def __init__(self, model: bytes, options: Any, providers: list[str]) -> None:
        assert providers == [CUDA, CPU]
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


def test_pictures_that_do_not_fit_at_once_are_drawn_in_turn(
    host: Session, on_device: tuple[Session, Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = on_device
    session.graph(graph_io.PREFILL)
    monkeypatch.setattr(session, "_providers", [CUDA, CPU])
    asked = []

    def empty(shape: list[int], *arguments: Any) -> Value:
        asked.append(shape[0])
        if shape[0] > 2:
            raise RuntimeError("Failed to allocate memory")
        return Value.empty(shape, *arguments)

    monkeypatch.setattr(Onnxruntime.OrtValue, "ortvalue_from_shape_and_type", empty)
    options = GenerationOptions(7, seed=3)
    assert np.array_equal(generate_all(session, PRIMER, options), generate_all(host, PRIMER, options))
    assert asked[:2] == [7, 3] and set(asked[2:]) == {1}


def test_memory_that_was_taken_before_counts_as_free(
    on_device: tuple[Session, Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = on_device
    tensors, manifest = session.device_tensors, session.manifest
    assert tensors.reusable_bytes() == 0
    loop = generate(session, PRIMER, GenerationOptions(3))
    next(loop)
    assert tensors.reusable_bytes() == 0  # in use
    del loop
    kept = tensors.reusable_bytes()
    row = cache_bytes(manifest, 1, 0)
    assert 3 * row < kept < 4 * row
    next(generate(session, PRIMER, GenerationOptions(2)))
    assert tensors.reusable_bytes() == kept
    monkeypatch.setattr(memory, "free_gpu_memory", lambda: 2 << 30)
    monkeypatch.setattr(memory, "_GPU_RESERVE", (2 << 30) - 10 * row)
    monkeypatch.setattr(memory, "_GPU_SHARE", 0.0)
    assert memory.rows_at_once_on_gpu(manifest, 100, loaded=True, kept=0) == 10
    assert memory.rows_at_once_on_gpu(manifest, 100, loaded=True, kept=3 * row) == 13
    assert memory.rows_at_once_on_gpu(manifest, 16, loaded=True, kept=3 * row) == 8  # in batches of like size
    weights = memory.weights_bytes(manifest)
    monkeypatch.setattr(memory, "free_gpu_memory", lambda: (2 << 30) + 2 * weights)
    assert memory.rows_at_once_on_gpu(manifest, 100, loaded=False, kept=0) == 10
    monkeypatch.setattr(memory, "free_gpu_memory", lambda: 0)
    assert memory.rows_at_once_on_gpu(manifest, 100, loaded=True, kept=0) == 1  # what does not fit is told by the GPU
    monkeypatch.setattr(memory, "free_gpu_memory", lambda: None)
    assert memory.rows_at_once_on_gpu(manifest, 1000, loaded=True, kept=0) == 250


def test_what_is_free_on_a_gpu_is_not_known_without_one() -> None:
    assert memory.free_gpu_memory() is None


@pytest.mark.parametrize("given", [None, "1"])
def test_sessions_take_the_attention_of_cudnn(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    name = "ORT_ENABLE_XQA"
    monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv(name, given)
    with device.attention_of_cudnn():
        assert os.environ[name] == (given or "0")
    assert os.environ.get(name) == given


def test_only_fp16_bundles_are_on_the_device(tiny_bundle: Path, host: Session) -> None:
    session = open_session(tiny_bundle, device="cpu")
    providers = [CUDA, CPU]
    assert with_options(providers, session.manifest, decodes=True) == providers
    for decodes in (False, True):
        options = {"enable_skip_layer_norm_strict_mode": "1", "enable_cuda_graph": str(int(decodes))}
        assert with_options(providers, host.manifest, decodes=decodes) == [(CUDA, options), CPU]
    assert with_options([CPU], host.manifest, decodes=True) == [CPU]
    step = DecodeStep(session, new_cache(session.manifest, 1), GenerationOptions())
    assert isinstance(step._tensors, device.HostTensors)
