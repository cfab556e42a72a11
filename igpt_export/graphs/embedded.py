"""The embedded graphs, which take a picture and need no host code, put together from the others."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from igpt_export.graphs.complete import completion_graph
from igpt_export.graphs.picture_input import Graphs, PictureInput
from igpt_export.graphs.pictures import preprocess_graph
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import PROTOCOLS, Classifier, ImageFormat, ImageGPTConfig
from igpt_runtime.bundle.graph_io import GraphSpec


def embedded_graphs(
    graphs: Graphs, specs: Mapping[str, GraphSpec], config: ImageGPTConfig, form: ImageFormat,
    classifier: Classifier | None,
) -> dict[str, ir.Model]:  # fmt: skip
    """The graphs that can be made of `graphs`, which stay as they are. specs: inputs and outputs, by name."""
    made = {graph_io.FEATURES: _features_graph(graphs, specs[graph_io.FEATURES])}
    if classifier is not None:
        protocol = PROTOCOLS[classifier.protocol]
        crops = (
            {graph_io.PREPROCESS: preprocess_graph(specs[graph_io.PREPROCESS], form, crop=True)}
            if protocol.crop
            else {}
        )
        made[graph_io.CLASSIFY] = _classify_graph({**graphs, **crops}, specs[graph_io.CLASSIFY], config, classifier)
    if graph_io.DECODE in graphs:
        made[graph_io.SCORE] = _score_graph(graphs, specs[graph_io.SCORE], config, form)
    if graph_io.DECODE_SHARED in graphs:
        made[graph_io.COMPLETE] = completion_graph(graphs, specs[graph_io.COMPLETE], config, form)
    return made


def _features_graph(graphs: Graphs, spec: GraphSpec) -> ir.Model:
    graph = PictureInput(spec, graphs)
    features = graph.prefill(graph.tokens)[graph_io.FEATURES]
    return graph.model([graph.op("Squeeze", features, graph.axis(0))], spec[1], graph_io.FEATURES)


def _classify_graph(graphs: Graphs, spec: GraphSpec, config: ImageGPTConfig, classifier: Classifier) -> ir.Model:
    graph = PictureInput(spec, graphs)
    tokens = graph.behind_sos(config) if PROTOCOLS[classifier.protocol].sos else graph.tokens
    result = graph.op("Squeeze", graph.prefill(tokens)[graph_io.CLASS_LOGITS], graph.axis(0))
    if classifier.function_to_apply == "softmax":
        result = graph.op("Softmax", result, axis=-1)
    elif classifier.function_to_apply == "sigmoid":
        result = graph.op("Sigmoid", result)
    return graph.model([result], spec[1], graph_io.CLASSIFY)


def _score_graph(graphs: Graphs, spec: GraphSpec, config: ImageGPTConfig, form: ImageFormat) -> ir.Model:
    graph = PictureInput(spec, graphs)
    op = graph.op
    logits = op("Squeeze", graph.prefill(graph.behind_sos(config))[graph_io.LOGITS], graph.axis(0))
    index = op("Unsqueeze", graph.tokens, graph.axis(1))
    likelihood = op("GatherElements", op("LogSoftmax", logits, axis=-1), index, axis=1)
    nats = op("Reshape", op("Neg", likelihood), graph.constant(np.array([form.height, form.width])))
    return graph.model([nats, op("ReduceMean", nats, keepdims=0)], spec[1], graph_io.SCORE)
