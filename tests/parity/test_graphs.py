"""One graph, two lives: kernels in ONNX Runtime, the ONNX reference evaluator, and inlined standard operators agree."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from igpt_runtime import names
from igpt_runtime.manifest import WEIGHTS_FILE
from igpt_runtime.names import TensorSpec
from igpt_runtime.session import open_session

TOLERANCE = 1e-5
GRAPHS = [names.PREFILL, names.DECODE]
FUSED = {"QuickGelu": 3, "SkipSimplifiedLayerNormalization": 7, "GroupQueryAttention": 3}  # of 3 layers


def example(inputs: tuple[TensorSpec, ...], past_length: int = 9) -> dict[str, np.ndarray]:
    """Plausible values for a graph's inputs: 3 rows, 2 new tokens, `past_length` filled slots."""
    generator = np.random.default_rng(0)
    sizes = {names.BATCH: 3, names.SEQUENCE: 1 if len(inputs) > 1 else 7}
    scalars = {names.PAST_LENGTH: past_length, names.TEMPERATURE: 0.7, names.TOP_K: 9, names.TOP_P: 0.9}
    feeds = {}
    for spec in inputs:
        shape = tuple(sizes[d] if isinstance(d, str) else d for d in spec.shape)
        if spec.name in scalars:
            value = np.array(scalars[spec.name])
        elif spec.name == names.INPUT_IDS:
            value = generator.integers(0, 17, shape)
        elif spec.name == names.UNIFORM:
            value = generator.random(shape)
        else:
            value = generator.standard_normal(shape)
            value[:, :, past_length:] = 0
        feeds[spec.name] = value.astype(spec.dtype)
    return feeds


def assert_close(expected: list[np.ndarray], actual: list[np.ndarray]) -> None:
    assert len(expected) == len(actual)
    for left, right in zip(expected, actual, strict=True):
        assert left.shape == right.shape and left.dtype == right.dtype
        assert np.abs(left - right).max() <= TOLERANCE


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest, tiny_bundle: Path) -> tuple[Path, dict[str, np.ndarray], list[np.ndarray]]:
    """A graph's path, inputs for it, and what ONNX Runtime's kernels make of them."""
    session = open_session(tiny_bundle, device="cpu")
    feeds = example(session.manifest.graphs[request.param].inputs)
    return tiny_bundle / f"{request.param}.onnx", feeds, session.graph(request.param).run(None, feeds)


def test_reference_evaluator_agrees(graph: tuple[Path, dict[str, np.ndarray], list[np.ndarray]]) -> None:
    path, feeds, expected = graph
    assert_close(expected, ReferenceEvaluator(str(path)).run(None, feeds))


def test_inlined_graph_is_standard_and_agrees(
    graph: tuple[Path, dict[str, np.ndarray], list[np.ndarray]], tmp_path: Path
) -> None:
    path, feeds, expected = graph
    inlined = onnx.inliner.inline_local_functions(onnx.load(path))
    onnx.save(inlined, tmp_path / "inlined.onnx")
    assert {node.domain for node in inlined.graph.node} == {""}
    assert not inlined.functions
    session = onnxruntime.InferenceSession(tmp_path / "inlined.onnx", providers=["CPUExecutionProvider"])
    assert_close(expected, session.run(None, feeds))


@pytest.mark.parametrize("name", GRAPHS)
def test_kernels_run_where_there_are_kernels(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as_run.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tiny_bundle / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    as_run = onnx.load(tmp_path / "as_run.onnx", load_external_data=False)
    assert Counter(node.op_type for node in as_run.graph.node if node.op_type in FUSED) == FUSED


@pytest.mark.parametrize("name", GRAPHS)
def test_weights_lie_once_outside_the_graphs(tiny_bundle: Path, name: str) -> None:
    model = onnx.load(tiny_bundle / f"{name}.onnx", load_external_data=False)
    onnx.checker.check_model(str(tiny_bundle / f"{name}.onnx"), full_check=True)
    weights = [tensor for tensor in model.graph.initializer if tensor.external_data]
    assert {entry.value for tensor in weights for entry in tensor.external_data if entry.key == "location"} == {
        WEIGHTS_FILE
    }
    inside = [tensor for tensor in model.graph.initializer if not tensor.external_data]
    assert all(np.prod(tensor.dims) <= 17 for tensor in inside)
    assert sorted(path.name for path in tiny_bundle.iterdir()) == [
        "decode.onnx", "manifest.json", "prefill.onnx", WEIGHTS_FILE,
    ]  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_manifest_describes_the_graphs(tiny_bundle: Path, name: str) -> None:
    session = open_session(tiny_bundle, device="cpu")
    record, graph = session.manifest.graphs[name], session.graph(name)
    types = {"tensor(float)": "float32", "tensor(int64)": "int64"}
    for specs, arguments in ((record.inputs, graph.get_inputs()), (record.outputs, graph.get_outputs())):
        assert [(s.name, s.dtype, list(s.shape)) for s in specs] == [
            (a.name, types[a.type], a.shape) for a in arguments
        ]
