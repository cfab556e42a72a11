"""Sessions: devices that are used or refused, onnxruntime that is missing or doubled, graphs opened when needed."""

import gc
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from igpt_export.precision import default_kv_cache
from igpt_runtime import names
from igpt_runtime import session as session_module
from igpt_runtime.bundle import Bundle
from igpt_runtime.cache import graph_for
from igpt_runtime.complete import complete
from igpt_runtime.errors import BundleError, DeviceError, OptionError
from igpt_runtime.features import classify, features
from igpt_runtime.generate import GenerationOptions, prefill, start_cache
from igpt_runtime.session import open_session

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
PICTURE = Image.new("RGB", (8, 8), "red")


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that bundles hash, as they do it."""
    files: list[str] = []
    original = Bundle.check_file
    monkeypatch.setattr(Bundle, "check_file", lambda self, name: files.append(name) or original(self, name))
    return files


def test_cuda_is_refused_where_there_is_none(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(DeviceError) as caught:
        open_session(tiny_bundle, device="cuda")
    assert str(caught.value).startswith("CUDA was asked for but this onnxruntime has no CUDA provider; run: pip")
    assert open_session(tiny_bundle).provider == CPU


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="CUDA would start")
def test_cuda_that_does_not_start_is_refused(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ONNX Runtime's own note
        with pytest.raises(DeviceError, match="CUDA was asked for but ONNX Runtime could not start it; check the"):
            open_session(tiny_bundle, device="cuda").graph(names.DECODE)
        assert open_session(tiny_bundle, device="cpu").graph(names.DECODE).get_providers() == [CPU]
        session = open_session(tiny_bundle, device="auto")
        assert session.provider == CUDA
        complete(session, PICTURE, GenerationOptions(1))
        assert session.provider == CPU  # what runs, not what was hoped for


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'; choose one of auto, cpu, cuda"),
        ({"device": "CPU"}, "unknown device 'CPU'; choose one of auto, cpu, cuda"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"threads": -1}, "threads must be at least 1, got -1"),
    ],
)
def test_bad_arguments(tiny_bundle: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        open_session(tiny_bundle, **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_threads_are_passed_on(tiny_bundle: Path) -> None:
    graph = open_session(tiny_bundle, device="cpu", threads=1).graph(names.DECODE)
    assert graph.get_session_options().intra_op_num_threads == 1


def test_onnxruntime_missing(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError) as caught:
        open_session(tiny_bundle)
    message = str(caught.value)
    assert message.startswith("onnxruntime cannot be imported (") and "pip install 'igpt-onnx[cpu]'" in message


def fake_distribution(site: Path, name: str) -> None:
    directory = site / f"{name.replace('-', '_')}-1.0.dist-info"
    directory.mkdir(parents=True)
    (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


@pytest.mark.parametrize(
    ("onnxruntime_source", "distributions", "expected"),
    [
        pytest.param(None, ["onnxruntime", "onnxruntime-gpu"], "both onnxruntime and onnxruntime-gpu", id="both"),
        pytest.param(
            "raise ImportError('libcudart.so.13: cannot open\\nshared object')",
            [],
            "Error: onnxruntime cannot be imported (libcudart.so.13: cannot open shared object)",
            id="broken",
        ),
    ],
)
def test_command_line_with_a_wrong_onnxruntime(
    tiny_bundle: Path, tmp_path: Path, onnxruntime_source: str | None, distributions: list[str], expected: str
) -> None:
    for name in distributions:
        fake_distribution(tmp_path, name)
    if onnxruntime_source is not None:
        (tmp_path / "onnxruntime.py").write_text(onnxruntime_source)
    command = [sys.executable, "-m", "igpt_runtime.cli", "info", "--model", str(tiny_bundle)]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr and "pip install" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "precision, memory, order",
    [
        ("fp32", None, [names.DECODE, names.PREFILL]),
        ("fp32", 1 << 40, [names.DECODE, names.PREFILL]),
        ("fp32", 0, [names.PREFILL, names.DECODE]),  # the weights do not fit twice
        ("int8", None, [names.PREFILL, names.DECODE_SHARED]),
        ("int4", None, [names.PREFILL, names.DECODE]),
    ],
)
def test_completing_opens_what_it_uses(
    bundle_of: Callable[[str, str], Path], checked: list[str], monkeypatch: pytest.MonkeyPatch,
    precision: str, memory: int | None, order: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(session_module, "available_memory", lambda: memory)
    session = open_session(bundle_of(precision, default_kv_cache(precision)), device="cpu")
    assert checked == []
    for _ in range(2):
        complete(session, PICTURE, GenerationOptions(1))
    first, second = (f"{name}.onnx" for name in order)
    assert sorted(checked[:2]) == sorted([first, "weights.safetensors"])  # at the same time
    assert checked[2:] == [second]
    complete(session, PICTURE, GenerationOptions(8))
    assert checked[3:] == ([] if names.DECODE_SHARED in order else ["decode_shared.onnx"])


def test_on_a_gpu_prefill_is_opened_first(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(tiny_bundle, device="cpu")
    monkeypatch.setattr(session, "_providers", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    session.open_early(names.DECODE)
    assert not session.holds_weights


def test_prefill_gives_its_memory_back(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[bool] = []
    session = open_session(tiny_bundle, device="cpu")
    see = lambda: returned.append(names.PREFILL in session._graphs)  # noqa: E731
    monkeypatch.setattr(session_module, "return_freed_memory", see)
    with session.borrowed(names.PREFILL):
        assert returned == []
    assert returned == [False]


@pytest.mark.parametrize("rows", [1, 5, 6, 8])
@pytest.mark.parametrize("length", [0, 15, 16])
def test_the_graph_for_a_cache_is_foretold(
    bundle_of: Callable[[str, str], Path], rows: int, length: int
) -> None:
    for precision in ("fp32", "int8", "int4"):
        session = open_session(bundle_of(precision, default_kv_cache(precision)), device="cpu")
        slots = prefill(session, np.zeros(length, np.int64))
        assert graph_for(session.manifest, rows, length) == start_cache(session, slots, rows).graph


def test_features_open_the_prefill_graph_only(tiny_bundle: Path, checked: list[str]) -> None:
    session = open_session(tiny_bundle, device="cpu")
    features(session, [PICTURE])
    classify(session, [PICTURE])
    assert sorted(checked) == ["prefill.onnx", "weights.safetensors"]
    complete(session, PICTURE, GenerationOptions(1))
    assert checked[2:] == ["decode.onnx"]
    assert session.graph(names.DECODE) is session.graph(names.DECODE)


def test_altered_weights_are_told_before_a_graph_runs(bundle_copy: Path) -> None:
    weights = bundle_copy / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    session = open_session(bundle_copy, device="cpu")
    for _ in range(2):  # also the second time
        with pytest.raises(BundleError, match="does not match its sha256"):
            session.graph(names.DECODE)
    assert not session.holds_weights
    data[-1] ^= 1
    weights.write_bytes(data)
    assert session.graph(names.DECODE) is not None  # a failure is not kept


def test_a_session_nobody_refers_to_gives_its_memory_back(tiny_bundle: Path) -> None:
    gc.disable()
    try:
        session = open_session(tiny_bundle, device="cpu")
        session.graph(names.DECODE)
        gone = weakref.ref(session)
        del session
        assert gone() is None  # without the garbage collector, which may come late
    finally:
        gc.enable()
