"""The graphs of a bundle, put together of traced pieces, and which of them a checkpoint exports to.

Of the blocks one is traced for all that are the same but for their weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnx_safetensors
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from igpt_export.checkpoint.checkpoint import Checkpoint
from igpt_export.graphs.assembly import Assembly, value_of
from igpt_export.graphs.embedded import embedded_graphs
from igpt_export.graphs.norm_bias import add_biases_in_norms
from igpt_export.graphs.pictures import has_filter, postprocess_graph, preprocess_graph
from igpt_export.graphs.pieces import CLASSES, EMBEDDING, END, block_piece, decode_pieces, prefill_pieces
from igpt_export.graphs.trace import IR_VERSION, TracedPiece, read_sizes_from, trace
from igpt_export.model.model import ImageGPT, Parts
from igpt_export.model.portable import attach_functions
from igpt_export.precision.precision import Precision
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import PROTOCOLS, Classifier, ImageGPTConfig
from igpt_runtime.bundle.graph_io import GraphSpec, graph_specs
from igpt_runtime.signals import held_signals


class _Graph(Assembly):
    """A graph under construction out of traced pieces."""

    def __init__(self, name: str, spec: GraphSpec, pieces: Mapping[str, TracedPiece]) -> None:
        """spec: its inputs and outputs; pieces: what it is made of, by their names."""
        super().__init__([value_of(tensor) for tensor in spec[0]])
        self._name, self._spec, self._pieces = name, spec, pieces
        self._weights: dict[str, tuple[ir.Value, ir.TensorProtocol]] = {}

    def add_piece(self, name: str, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        """Take over a copy of a piece that is there once; returns its outputs."""
        return self._add_copy(name, name, inputs, {weight: weight for weight in self._pieces[name].weights})

    def add_block(self, layer: int, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        """Take over a copy of a block, or of the first one if that was traced for all; returns its outputs."""
        own = block_piece(layer)
        traced = own if own in self._pieces else block_piece(0)
        weights = {name: f"{own}.{name.removeprefix(f'{traced}.')}" for name in self._pieces[traced].weights}
        return self._add_copy(traced, own, inputs, weights)

    def _add_copy(
        self, piece: str, label: str, inputs: Sequence[ir.Value], weight_names: Mapping[str, str]
    ) -> list[ir.Value]:
        """label: of the copy's names; weight_names: what the weights of the piece are in this copy."""
        traced = self._pieces[piece]
        weights = [self._weight(weight_names[name], like) for name, like in traced.weights.items()]
        part = ir.Model(traced.graph.clone(), ir_version=IR_VERSION)
        return self.add(part, [*inputs, *weights], label, keep_shapes=True)

    def _weight(self, name: str, like: ir.TensorProtocol) -> ir.Value:
        if name not in self._weights:
            value = ir.val(name, dtype=like.dtype, shape=ir.Shape(like.shape.numpy()))
            self._weights[name] = value, like
        return self._weights[name][0]

    def finish(
        self, outputs: Mapping[str, ir.Value], weights: Path, stored_names: Mapping[str, str], *, half: bool
    ) -> ir.Model:
        """The finished graph. Meanwhile its weights are inputs, so that it cannot come to depend on their values.

        half: whether it is for a GPU, where every kernel that is spared saves time.
        """
        model = self.model([outputs[tensor.name] for tensor in self._spec[1]], self._spec[1], self._name)
        read_sizes_from(self.inputs, model.graph)
        parameters = [value for value, _ in self._weights.values()]
        model.graph.inputs.extend(parameters)
        for simplify in (
            passes.DeduplicateInitializersPass(), passes.CommonSubexpressionEliminationPass(),
            passes.RemoveUnusedNodesPass(), passes.NameFixPass(),
        ):  # fmt: skip
            simplify(model)
        if half:
            add_biases_in_norms(model.graph)
        for name, (value, like) in self._weights.items():
            model.graph.inputs.remove(value)
            value.name, value.const_value = stored_names.get(name, name), like
            model.graph.register_initializer(value)
        onnx_safetensors.replace_tensors(model, weights.name, weights.parent)
        attach_functions(model)
        passes.ClearMetadataAndDocStringPass()(model)
        return model


def _prefill(graph: _Graph, config: ImageGPTConfig, classifier: Classifier | None) -> dict[str, ir.Value]:
    """All outputs of the prefill graph, by name."""
    outputs: dict[str, ir.Value] = {}
    means, normed_means = [], []
    x, residual = graph.add_piece(EMBEDDING, graph.inputs)
    for layer in range(config.n_layer):
        x, residual, hidden, mean, normed_mean, *cache = graph.add_block(layer, [x, residual])
        outputs[graph_io.hidden_state(layer)] = hidden
        outputs |= zip(graph_io.present_names(config)[2 * layer : 2 * layer + 2], cache, strict=True)
        means.append(mean)
        normed_means.append(normed_mean)
    last, mean, *logits = graph.add_piece(END, [x, residual])
    outputs[graph_io.hidden_state(config.n_layer)] = last
    if logits:  # of a checkpoint with that head
        outputs[graph_io.LOGITS] = logits[0]
    means.append(mean)
    normed_means.append(mean)
    outputs[graph_io.FEATURES] = graph.op("Concat", *means, axis=1)
    outputs[graph_io.NORMED_FEATURES] = graph.op("Concat", *normed_means, axis=1)
    if classifier is not None:
        read = normed_means if PROTOCOLS[classifier.protocol].normed else means
        chosen = [read[layer] for layer in classifier.layers]
        features = chosen[0] if len(chosen) == 1 else graph.op("Concat", *chosen, axis=1)
        (outputs[graph_io.CLASS_LOGITS],) = graph.add_piece(CLASSES, [features])
    return outputs


def _decode(graph: _Graph, config: ImageGPTConfig) -> dict[str, ir.Value]:
    """All outputs of a decode graph, by name."""
    outputs: dict[str, ir.Value] = {}
    given = {str(value.name): value for value in graph.inputs}
    past_length = given[graph_io.PAST_LENGTH]
    named = [graph_io.past_names(config), graph_io.prefix_names(config)]
    x, residual = graph.add_piece(EMBEDDING, [given[graph_io.INPUT_IDS], past_length])
    for layer in range(config.n_layer):
        places = slice(2 * layer, 2 * layer + 2)
        cache = [given[name] for every in named for name in every[places] if name in given]
        x, residual, *present = graph.add_block(layer, [x, residual, past_length, *cache])
        outputs |= zip(graph_io.present_names(config)[places], present, strict=True)
    sampling = [given[tensor.name] for tensor in graph_io.sampling_inputs()]
    outputs[graph_io.NEXT_IDS], outputs[graph_io.LOGITS] = graph.add_piece(END, [x, residual, *sampling])
    return outputs


def trace_graphs(
    checkpoint: Checkpoint, parts: Parts, precision: Precision, weights: Path, *, embed: bool,
    stored_names: Mapping[str, str] | None = None,
) -> dict[str, ir.Model]:  # fmt: skip
    """The graphs a checkpoint exports to, by name, with their weights referring to the safetensors file `weights`.

    parts: what the weights are for; embed: also those that take a picture and give what one wants of it, with no host
    code; stored_names: what weights are called in the file, by their names in the model, if it is something else.
    """
    config, form, classifier = checkpoint.config, checkpoint.image_format, checkpoint.classifier
    specs = graph_specs(config, form, lm_head=parts.lm_head, classifier=classifier, cache_dtype=precision.cache_dtype)
    traced = _traced_pieces(config, parts, precision, classifier, specs)
    graphs = {}
    for name, pieces in traced.items():
        graph = _Graph(name, specs[name], pieces)
        outputs = _prefill(graph, config, classifier) if name == graph_io.PREFILL else _decode(graph, config)
        graphs[name] = graph.finish(outputs, weights, stored_names or {}, half=precision.is_half)
    if embed or has_filter(form):
        graphs[graph_io.PREPROCESS] = preprocess_graph(specs[graph_io.PREPROCESS], form)
    graphs[graph_io.POSTPROCESS] = postprocess_graph(specs[graph_io.POSTPROCESS], form)
    if embed:
        graphs |= embedded_graphs(graphs, specs, config, form, classifier)
    return graphs


def _traced_pieces(
    config: ImageGPTConfig, parts: Parts, precision: Precision, classifier: Classifier | None,
    specs: Mapping[str, GraphSpec],
) -> dict[str, dict[str, TracedPiece]]:  # fmt: skip
    """The pieces of every graph. Blocks are traced as far as they differ in more than their weights.

    Signals wait: torch logs what is raised meanwhile, or ends the process where its destructors find it.
    """
    alike = len({config.attention_scale(layer) for layer in range(config.n_layer)}) == 1
    with held_signals(), FakeTensorMode():
        few = replace(config, n_layer=1) if alike else config
        model = ImageGPT(few, parts, linear=precision.linear, int8_cache=precision.kv_cache == "int8").eval()
        if precision.is_half:
            _halve(model)
        pieces = {graph_io.PREFILL: prefill_pieces(model, classifier)}
        if parts.lm_head:
            pieces |= {name: decode_pieces(model, specs[name]) for name in precision.graphs if name != graph_io.PREFILL}
        if not alike:  # one graph after the other: so many blocks at once take memory
            return {graph: trace(model, pieces[graph]) for graph in pieces}
        together = trace(model, {f"{graph}/{name}": piece for graph in pieces for name, piece in pieces[graph].items()})
    return {graph: {name: together[f"{graph}/{name}"] for name in pieces[graph]} for graph in pieces}


def _halve(model: nn.Module) -> None:
    """Make all parameters float16; `Module.half` cannot do that to fake tensors."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.half(), requires_grad=False))
