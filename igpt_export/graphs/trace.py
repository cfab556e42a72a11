"""Traces pieces of a torch module into ONNX graphs without touching a weight.

The module is built and traced under torch's `FakeTensorMode`, so tracing costs neither the memory nor the time of the
real weights. Tracing is slow: about 20 ms an operator, and a second whatever there is to trace. So a graph is not
traced whole but as pieces, of which a block is one, and all pieces of all graphs at once;
`igpt_export.graphs.bundle_graphs` puts the graphs together.
"""

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch import Tensor, nn

from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.graph_io import TensorSpec

# The last opset the exporter emits natively: a conversion would inline the portable functions away.
OPSET = 18
IR_VERSION = 10
_DTYPES = {"float32": torch.float32, "int64": torch.int64, "int8": torch.int8, "float16": torch.float16}
# Sizes 0 and 1 would be specialised; any others stand for the free dimensions.
_EXAMPLE_SIZES = {graph_io.BATCH: 3, graph_io.SEQUENCE: 5, graph_io.PREFIX: 6, graph_io.CAPACITY: 7}


@dataclass(frozen=True)
class Piece:
    """What is traced by itself."""

    run: Callable[..., Sequence[Tensor]]  # takes a tensor for every input; it may use the module's parameters
    inputs: Sequence[TensorSpec]
    n_outputs: int


@dataclass(frozen=True)
class TracedPiece:
    """A piece as a graph, to be copied into larger ones."""

    graph: ir.Graph  # its inputs are those of the piece and then `weights`
    weights: Mapping[str, ir.TensorProtocol]  # the parameters it uses, by name: dtypes and shapes, for they are fake


def trace(module: nn.Module, pieces: Mapping[str, Piece]) -> dict[str, TracedPiece]:
    """The pieces of a module, which is made of fake tensors, as graphs. A free dimension is one size in all of them."""
    model = _trace(module, pieces)
    weights = _simplify(model)
    outputs = iter(model.graph.outputs)
    return {
        name: _cut_out(model.graph, name, list(itertools.islice(outputs, piece.n_outputs)), weights)
        for name, piece in pieces.items()
    }


class _Pieces(nn.Module):
    """All pieces side by side: their inputs in, one after the other, their outputs out."""

    def __init__(self, module: nn.Module, pieces: Mapping[str, Piece]) -> None:
        super().__init__()
        self.module, self._pieces = module, pieces

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        for piece in self._pieces.values():
            own, tensors = tensors[: len(piece.inputs)], tensors[len(piece.inputs) :]
            made = piece.run(*own)
            assert len(made) == piece.n_outputs
            outputs += made
        return outputs


def _trace(module: nn.Module, pieces: Mapping[str, Piece]) -> ir.Model:
    """All pieces in one graph, as the exporter makes it; inputs and outputs are called PIECE:NUMBER."""
    dimensions = {name: torch.export.Dim(name) for name in _EXAMPLE_SIZES}
    specs = [spec for piece in pieces.values() for spec in piece.inputs]
    sizes = [[_EXAMPLE_SIZES[d] if isinstance(d, str) else d for d in spec.shape] for spec in specs]
    examples = [torch.zeros(size, dtype=_DTYPES[spec.dtype]) for size, spec in zip(sizes, specs, strict=True)]
    free = [{axis: dimensions[d] for axis, d in enumerate(s.shape) if isinstance(d, str)} or None for s in specs]
    with _quiet():
        program = torch.onnx.export(
            _Pieces(module, pieces),
            tuple(examples),
            dynamo=True,
            optimize=False,  # its constant folding would read the fake weights
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=(tuple(free),),
            input_names=[f"{name}:{i}" for name, piece in pieces.items() for i in range(len(piece.inputs))],
        )
    assert program is not None
    model = program.model
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        node.meta.clear()  # what refers to torch's graph
        values += node.outputs
    for value in values:
        value.meta.clear()
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its notes on packages we do not use off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _simplify(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Simplify the graph. Its weights become inputs, so that it cannot come to depend on their values; returns them."""
    graph = model.graph
    weights = {}
    for value in list(graph.initializers.values()):
        value.name = str(value.name).removeprefix("module.")
        assert value.const_value is not None
        weights[value.name] = value.const_value
        value.const_value = None
    inputs = list(graph.initializers.values())
    graph.initializers.clear()
    graph.inputs.extend(inputs)
    onnxscript.optimizer.optimize(model)
    return weights


def _cut_out(
    whole: ir.Graph, name: str, outputs: Sequence[ir.Value], weights: Mapping[str, ir.TensorProtocol]
) -> TracedPiece:
    """The piece called `name`, which makes `outputs`, out of the graph that all pieces are in."""
    graph = ir.convenience.extract(whole, list(whole.inputs), outputs)
    own = [value for value in graph.inputs if str(value.name).startswith(f"{name}:")]
    read_sizes_from(own, graph)  # the exporter reads them from the inputs of any piece
    used = {str(value.name): value for value in graph.inputs if value not in own and value.uses()}
    assert used.keys() <= weights.keys(), f"{name} reads inputs of other pieces: {used.keys() - weights.keys()}"
    graph.inputs.clear()
    graph.inputs.extend([*own, *used.values()])
    return TracedPiece(graph, {weight: weights[weight] for weight in used})


def read_sizes_from(inputs: Sequence[ir.Value], graph: ir.Graph) -> None:
    """Have every node of a graph that reads a free dimension read it from the first of `inputs` that has it.

    So equal sizes are read once, and from what is there at the beginning. Graphs inside of nodes are left alone.
    """
    places: dict[str, tuple[ir.Value, int]] = {}
    for given in inputs:
        for axis, dimension in enumerate(given.shape or ()):
            if isinstance(dimension, ir.SymbolicDim) and dimension.value is not None:
                places.setdefault(dimension.value, (given, axis))
    for node in graph:
        if node.op_type != "Shape" or (source := node.inputs[0]) is None or source.shape is None:
            continue
        start, end = (node.attributes.get_int(key, default) for key, default in (("start", 0), ("end", -1)))
        size = source.shape[start] if 0 <= start == end - 1 else None
        if isinstance(size, ir.SymbolicDim) and size.value in places:
            value, axis = places[size.value]
            node.replace_input_with(0, value)
            for key, place in (("start", axis), ("end", axis + 1)):
                node.attributes[key] = ir.AttrInt64(key, place)
