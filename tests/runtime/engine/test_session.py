"""Sessions: devices that are used or refused, onnxruntime that is missing or doubled, graphs opened when needed."""

import gc
import hashlib
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from igpt_export.precision.precision import default_kv_cache
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.bundle import Bundle
from igpt_runtime.engine import session as session_module
from igpt_runtime.engine.generate import GenerationOptions, generate
from igpt_runtime.engine.session import open_session
from igpt_runtime.errors import BundleError, DeviceError, OptionError
from igpt_runtime.tasks.classify import classify
from igpt_runtime.tasks.complete import complete
from igpt_runtime.tasks.features import features
from igpt_runtime.tasks.score import score

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
def test_cuda_that_does_not_start_is_refused(
    tiny_bundle: Path, bundle_of: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ONNX Runtime's own note
        with pytest.raises(DeviceError, match="CUDA was asked for but ONNX Runtime could not start it; igpt"):
            open_session(tiny_bundle, device="cuda").graph(graph_io.DECODE)
        assert open_session(tiny_bundle, device="cpu").graph(graph_io.DECODE).get_providers() == [CPU]
        assert open_session(tiny_bundle, device="auto").provider == CPU  # CUDA is for fp16
        session = open_session(bundle_of("fp16", "fp16"), device="auto")
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
    graph = open_session(tiny_bundle, device="cpu", threads=1).graph(graph_io.DECODE)
    assert graph.get_session_options().intra_op_num_threads == 1


def test_onnxruntime_missing(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError) as caught:
        open_session(tiny_bundle)
    message = str(caught.value)
    assert message.startswith("onnxruntime cannot be imported (") and "pip install onnxruntime" in message


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
    command = [sys.executable, "-m", "igpt_runtime", "info", "--model", str(tiny_bundle)]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr and "pip install" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_completing_opens_what_it_uses(
    bundle_of: Callable[[str, str], Path], checked: list[str], precision: str
) -> None:
    session = open_session(bundle_of(precision, default_kv_cache(precision)), device="cpu")
    assert checked == []
    for _ in range(2):
        complete(session, PICTURE, GenerationOptions(1))
    decoder = "decode_shared.onnx" if precision == "int8" else "decode.onnx"
    assert checked[0] == "prefill.onnx"
    assert sorted(checked[1:]) == sorted([decoder, "weights.safetensors"])  # at the same time
    complete(session, PICTURE, GenerationOptions(8))
    assert checked[3:] == ([] if precision == "int8" else ["decode_shared.onnx"])


def test_a_graph_that_runs_once_gives_its_memory_back(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(tiny_bundle, device="cpu")
    opened: list[weakref.ref[onnxruntime.InferenceSession]] = []
    original = session._open
    monkeypatch.setattr(session, "_open", lambda *a: opened.append(weakref.ref(graph := original(*a))) or graph)
    returned: list[bool] = []
    monkeypatch.setattr(session_module, "return_freed_memory", lambda: returned.append(opened[-1]() is None))
    fed = {graph_io.INPUT_IDS: np.zeros((1, 4), np.int64)}
    (once,) = session.run_once(graph_io.PREFILL, [graph_io.LOGITS], fed)
    assert returned == [True] and len(opened) == 1
    graph = session.graph(graph_io.PREFILL)
    (again,) = session.run_once(graph_io.PREFILL, [graph_io.LOGITS], fed)
    assert returned == [True] and len(opened) == 2 and session.graph(graph_io.PREFILL) is graph
    assert (once == again).all()


@pytest.mark.parametrize("starts", [False, True])
def test_on_a_gpu_it_stays_open(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, starts: bool) -> None:
    session = open_session(tiny_bundle, device="cpu")
    graph = session.graph(graph_io.PREFILL)
    del session._graphs[graph_io.PREFILL]
    opened = Mock(return_value=graph)
    monkeypatch.setattr(session, "_providers", [CUDA, CPU])
    monkeypatch.setattr(session, "_open", opened)
    monkeypatch.setattr(session_module, "is_on_cuda", lambda _: starts)
    for _ in range(2):
        session.run_once(graph_io.PREFILL, [graph_io.LOGITS], {graph_io.INPUT_IDS: np.zeros((1, 4), np.int64)})
    assert opened.call_count == (1 if starts else 2)


@pytest.mark.parametrize("rows", [1, 8])
def test_altered_weights_are_told_before_a_token_is_drawn(bundle_copy: Path, rows: int) -> None:
    weights = bundle_copy / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    session = open_session(bundle_copy, device="cpu")
    seen: list[int] = []
    for _ in range(2):
        with pytest.raises(BundleError, match="does not match its sha256"):
            complete(session, PICTURE, GenerationOptions(rows), progress=seen.append)
        drawn = generate(session, np.zeros(20, np.int64), GenerationOptions(rows))
        with pytest.raises(BundleError, match="does not match its sha256"):
            next(drawn)
    assert seen == []


def test_cut_weights_are_told_before_prefill(bundle_copy: Path) -> None:
    weights = bundle_copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BundleError, match="bytes instead of"):
        complete(open_session(bundle_copy, device="cpu"), PICTURE, GenerationOptions(1))


def test_features_open_the_prefill_graph_only(tiny_bundle: Path, checked: list[str]) -> None:
    session = open_session(tiny_bundle, device="cpu")
    features(session, [PICTURE])
    classify(session, [PICTURE])
    assert sorted(checked) == ["prefill.onnx", "weights.safetensors"]
    complete(session, PICTURE, GenerationOptions(1))
    assert checked[2:] == ["decode.onnx"]
    assert session.graph(graph_io.DECODE) is session.graph(graph_io.DECODE)


def test_altered_weights_are_told_before_a_graph_runs(bundle_copy: Path) -> None:
    weights = bundle_copy / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    session = open_session(bundle_copy, device="cpu")
    for _ in range(2):  # also the second time
        with pytest.raises(BundleError, match="does not match its sha256"):
            session.graph(graph_io.DECODE)
    assert not session.holds_weights
    data[-1] ^= 1
    weights.write_bytes(data)
    assert session.graph(graph_io.DECODE) is not None  # a failure is not kept


def test_a_session_nobody_refers_to_gives_its_memory_back(tiny_bundle: Path) -> None:
    gc.disable()
    try:
        session = open_session(tiny_bundle, device="cpu")
        session.graph(graph_io.DECODE)
        gone = weakref.ref(session)
        del session
        assert gone() is None  # without the garbage collector, which may come late
    finally:
        gc.enable()


@pytest.mark.parametrize(("release", "old"), [("1.24.3", True), ("1.25.0", False), ("1.9.0", True), ("2.0.0", False)])
def test_an_onnxruntime_that_is_too_old(monkeypatch: pytest.MonkeyPatch, release: str, old: bool) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", release)
    if not old:
        open_session()
        return
    with pytest.raises(
        DeviceError, match=rf"demo needs ONNX Runtime 1\.25 or newer, and {release} is installed, which"
    ):
        open_session()


def test_a_pinned_bundle(bundle_copy: Path) -> None:
    manifest = bundle_copy / "manifest.json"
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert open_session(bundle_copy, sha256=digest.upper()).manifest.name
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(
        BundleError, match=rf"manifest.json has the SHA-256 \w{{64}}, not {digest}: it is not the bundle"
    ):
        open_session(bundle_copy, sha256=digest)
    with pytest.raises(OptionError, match="sha256 must be 64 hexadecimal digits, got '12'"):
        open_session(bundle_copy, sha256="12")


def with_nan(bundle: Path, replace_file: Callable[[Path, str, bytes], None]) -> Path:
    """The bundle with weights that are no numbers, and their right hash."""
    data = (bundle / "weights.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    nan = np.full((len(data) - start) // 4, np.nan, np.float32)
    replace_file(bundle, "weights.safetensors", data[:start] + nan.tobytes())
    return bundle


def test_what_is_no_number_is_no_result(bundle_copy: Path, replace_file: Callable[[Path, str, bytes], None]) -> None:
    session = open_session(with_nan(bundle_copy, replace_file), device="cpu")
    for ask in (
        lambda: complete(session, PICTURE, GenerationOptions(1)),
        lambda: complete(session, PICTURE, GenerationOptions(8)),
        lambda: classify(session, PICTURE),
        lambda: features(session, PICTURE),
        lambda: list(score(session, PICTURE)),
    ):
        with pytest.raises(BundleError, match="computes NaN or infinity"):
            ask()


def test_onnxruntime_prints_nothing_besides(
    bundle_copy: Path, replace_file: Callable[[Path, str, bytes], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither when a graph is opened nor when it runs."""
    for change in (_wrong_operator, _wrong_size):
        model = onnx.ModelProto.FromString((bundle_copy / "prefill.onnx").read_bytes())
        change(model)
        replace_file(bundle_copy, "prefill.onnx", model.SerializeToString())
        with pytest.raises(Exception, match="Nothing|Reshape"):
            open_session(bundle_copy, device="cpu").graph(graph_io.PREFILL).run(None, {graph_io.INPUT_IDS: [[1, 2]]})
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


def _wrong_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Nothing"


def _wrong_size(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Shape"
    model.graph.initializer.append(onnx.helper.make_tensor("five", onnx.TensorProto.INT64, [1], [5]))
    model.graph.node.append(onnx.helper.make_node("Reshape", [graph_io.INPUT_IDS, "five"], ["unused"]))
