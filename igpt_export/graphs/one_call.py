"""The graphs that take a picture and need no host code, put together from the others.

`complete` is preprocess, prefill, a loop of decode steps and postprocess. The loop's body is the shared-prefix decode
graph: it reads the prefix from outside, and its own cache grows by a slot a step, because a loop copies what it carries
and a cache of full capacity would be copied whole at every step.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from igpt_export.graphs.assembly import Assembly, value_of
from igpt_export.graphs.pictures import preprocess_graph
from igpt_export.graphs.trace import IR_VERSION
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import PROTOCOLS, Classifier, ImageFormat, ImageGPTConfig, Protocol
from igpt_runtime.bundle.graph_io import GraphSpec

Graphs = Mapping[str, ir.Model]

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)  # of Threefry-2x32
_HALF = 0xFFFF  # of a word
_UNIT = np.array(2.0**-24, np.float32)


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
        made[graph_io.CLASSIFY] = _classify_graph({**graphs, **crops}, specs[graph_io.CLASSIFY], config, protocol)
    if graph_io.DECODE in graphs:
        made[graph_io.SCORE] = _score_graph(graphs, specs[graph_io.SCORE], config, form)
    if graph_io.DECODE_SHARED in graphs:
        made[graph_io.COMPLETE] = _completion_graph(graphs, specs[graph_io.COMPLETE], config, form)
    return made


def _features_graph(graphs: Graphs, spec: GraphSpec) -> ir.Model:
    graph = _Picture(spec, graphs)
    features = graph.prefill(graph.tokens)[graph_io.FEATURES]
    return graph.model([graph.op("Squeeze", features, graph.axis(0))], spec[1], graph_io.FEATURES)


def _classify_graph(graphs: Graphs, spec: GraphSpec, config: ImageGPTConfig, protocol: Protocol) -> ir.Model:
    graph = _Picture(spec, graphs)
    tokens = graph.behind_sos(config) if protocol.sos else graph.tokens
    logits = graph.op("Squeeze", graph.prefill(tokens)[graph_io.CLASS_LOGITS], graph.axis(0))
    return graph.model([graph.op("Softmax", logits, axis=-1)], spec[1], graph_io.CLASSIFY)


def _score_graph(graphs: Graphs, spec: GraphSpec, config: ImageGPTConfig, form: ImageFormat) -> ir.Model:
    graph = _Picture(spec, graphs)
    op = graph.op
    logits = op("Squeeze", graph.prefill(graph.behind_sos(config))[graph_io.LOGITS], graph.axis(0))
    index = op("Unsqueeze", graph.tokens, graph.axis(1))
    likelihood = op("GatherElements", op("LogSoftmax", logits, axis=-1), index, axis=1)
    nats = op("Reshape", op("Neg", likelihood), graph.constant(np.array([form.height, form.width])))
    return graph.model([nats, op("ReduceMean", nats, keepdims=0)], spec[1], graph_io.SCORE)


class _Picture(Assembly):
    """A graph that begins with a picture's tokens."""

    def __init__(self, spec: GraphSpec, graphs: Graphs) -> None:
        super().__init__([value_of(tensor) for tensor in spec[0]])
        self._graphs = graphs
        (self.tokens,) = self.take(graph_io.PREPROCESS, self.inputs[:1])

    def take(self, name: str, inputs: list[ir.Value]) -> list[ir.Value]:
        """The outputs of a copy of another graph."""
        return self.add(self.copy(name), inputs, name)

    def copy(self, name: str) -> ir.Model:
        """A copy of another graph, which is what may be taken apart."""
        return self._graphs[name].clone()

    def prefill(self, tokens: ir.Value) -> dict[str, ir.Value]:
        """Outputs of the prefill graph, by name. tokens: int64 [sequence]."""
        outputs = [str(value.name) for value in self._graphs[graph_io.PREFILL].graph.outputs]
        return dict(
            zip(outputs, self.take(graph_io.PREFILL, [self.op("Unsqueeze", tokens, self.axis(0))]), strict=True)
        )

    def behind_sos(self, config: ImageGPTConfig) -> ir.Value:
        """sos and all tokens but the last: the input whose logits are for the tokens."""
        kept = self.op("Slice", self.tokens, self.axis(0), self.axis(-1))
        return self.op("Concat", self.constant(np.array([config.sos])), kept, axis=0)

    def axis(self, number: int) -> ir.Value:
        """A vector of one integer."""
        return self.constant(np.array([number]))


def _completion_graph(graphs: Graphs, spec: GraphSpec, config: ImageGPTConfig, form: ImageFormat) -> ir.Model:
    graph = _Picture(spec, graphs)
    op, constant = graph.op, graph.constant
    _, keep_rows, n, seed, *options = graph.inputs
    zero, one, positions = constant(0), constant(1), constant(config.n_positions)

    given = op("Mul", op("Clip", keep_rows, zero, constant(form.height)), constant(form.width))
    # What is fed at once: sos and all given tokens but the last. Nothing given: sos, whose successor is then drawn.
    fed = op("Max", given, one)
    rows = _vector(graph, op("Max", n, one))
    sequence = op("Concat", constant(np.array([config.sos])), graph.tokens, axis=0)
    start = graph.prefill(op("Slice", sequence, graph.axis(0), _vector(graph, fed)))

    draws = _draws(graph, seed, op("Range", zero, _scalar(graph, rows), one), fed, positions)
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


def _draws(graph: _Picture, seed: ir.Value, samples: ir.Value, fed: ir.Value, positions: ir.Value) -> ir.Value:
    """Uniforms [positions from the one before `fed` on, rows]."""
    op, constant = graph.op, graph.constant
    shifts = constant(np.array([48, 32, 16, 0], np.uint64))
    quarters = op("BitwiseAnd", op("BitShift", seed, shifts, direction="RIGHT"), constant(np.array(_HALF, np.uint64)))
    quarters = op("Cast", quarters, to=ir.DataType.INT64.value)
    key = [op("Slice", quarters, *(constant(np.array([place])) for place in ends)) for ends in ((0, 2), (2, 4))]
    key = [op("Reshape", word, constant(np.array([2, 1, 1]))) for word in key]
    places = op("Range", op("Sub", fed, constant(1)), positions, constant(1))
    counter = [_halves(graph, word, shape) for word, shape in ((samples, (1, 1, -1)), (places, (1, -1, 1)))]
    high, low = graph.ops("Split", _threefry(graph, key, counter), outputs=2, axis=0, num_outputs=2)
    bits = op("Add", op("Mul", high, constant(256)), op("Div", low, constant(256)))
    return op("Mul", op("Cast", op("Squeeze", bits, graph.axis(0)), to=ir.DataType.FLOAT.value), constant(_UNIT))


def _halves(graph: Assembly, words: ir.Value, shape: tuple[int, int, int]) -> ir.Value:
    """The high and the low 16 bits of words, [2, ...]. shape: to give the words, with a 1 in front."""
    words = graph.op("Reshape", words, graph.constant(np.array(shape)))
    high, low = graph.constant(_HALF + 1), graph.constant(_HALF)
    return graph.op("Concat", graph.op("Div", words, high), graph.op("BitwiseAnd", words, low), axis=0)


def _threefry(graph: Assembly, key: list[ir.Value], counter: list[ir.Value]) -> ir.Value:
    """First word of Threefry-2x32: section 5 of `runtime/SPEC.md`.

    Words are pairs of 16 bits, high and low [2, ...], so that no number on the way exceeds 2^31 - 1: some runtimes
    compute int64 in 32 bits.
    """
    op, constant = graph.op, graph.constant
    mask, swap = constant(_HALF), constant(np.array([1, 0]))
    carries = constant(np.array([2**31 - 1, _HALF + 1]).reshape(2, 1, 1))  # of low sums only

    def add(*words: ir.Value) -> ir.Value:
        total = words[0]
        for word in words[1:]:
            total = op("Add", total, word)
        carry = op("Gather", op("Div", total, carries), swap, axis=0)
        return op("BitwiseAnd", op("Add", total, carry), mask)

    def rotate(word: ir.Value, bits: int) -> ir.Value:
        swapped = op("Gather", word, swap, axis=0)
        if bits >= 16:
            word, swapped, bits = swapped, word, bits - 16
        if bits == 0:
            return word
        left = op("BitwiseAnd", op("Mul", word, constant(1 << bits)), mask)
        return op("BitwiseOr", left, op("Div", swapped, constant(1 << (16 - bits))))

    parity = constant(np.array([0x1BD1, 0x1BDA]).reshape(2, 1, 1))
    keys = [*key, op("BitwiseXor", op("BitwiseXor", *key), parity)]
    x0, x1 = (add(word, k) for word, k in zip(counter, key, strict=True))
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x0 = add(x0, x1)
            x1 = op("BitwiseXor", rotate(x1, rotation), x0)
        x0 = add(x0, keys[(block + 1) % 3])
        x1 = add(x1, keys[(block + 2) % 3], constant(np.array([0, block + 1]).reshape(2, 1, 1)))
    return x0


def _first_draw(
    graph: _Picture, logits: ir.Value, rows: ir.Value, uniform: ir.Value, options: list[ir.Value]
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
    graph: _Picture,
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
