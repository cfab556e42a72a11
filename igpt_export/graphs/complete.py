"""`complete.onnx`: preprocess, prefill, a loop of decode steps and postprocess.

The loop's body is the shared-prefix decode graph. It reads the prefix from outside of the loop. Its own cache grows by
a slot a step: a loop copies what it carries, and a cache of full capacity would be copied whole at every step.
"""

import numpy as np
import onnx_ir as ir

from igpt_export.graphs.assembly import Assembly
from igpt_export.graphs.picture_input import Graphs, PictureInput
from igpt_export.graphs.random import draws_of
from igpt_export.graphs.trace import IR_VERSION
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import ImageFormat, ImageGPTConfig
from igpt_runtime.bundle.graph_io import GraphSpec


def completion_graph(graphs: Graphs, spec: GraphSpec, config: ImageGPTConfig, form: ImageFormat) -> ir.Model:
    graph = PictureInput(spec, graphs)
    op, constant = graph.op, graph.constant
    _, keep_rows, n, seed, *options = graph.inputs
    zero, one, positions = constant(0), constant(1), constant(config.n_positions)

    given = op("Mul", op("Clip", keep_rows, zero, constant(form.height)), constant(form.width))
    # What is fed at once: sos and all given tokens but the last. Nothing given: sos, whose successor is then drawn.
    fed = op("Max", given, one)
    rows = _vector(graph, op("Max", n, one))
    sequence = op("Concat", constant(np.array([config.sos])), graph.tokens, axis=0)
    start = graph.prefill(op("Slice", sequence, graph.axis(0), _vector(graph, fed)))

    draws = draws_of(graph, seed, op("Range", zero, _scalar(graph, rows), one), fed, positions)
    drawn = _first_draw(graph, start[graph_io.LOGITS], rows, op("Gather", draws, zero), options)
    column = op("Concat", rows, graph.axis(1), axis=0)
    begun = op("Where", op("Equal", given, zero), drawn, op("Expand", op("Gather", sequence, fed), column))

    prefix = [op("Cast", start[name], to=ir.DataType.FLOAT.value) for name in graph_io.present_names(config)]
    prefix[1::2] = [op("Transpose", values, perm=[0, 1, 3, 2]) for values in prefix[1::2]]
    body, carried = _body(graph, config, fed, draws, options, prefix)
    single = constant(np.ones(3, np.int64))
    own = op("Expand", constant(_sentinel(config, carried[0])), op("Concat", rows, single, axis=0))
    steps = op("Sub", positions, fed)
    inputs = [steps, constant(True), begun, *[own] * len(carried)]
    *_, scanned = graph.ops("Loop", *inputs, outputs=len(carried) + 2, body=body)

    shape = op("Concat", _vector(graph, steps), rows, axis=0)
    following = op("Transpose", op("Reshape", scanned, shape, allowzero=1), perm=[1, 0])
    kept = op("Slice", graph.tokens, graph.axis(0), op("Sub", _vector(graph, fed), graph.axis(1)))
    kept = op("Expand", kept, op("Concat", rows, op("Shape", kept), axis=0))
    completed = op("Concat", kept, begun, following, axis=1)
    (images,) = graph.take(graph_io.POSTPROCESS, [completed])
    return graph.model([images, completed], spec[1], graph_io.COMPLETE)


def _first_draw(
    graph: PictureInput, logits: ir.Value, rows: ir.Value, uniform: ir.Value, options: list[ir.Value]
) -> ir.Value:
    """A token for every row [rows, 1] from the last of the logits [1, sequence, n_clusters]."""
    op, constant = graph.op, graph.constant
    last = op("Gather", logits, constant(-1), axis=1)
    spread = op("Expand", last, op("Concat", rows, constant(np.array([1])), axis=0))
    inputs = [graph_io.LOGITS, graph_io.UNIFORM, graph_io.TEMPERATURE, graph_io.TOP_K, graph_io.TOP_P]
    # The part of a decode graph that draws.
    sampler = ir.convenience.extract(graph.copy(graph_io.DECODE_SHARED).graph, inputs, [graph_io.NEXT_IDS])
    return graph.add(ir.Model(sampler, ir_version=IR_VERSION), [spread, uniform, *options], "first")[0]


def _body(
    graph: PictureInput,
    config: ImageGPTConfig,
    fed: ir.Value,
    draws: ir.Value,
    options: list[ir.Value],
    prefix: list[ir.Value],
) -> tuple[ir.Graph, list[ir.Value]]:
    """The loop's body, and the tensors of cache it carries."""
    decode = graph.copy(graph_io.DECODE_SHARED)
    step, condition = ir.val("step", ir.DataType.INT64, ()), ir.val("condition", ir.DataType.BOOL, ())
    own = [value for value in decode.graph.inputs if value.name in (graph_io.INPUT_IDS, *graph_io.past_names(config))]
    input_ids, *cache = [ir.val(f"carried.{value.name}", value.dtype, _free(value.shape)) for value in own]
    body = Assembly([step, condition, input_ids, *cache], graph)
    past_length = body.op("Add", step, fed)
    uniform = body.op("Gather", draws, body.op("Add", step, body.constant(1)))
    inputs = [input_ids, past_length, *prefix, *cache, uniform, *options]
    next_ids, _, *present = body.add(decode, inputs, "decode")
    going_on = body.op("Identity", condition)
    return body.body([going_on, next_ids, *present, body.op("Identity", next_ids)]), cache


def _sentinel(config: ImageGPTConfig, cache: ir.Value) -> np.ndarray:
    """Slot 0 of the own cache, [1, n_head, 1, channels]."""
    assert cache.dtype is not None
    dtype = cache.dtype.numpy()
    slot = np.zeros((1, config.n_head, 1, config.head_dim + graph_io.SHARED_CHANNELS), dtype)
    slot[..., config.head_dim] = graph_io.SENTINEL[dtype.name]
    return slot


def _free(shape: ir.Shape | None) -> ir.Shape:
    """The shape with its free dimensions anonymous, as two of one name would be taken for equal."""
    assert shape is not None
    return ir.Shape([d if isinstance(d, int) else None for d in shape])


def _vector(graph: Assembly, scalar: ir.Value) -> ir.Value:
    return graph.op("Reshape", scalar, graph.constant(np.array([1])))


def _scalar(graph: Assembly, vector: ir.Value) -> ir.Value:
    return graph.op("Reshape", vector, graph.constant(np.array([], np.int64)))
