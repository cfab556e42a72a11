"""Graphs are put together of traced pieces: one block stands for all that are like it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.graphs import bundle_graphs as graphs
from igpt_export.graphs.trace import Piece, TracedPiece, read_sizes_from
from igpt_export.precision.precision import Precision, default_kv_cache
from igpt_runtime import open_session
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import Classifier

TRACED = (graph_io.PREFILL, graph_io.DECODE, graph_io.DECODE_SHARED)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The names of the blocks among the pieces of each call of the tracer, as they are made."""
    calls: list[set[str]] = []
    original = graphs.trace

    def spy(module: nn.Module, pieces: Mapping[str, Piece]) -> dict[str, TracedPiece]:
        calls.append({name for name in pieces if "h." in name})
        return original(module, pieces)

    monkeypatch.setattr(graphs, "trace", spy)
    return calls


def scales_of(path: Path) -> list[float]:
    """Of the attention nodes of a graph, in order."""
    nodes = [node for node in ir.load(path).graph if node.op_type == "GroupQueryAttention"]
    return [node.attributes["scale"].as_float() for node in nodes]


def test_one_block_is_traced_for_all(tiny_checkpoint: Path, tmp_path: Path, traced: list[set[str]]) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    assert checkpoint.config.n_layer > 1
    export_bundle(checkpoint, tmp_path / "bundle")
    assert traced == [{f"{graph}/h.0" for graph in TRACED}]
    for graph in TRACED:
        scales = scales_of(tmp_path / "bundle" / f"{graph}.onnx")
        assert scales == pytest.approx([checkpoint.config.attention_scale(0)] * checkpoint.config.n_layer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"precision": Precision("int8", "int8"), "embed": True, "profile": "portable"}],
    ids=["fp32", "int8"],
)
def test_blocks_of_other_scales_are_traced_too(
    tiny_checkpoint: Path, tmp_path: Path, traced: list[set[str]], options: dict[str, Any]
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    config = replace(checkpoint.config, scale_attn_by_inverse_layer_idx=True)
    asked = ExportOptions(**options | ({"max_loss_increase": float("inf")} if options else {}))
    export_bundle(replace(checkpoint, config=config), tmp_path / "bundle", asked)  # which compares with torch
    assert traced == [{f"h.{layer}" for layer in range(config.n_layer)}] * len(TRACED)
    if not options:  # the portable profile has other nodes
        scales = scales_of(tmp_path / "bundle" / "decode.onnx")
        assert scales == pytest.approx([config.attention_scale(layer) for layer in range(config.n_layer)])


@pytest.mark.slow
def test_a_model_of_one_layer(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    dropped = ("classifier.", *(f"h.{layer}." for layer in range(1, checkpoint.config.n_layer)))
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith(dropped)}
    one = replace(checkpoint, config=replace(checkpoint.config, n_layer=1), tensors=tensors, classifier=None)
    assert export_bundle(one, tmp_path / "bundle", ExportOptions(embed=True)).config.n_layer == 1


@pytest.mark.parametrize("protocol", [pytest.param("hf", marks=pytest.mark.slow), "paper"])
def test_a_classifier_of_several_layers(tiny_checkpoint: Path, tmp_path: Path, protocol: str) -> None:
    """In another order than that of the layers; the export compares class logits with torch."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    config = checkpoint.config
    layers = (config.n_layer, 0, 1)
    weight = torch.randn(2, len(layers) * config.n_embd, generator=torch.Generator().manual_seed(0))
    tensors = {name: t for name, t in checkpoint.tensors.items() if not name.startswith("classifier.")}
    tensors |= {"classifier.weight": weight, "classifier.bias": torch.zeros(2)}
    classifier = Classifier(("left", "right"), layers, protocol)
    export_bundle(
        replace(checkpoint, tensors=tensors, classifier=classifier), tmp_path / "bundle", ExportOptions(embed=True)
    )
    rows = np.random.default_rng(1).integers(0, config.n_clusters, (3, config.n_positions))
    prefill = open_session(tmp_path / "bundle", device="cpu").graph(graph_io.PREFILL)
    wanted = [graph_io.CLASS_LOGITS, graph_io.FEATURES if protocol == "hf" else graph_io.NORMED_FEATURES]
    logits, features = prefill.run(wanted, {graph_io.INPUT_IDS: rows})
    expected = features[:, list(layers)].reshape(3, -1) @ weight.numpy().T
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize(
    "precision, name",
    [(precision, name) for precision in ("fp32", "int8", "int4") for name in TRACED]
    + [("fp16", graph_io.PREFILL), ("fp16", graph_io.DECODE)],
)
def test_a_graph_names_its_parts_and_reads_sizes_once(
    bundle_of: Callable[[str, str], Path], precision: str, name: str
) -> None:
    graph = ir.load(bundle_of(precision, default_kv_cache(precision)) / f"{name}.onnx").graph
    blocks = {node.name.split("/")[0] for node in graph if str(node.name).startswith("h.")}
    assert blocks == {f"h.{layer}" for layer in range(len(blocks))} and len(blocks) > 1
    weights = {value.name for value in graph.initializers.values() if isinstance(value.const_value, ir.ExternalTensor)}
    for layer in range(len(blocks)):
        own = {str(weight).removeprefix(f"h.{layer}.") for weight in weights if str(weight).startswith(f"h.{layer}.")}
        assert own == {str(weight).removeprefix("h.0.") for weight in weights if str(weight).startswith("h.0.")}
    sizes = [(node.inputs[0], node.attributes["start"].as_int()) for node in graph if node.op_type == "Shape"]
    assert len(sizes) == len(set(sizes)) and {value for value, _ in sizes} <= set(graph.inputs)


def test_sizes_are_read_from_the_first_input_that_has_them() -> None:
    first, second = (
        ir.val(name, ir.DataType.FLOAT, ir.Shape(shape))
        for name, shape in (("first", [4, "batch"]), ("second", ["batch", "other", 3]))
    )
    nodes = [ir.node("Shape", [second], {"start": axis, "end": axis + 1}, name=f"axis {axis}") for axis in range(3)] + [
        ir.node("Shape", [second], name="all")
    ]
    graph = ir.Graph([first, second], [node.outputs[0] for node in nodes], nodes=nodes, name="sizes")
    read_sizes_from([first], graph)
    places = [(node.inputs[0], node.attributes.get_int("start"), node.attributes.get_int("end")) for node in nodes]
    assert places == [(first, 1, 2), (second, 1, 2), (second, 2, 3), (second, None, None)]


@pytest.mark.parametrize("name", [graph_io.PREFILL, graph_io.DECODE])
def test_norms_of_fp16_add_the_biases_before_them(bundle_of: Callable[[str, str], Path], name: str) -> None:
    graph = onnx.load(bundle_of("fp16", "fp16") / f"{name}.onnx", load_external_data=False).graph
    norms = [node for node in graph.node if node.op_type == "SkipSimplifiedLayerNormalization"]
    expected = [f"h.{layer}.{part}.c_proj.bias" for layer in range(3) for part in ("attn", "mlp")]
    first, *added = [norm.input[3] for norm in norms]
    assert added == expected and len(norms) == 7
    (zeros,) = [node for node in graph.node if first in node.output]  # all norms of a graph have one portable body
    assert not onnx.numpy_helper.to_array(zeros.attribute[0].t).any()
    # What is left are the biases of the products that the attention and the activation read.
    biased = [node.input[1] for node in graph.node if node.op_type == "Add" and node.input[1].endswith(".bias")]
    assert sorted(biased) == sorted(
        f"h.{layer}.{part}.bias" for layer in range(3) for part in ("attn.c_attn", "mlp.c_fc")
    )


def test_norms_of_fp32_add_nothing(tiny_bundle: Path) -> None:
    graph = onnx.load(tiny_bundle / "decode.onnx", load_external_data=False).graph
    norms = [node for node in graph.node if node.op_type == "SkipSimplifiedLayerNormalization"]
    assert {len(norm.input) for norm in norms} == {3}
