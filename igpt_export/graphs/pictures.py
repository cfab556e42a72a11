"""Pictures to tokens and back as graphs: Pillow's resizing, the nearest cluster, and the clusters' colours.

`runtime/SPEC.md`, section 6, is this file in words. Resizing is Pillow's own integer arithmetic (`Resample.c`), not the
operator Resize, so that a graph gives the tokens that the Python runtime gives.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from igpt_export.graphs.assembly import Assembly, value_of
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import ImageFormat
from igpt_runtime.bundle.graph_io import GraphSpec
from igpt_runtime.errors import OptionError
from igpt_runtime.pictures.palette import LEVELS, cluster_colours

_PRECISION_BITS = 22  # of a filter's coefficients in Pillow: 32 bits, less 8 of a level, less 2
_UINT8, _INT64, _FLOAT, _DOUBLE = (
    t.value for t in (ir.DataType.UINT8, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE)
)


def has_filter(form: ImageFormat) -> bool:
    """Whether a graph can resize as the format wants it."""
    return form.resample in _FILTERS


def preprocess_graph(spec: GraphSpec, form: ImageFormat, *, crop: bool = False) -> ir.Model:
    """uint8 picture [image height, image width, 3] to tokens int64 [n_positions].

    crop: resize the short side and keep the centre of the long one, instead of squashing the picture.

    Raises OptionError for a filter that graphs do not have.
    """
    if not has_filter(form):
        raise OptionError(
            f"the checkpoint resizes with filter {form.resample}, graphs have 2 and 3 (bilinear, bicubic); "
            "set resample in its preprocessor_config.json, or export with --no-embed"
        )
    graph = Assembly([value_of(tensor) for tensor in spec[0]])
    tokens = _nearest_clusters(graph, _resized(graph, graph.inputs[0], form, crop=crop), form)
    return graph.model([tokens], spec[1], graph_io.PREPROCESS)


def postprocess_graph(spec: GraphSpec, form: ImageFormat) -> ir.Model:
    """Tokens int64 [batch, n_positions] to uint8 pictures [batch, height, width, 3]; what is no token becomes one."""
    graph = Assembly([value_of(tensor) for tensor in spec[0]])
    colours = np.array(cluster_colours(form.clusters))
    known = graph.op("Clip", graph.inputs[0], graph.constant(0), graph.constant(len(colours) - 1))
    pixels = graph.op("Gather", graph.constant(colours), known)
    images = graph.op("Reshape", pixels, graph.constant(np.array([-1, form.height, form.width, 3])))
    return graph.model([images], spec[1], graph_io.POSTPROCESS)


def _resized(graph: Assembly, image: ir.Value, form: ImageFormat, *, crop: bool) -> ir.Value:
    """[height, width, 3] to the format's size; one axis first and rounded in between, as Pillow does."""
    op = graph.op
    rows, columns = (_Axis(graph, image, axis) for axis in (0, 1))
    if crop:
        _cut(graph, rows, columns, form)
    to_height, to_width = _Filter(graph, rows, form.height, form), _Filter(graph, columns, form.width, form)
    # Both ways, since a graph of one path is simpler than one with a branch, and resizing takes milliseconds.
    narrow = to_width(op("Transpose", image, perm=[0, 2, 1]))  # [image height, 3, width]
    columns_first = op("Transpose", to_height(op("Transpose", narrow, perm=[1, 2, 0])), perm=[2, 1, 0])
    low = to_height(op("Transpose", image, perm=[2, 1, 0]))  # [3, image width, height]
    rows_first = op("Transpose", to_width(op("Transpose", low, perm=[0, 2, 1])), perm=[1, 2, 0])
    # By the whole picture, whatever part of it is resized.
    lost_rows = op("Sub", rows.size, _double(graph, form.height))
    lost_columns = op("Sub", columns.size, _double(graph, form.width))
    loses_rows = op("Greater", lost_rows, _double(graph, 0))
    is_tall = op("And", loses_rows, op("Greater", lost_rows, op("Mul", lost_columns, _double(graph, 2))))
    return op("Where", is_tall, rows_first, columns_first)


def _double(graph: Assembly, value: float) -> ir.Value:
    return graph.constant(np.array(value, np.float64))


class _Axis:
    """An axis of a picture, and which part of it is resized."""

    def __init__(self, graph: Assembly, image: ir.Value, axis: int) -> None:
        self.n = graph.op("Squeeze", graph.op("Shape", image, start=axis, end=axis + 1))
        self.size = graph.op("Cast", self.n, to=_DOUBLE)
        self.begin: ir.Value | None = None  # None for all of the axis
        self.end = self.size


def _cut(graph: Assembly, rows: _Axis, columns: _Axis, form: ImageFormat) -> None:
    """Keep the largest centred part that has the format's proportions, as `igpt_runtime.pictures.palette` does."""
    op = graph.op
    targets = {rows: _double(graph, form.height), columns: _double(graph, form.width)}
    scale = op("Min", *(op("Div", axis.size, target) for axis, target in targets.items()))
    for axis, target in targets.items():
        kept = op("Min", op("Mul", target, scale), axis.size)
        axis.begin = op("Div", op("Sub", axis.size, kept), _double(graph, 2))
        axis.end = op("Min", op("Add", axis.begin, kept), axis.size)


class _Filter:
    """Resizes the last axis of uint8 [..., n] to `size`, with Pillow's coefficients and rounding."""

    def __init__(self, graph: Assembly, axis: _Axis, size: int, form: ImageFormat) -> None:
        self._graph, self._size = graph, size
        op, constant = graph.op, graph.constant
        units = op("Transpose", _coefficients(graph, axis, size, form.resample), perm=[1, 0])  # [n, size]
        # The kernel multiplies bytes: a coefficient is three, with a zero point of 128 each, as it may be negative.
        self._places = np.array([65536, 256, 1])[:, None]
        biased = op("Unsqueeze", op("Add", units, constant(0x808080)), constant(np.array([1])))
        digits = op("Mod", op("Div", biased, constant(self._places)), constant(256))  # [n, places, size]
        shape = constant(np.array([0, len(self._places) * size]))
        self._digits = op("Cast", op("Reshape", digits, shape), to=_UINT8)
        # Of the levels and of the digits; OpenVINO takes no absent one.
        self._zero_points = constant(np.array(0, np.uint8)), constant(np.array(128, np.uint8))

    def __call__(self, levels: ir.Value) -> ir.Value:
        op, constant = self._graph.op, self._graph.constant
        products = op("MatMulInteger", levels, self._digits, *self._zero_points)
        by_place = op("Reshape", products, constant(np.array([0, 0, len(self._places), self._size])))
        weighted = op("Mul", op("Cast", by_place, to=_INT64), constant(self._places))
        total = op("ReduceSum", weighted, constant(np.array([-2])), keepdims=0)
        half = constant(1 << (_PRECISION_BITS - 1))
        rounded = op("Div", op("Max", op("Add", total, half), constant(0)), constant(1 << _PRECISION_BITS))
        return op("Cast", op("Min", rounded, constant(255)), to=_UINT8)


def _coefficients(graph: Assembly, axis: _Axis, size: int, resample: int) -> ir.Value:
    """How much every one of the axis' n levels counts in each of `size`, int64 [size, n] in units of 2**-22."""
    op = graph.op
    function, reach = _FILTERS[resample]

    def number(value: float) -> ir.Value:
        return _double(graph, value)

    begin, length = axis.begin, axis.end
    if begin is not None:  # Pillow takes the ends of the part as float32, and their difference too
        begin, end = (op("Cast", value, to=_FLOAT) for value in (begin, axis.end))
        length = op("Cast", op("Sub", end, begin), to=_DOUBLE)
        begin = op("Cast", begin, to=_DOUBLE)
    scale = op("Div", length, number(size))
    stretch = op("Max", scale, number(1))
    support = op("Mul", stretch, number(reach))
    centre = op("Mul", graph.constant((np.arange(size, dtype=np.float64) + 0.5)[:, None]), scale)
    if begin is not None:
        centre = op("Add", begin, centre)
    x = op("Cast", op("Range", graph.constant(0), axis.n, graph.constant(1)), to=_DOUBLE)
    first = op("Floor", op("Add", op("Sub", centre, support), number(0.5)))
    last = op("Floor", op("Add", op("Add", centre, support), number(0.5)))
    inside = op("And", op("GreaterOrEqual", x, first), op("Less", x, last))
    distance = op("Mul", op("Add", op("Sub", x, centre), number(0.5)), op("Div", number(1), stretch))
    weight = op("Where", inside, function(graph, op("Abs", distance)), number(0))
    # Summed from left to right, as Pillow's loop does. Of an empty picture there is no last sum, which is an error.
    sums = op("CumSum", weight, graph.constant(1))
    weight = op("Div", weight, op("Gather", sums, graph.constant(np.array([-1])), axis=1))
    units = op("Mul", weight, number(1 << _PRECISION_BITS))
    up, down = op("Floor", op("Add", units, number(0.5))), op("Ceil", op("Sub", units, number(0.5)))
    return op("Cast", op("Where", op("Less", units, number(0)), down, up), to=_INT64)


def _triangle(graph: Assembly, t: ir.Value) -> ir.Value:
    zero, one = _double(graph, 0), _double(graph, 1)
    return graph.op("Max", graph.op("Sub", one, t), zero)


def _cubic(graph: Assembly, t: ir.Value) -> ir.Value:
    op, a = graph.op, -0.5

    def number(value: float) -> ir.Value:
        return _double(graph, value)

    near = op("Sub", op("Mul", t, number(a + 2)), number(a + 3))
    near = op("Add", op("Mul", op("Mul", near, t), t), number(1))
    far = op("Add", op("Mul", op("Sub", t, number(5)), t), number(8))
    far = op("Mul", op("Sub", op("Mul", far, t), number(4)), number(a))
    return op("Where", op("Less", t, number(1)), near, op("Where", op("Less", t, number(2)), far, number(0)))


# By Pillow's number: the filter, of absolute values, and how far it reaches. The others need a sine, which is not the
# same everywhere.
_FILTERS: dict[int, tuple[Callable[[Assembly, ir.Value], ir.Value], float]] = {2: (_triangle, 1.0), 3: (_cubic, 2.0)}


def _nearest_clusters(graph: Assembly, pixels: ir.Value, form: ImageFormat) -> ir.Value:
    """Tokens [height * width] of uint8 pixels [height, width, 3]; arithmetic as in `igpt_runtime.pictures.palette`."""
    op, constant = graph.op, graph.constant
    values = op("Gather", constant(LEVELS), op("Cast", pixels, to=_INT64))
    columns = op("Reshape", values, constant(np.array([-1, 3])))
    single = [op("Gather", columns, constant(np.array([i])), axis=1) for i in range(3)]  # each [pixels, 1]
    double = [op("Cast", value, to=_DOUBLE) for value in single]
    centres = form.clusters.astype(np.float64).T

    def dot(left: list[ir.Value], right: list[ir.Value]) -> ir.Value:
        red, green, blue = (op("Mul", a, b) for a, b in zip(left, right, strict=True))
        return op("Add", op("Add", red, green), blue)

    squares = op("Cast", dot(single, single), to=_DOUBLE)  # summed in float32, as in the reference
    products = op("Mul", dot(double, [constant(row) for row in centres]), constant(np.array(2.0)))
    red, green, blue = centres
    own = constant(red * red + green * green + blue * blue)
    return op("ArgMin", op("Add", op("Sub", squares, products), own), axis=1, keepdims=0)
