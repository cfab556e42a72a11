"""One graph, two lives: kernels in ONNX Runtime, the ONNX reference evaluator, and inlined standard operators agree."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from igpt_export.model.ops import MICROSOFT
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.directory import WEIGHTS_FILE
from igpt_runtime.bundle.graph_io import TensorSpec
from igpt_runtime.engine.session import open_session

TOLERANCE = 1e-5
GRAPHS = [graph_io.PREFILL, graph_io.DECODE, graph_io.DECODE_SHARED]
PRECISIONS = [("fp32", "fp32"), ("fp32", "int8"), ("int8", "int8"), ("int4", "fp32"), ("fp16", "fp16")]
FUSED = {"QuickGelu": 3, "SkipSimplifiedLayerNormalization": 7, "GroupQueryAttention": 3}  # of 3 layers


def example(inputs: tuple[TensorSpec, ...], past_length: int = 9) -> dict[str, np.ndarray]:
    """Plausible values for a graph's inputs: 3 rows of one new token, `past_length` filled slots, 4 of them shared."""
    generator = np.random.default_rng(0)
    sizes = {
        graph_io.BATCH: 3, graph_io.SEQUENCE: 1 if len(inputs) > 1 else 7, graph_io.PREFIX: 4, graph_io.CAPACITY: 11,
    }  # fmt: skip
    scalars = {graph_io.PAST_LENGTH: past_length, graph_io.TEMPERATURE: 0.7, graph_io.TOP_K: 9, graph_io.TOP_P: 0.9}
    shared = any(spec.name.startswith("prefix.") for spec in inputs)
    feeds = {}
    for spec in inputs:
        shape = tuple(sizes[d] if isinstance(d, str) else d for d in spec.shape)
        if spec.name in scalars:
            value = np.array(scalars[spec.name])
        elif spec.name == graph_io.INPUT_IDS:
            value = generator.integers(0, 17, shape)
        elif spec.name == graph_io.UNIFORM:
            value = generator.random(shape)
        else:
            value = generator.integers(-99, 99, shape) if spec.dtype == "int8" else generator.standard_normal(shape)
            if spec.name.startswith("past_key_values."):
                value[:, :, past_length - 4 + 1 if shared else past_length :] = 0
                if shared:
                    value[..., -graph_io.SHARED_CHANNELS :] = 0
                    value[:, :, 0] = 0
                    value[:, :, 0, -graph_io.SHARED_CHANNELS] = graph_io.SENTINEL[spec.dtype]
        feeds[spec.name] = value.astype(spec.dtype)
    return feeds


def assert_close(expected: list[np.ndarray], actual: list[np.ndarray], tolerance: float) -> None:
    """Differences are relative to the largest value; rounding may move integers by one step, drawn tokens aside."""
    assert len(expected) == len(actual)
    for left, right in zip(expected, actual, strict=True):
        assert left.shape == right.shape and left.dtype == right.dtype
        if left.dtype == np.int64:
            assert tolerance > TOLERANCE or np.array_equal(left, right)
            continue
        largest = max(1.0, float(np.abs(left).max()))
        assert np.abs(left.astype(np.float64) - right).max() <= tolerance * largest + (left.dtype == np.int8)


def graphs_of(weights: str) -> list[str]:
    """The graphs that a bundle has."""
    return GRAPHS[:2] if weights == "fp16" else GRAPHS


@pytest.fixture(params=[(*p, g) for p in PRECISIONS for g in graphs_of(p[0])], ids=lambda p: "-".join(p))
def graph(
    request: pytest.FixtureRequest, bundle_of: Callable[[str, str], Path]
) -> tuple[Path, dict[str, np.ndarray], list[np.ndarray], float]:
    """A graph's path, inputs for it, what ONNX Runtime's kernels make of them, and how near others must come."""
    weights, kv_cache, name = request.param
    bundle = bundle_of(weights, kv_cache)
    session = open_session(bundle, device="cpu")
    feeds = example(session.manifest.graphs[name].inputs)
    # MatMulNBits rounds activations to 8 bits, its function does not.
    tolerance = {"fp16": 0.01, "int4": 0.2}.get(weights, TOLERANCE)
    return bundle / f"{name}.onnx", feeds, session.graph(name).run(None, feeds), tolerance


def test_reference_evaluator_agrees(graph: tuple[Path, dict[str, np.ndarray], list[np.ndarray], float]) -> None:
    path, feeds, expected, tolerance = graph
    assert_close(expected, ReferenceEvaluator(str(path)).run(None, feeds), tolerance)


def test_inlined_graph_is_standard_and_agrees(
    graph: tuple[Path, dict[str, np.ndarray], list[np.ndarray], float], tmp_path: Path
) -> None:
    path, feeds, expected, tolerance = graph
    inlined = onnx.inliner.inline_local_functions(onnx.load(path))
    onnx.save(inlined, tmp_path / "inlined.onnx")
    assert {node.domain for node in inlined.graph.node} == {""}
    assert not inlined.functions
    session = onnxruntime.InferenceSession(tmp_path / "inlined.onnx", providers=["CPUExecutionProvider"])
    assert_close(expected, session.run(None, feeds), tolerance)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_kernels_run_where_there_are_kernels(
    bundle_of: Callable[[str, str], Path], tmp_path: Path, weights: str, name: str
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as_run.onnx")
    options.log_severity_level = 3
    if name == graph_io.PREFILL:  # as the runtime opens it
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    bundle = bundle_of(weights, "fp32")
    onnxruntime.InferenceSession(bundle / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    as_run = onnx.load(tmp_path / "as_run.onnx", load_external_data=False)
    linear = {"fp32": {}, "int4": {"MatMulNBits": 12}, "int8": {"MatMulIntegerToFloat": 12}}[weights]
    known = {**FUSED, "MatMulNBits": 0, "MatMulIntegerToFloat": 0}
    assert Counter(node.op_type for node in as_run.graph.node if node.op_type in known) == {**FUSED, **linear}


@pytest.mark.parametrize("sequence", [1, 5])
def test_an_upper_bound_of_the_length_changes_nothing(
    bundle_of: Callable[[str, str], Path], tmp_path: Path, sequence: int
) -> None:
    """The fp16 decode graph tells the attention kernel its capacity instead of the length, which CUDA graphs need."""
    path = bundle_of("fp16", "fp16") / "decode.onnx"
    model = onnx.load(path)
    kernels = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    (bound,) = {node.input[6] for node in kernels}
    (value,) = (onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == bound)
    assert (value.dtype, value.shape, int(value)) == (np.int32, (), 64)
    feeds = example(open_session(path.parent, device="cpu").manifest.graphs[graph_io.DECODE].inputs)
    if sequence > 1:
        feeds = {name: v[:1] if v.ndim and len(v) == 3 else v for name, v in feeds.items()}
        feeds[graph_io.INPUT_IDS] = np.arange(sequence)[None]
    exact = np.array(feeds[graph_io.PAST_LENGTH] + sequence, np.int32)
    found = []
    for length in (value, exact):
        model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == bound))
        model.graph.initializer.append(onnx.numpy_helper.from_array(length, bound))
        assert {node.domain for node in kernels} == {MICROSOFT}
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found.append(session.run(None, feeds))
    for left, right in zip(*found, strict=True):
        assert np.array_equal(left, right)


@pytest.mark.parametrize(("weights", "name"), [(w, g) for w in ("fp32", "int8", "int4", "fp16") for g in graphs_of(w)])
def test_weights_lie_once_outside_the_graphs(bundle_of: Callable[[str, str], Path], weights: str, name: str) -> None:
    bundle = bundle_of(weights, "fp16" if weights == "fp16" else "fp32")
    model = onnx.load(bundle / f"{name}.onnx", load_external_data=False)
    onnx.checker.check_model(str(bundle / f"{name}.onnx"), full_check=True)
    tensors = [tensor for tensor in model.graph.initializer if tensor.external_data]
    assert {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"} == {
        WEIGHTS_FILE
    }
    inside = [tensor for tensor in model.graph.initializer if not tensor.external_data]
    assert all(np.prod(tensor.dims) <= 17 for tensor in inside)
    assert {path.name for path in bundle.iterdir() if path.suffix != ".onnx"} == {
        "manifest.json",
        WEIGHTS_FILE,
        "README.md",
    }


@pytest.mark.parametrize(
    ("weights", "kv_cache", "name"),
    [(*p, g) for p in (("fp32", "fp32"), ("fp32", "int8"), ("fp16", "fp16")) for g in graphs_of(p[0])],
)
def test_manifest_describes_the_graphs(
    bundle_of: Callable[[str, str], Path], weights: str, kv_cache: str, name: str
) -> None:
    session = open_session(bundle_of(weights, kv_cache), device="cpu")
    record, graph = session.manifest.graphs[name], session.graph(name)
    types = {
        "tensor(float)": "float32", "tensor(int64)": "int64", "tensor(int8)": "int8", "tensor(float16)": "float16",
    }  # fmt: skip
    for specs, arguments in ((record.inputs, graph.get_inputs()), (record.outputs, graph.get_outputs())):
        assert [(s.name, s.dtype, list(s.shape)) for s in specs] == [
            (a.name, types[a.type], a.shape) for a in arguments
        ]
