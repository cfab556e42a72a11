"""Graphs are put together of traced pieces: one block stands for all that are like it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from igpt_export import graphs
from igpt_export.checkpoint import Checkpoint, load_checkpoint
from igpt_export.export import export_bundle
from igpt_export.graphs import trace_graphs
from igpt_export.model import Parts
from igpt_export.precision import Precision
from igpt_export.trace import read_sizes_from
from igpt_runtime import names

BUNDLE_GRAPHS = (names.PREFILL, names.DECODE, names.DECODE_SHARED)


def traced_blocks(checkpoint: Checkpoint, weights: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The pieces that are blocks of what is traced when the graphs of a checkpoint are made."""
    seen: set[str] = set()
    original = graphs.trace

    def spy(module: object, pieces: dict[str, object]) -> object:
        seen.update(pieces)
        return original(module, pieces)  # type: ignore[arg-type]

    monkeypatch.setattr(graphs, "trace", spy)
    made = trace_graphs(checkpoint, Parts.of(checkpoint.tensors), Precision(), weights, embed=False)
    assert set(BUNDLE_GRAPHS) <= made.keys()
    return {name for name in seen if "/h." in name}


def test_one_block_is_traced_for_all(
    tiny_checkpoint: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    assert checkpoint.config.n_layer > 1
    found = traced_blocks(checkpoint, tiny_bundle / "weights.safetensors", monkeypatch)
    assert found == {f"{graph}/h.0" for graph in BUNDLE_GRAPHS}


def test_blocks_that_differ_are_each_traced_and_verified(
    tiny_checkpoint: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    config = replace(checkpoint.config, scale_attn_by_inverse_layer_idx=True)
    checkpoint = replace(checkpoint, config=config)
    found = traced_blocks(checkpoint, tiny_bundle / "weights.safetensors", monkeypatch)
    assert found == {f"{graph}/h.{layer}" for graph in BUNDLE_GRAPHS for layer in range(config.n_layer)}
    export_bundle(checkpoint, tmp_path / "bundle")
    nodes = onnx.load(tmp_path / "bundle" / "decode.onnx", load_external_data=False).graph.node
    scales = [
        attribute.f
        for node in nodes
        if node.op_type == "GroupQueryAttention"
        for attribute in node.attribute
        if attribute.name == "scale"
    ]
    assert scales == pytest.approx([config.attention_scale(layer) for layer in range(config.n_layer)])


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("name", BUNDLE_GRAPHS)
def test_a_graph_names_its_parts_and_reads_sizes_once(
    bundle_of: Callable[[str, str], Path], name: str, precision: str
) -> None:
    graph = ir.load(bundle_of(precision, precision if precision == "fp32" else "int8") / f"{name}.onnx").graph
    blocks = {node.name.split("/")[0] for node in graph if str(node.name).startswith("h.")}
    assert blocks == {f"h.{layer}" for layer in range(len(blocks))} and len(blocks) > 1
    weights = {value.name for value in graph.initializers.values() if isinstance(value.const_value, ir.ExternalTensor)}
    for layer in range(len(blocks)):
        own = {str(weight).removeprefix(f"h.{layer}.") for weight in weights if str(weight).startswith(f"h.{layer}.")}
        assert own == {str(weight).removeprefix("h.0.") for weight in weights if str(weight).startswith("h.0.")}
    sizes = [(node.inputs[0], node.attributes["start"].as_int()) for node in graph if node.op_type == "Shape"]
    assert len(sizes) == len(set(sizes)) and {value for value, _ in sizes} <= set(graph.inputs)


def test_sizes_are_read_from_the_first_input_that_has_them() -> None:
    first, second = (ir.val(name, ir.DataType.FLOAT, ir.Shape(shape)) for name, shape in (
        ("first", [4, "batch"]), ("second", ["batch", "other", 3]),
    ))  # fmt: skip
    nodes = [
        ir.node("Shape", [second], {"start": axis, "end": axis + 1}, name=f"axis {axis}") for axis in range(3)
    ] + [ir.node("Shape", [second], name="all")]
    graph = ir.Graph([first, second], [node.outputs[0] for node in nodes], nodes=nodes, name="sizes")
    read_sizes_from([first], graph)
    places = [(node.inputs[0], *(node.attributes[k].as_int() for k in ("start", "end") if k in node.attributes)) for node in nodes]
    assert places == [(first, 1, 2), (second, 1, 2), (second, 2, 3), (second,)]
