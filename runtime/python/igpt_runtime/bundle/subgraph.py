"""Changes a graph's file without the onnx package: cuts out a part, or renames the file of its weights.

ONNX Runtime computes every node of a graph whichever outputs are fetched, so a part that computes what is asked for
saves time. A file is a protocol buffer, `onnx.proto` of the ONNX standard; only records that are left out or changed
are looked into.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from igpt_runtime.bundle.protobuf import BYTES, encoded

# Numbers of fields in onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 1, 5, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_GRAPHS = (6, 11)
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_LOCATION = "location"  # key of the entry that names a tensor's file
_VALUE_NAME = 1
_LONGEST_NUMBER = 70  # bits
_SIZES = {1: 8, 5: 4}  # wire type: size in bytes of a number


# What leads from a model to the entries that name the files of its tensors, by the numbers of fields: a graph has
# tensors, and nodes whose attributes may be graphs.
_Levels = Mapping[int, "_Levels"]
_TENSOR: _Levels = {_TENSOR_EXTERNAL: {}}
_GRAPH: dict[int, _Levels] = {_GRAPH_INITIALIZER: _TENSOR}
_GRAPH[_GRAPH_NODE] = {_NODE_ATTRIBUTE: dict.fromkeys(_ATTRIBUTE_GRAPHS, _GRAPH)}
_MODEL: _Levels = {_MODEL_GRAPH: _GRAPH}


class _Field(NamedTuple):
    number: int
    content: memoryview  # of texts, bytes and records; empty for numbers
    whole: memoryview  # with its tag and length


def part_of(model: bytes, outputs: Sequence[str], picked: Mapping[str, Sequence[int]] | None = None) -> bytes:
    """The file of a graph with only these outputs, and what they need.

    model: a serialized ModelProto; picked: for an output that joins tensors (a Concat), which of these it is to join,
    in this order: then the others are not computed.

    Raises ValueError if there is no such output, if it joins nothing where `picked` says it does, or if the file is
    damaged.
    """
    with _told_as_value_error():
        return b"".join(
            encoded(_MODEL_GRAPH, _part_of_graph(field.content, outputs, picked or {}))
            if field.number == _MODEL_GRAPH
            else field.whole
            for field in _fields(memoryview(model))
        )


def with_weights_file(model: bytes, old: str, new: str) -> bytes:
    """The file of a graph that has its weights in the file `new` instead of `old`.

    model: a serialized ModelProto. Raises ValueError if it is damaged.
    """
    with _told_as_value_error():
        return _renamed(memoryview(model), _MODEL, old.encode(), new.encode())


@contextmanager
def _told_as_value_error() -> Iterator[None]:
    """What a damaged file may raise here, as one kind of error."""
    try:
        yield
    except (IndexError, KeyError) as error:
        raise ValueError("it is damaged or cut short") from error
    except RecursionError as error:
        raise ValueError("its parts are nested without end") from error


def _renamed(record: memoryview, levels: "_Levels", old: bytes, new: bytes) -> bytes:
    """A record, in whose parts of the given numbers a tensor's file is renamed."""
    if old not in bytes(record):
        return bytes(record)
    if not levels:
        is_place = _text(record, _ENTRY_KEY) == _LOCATION and _text(record, _ENTRY_VALUE) == old.decode()
        return encoded(_ENTRY_KEY, _LOCATION.encode()) + encoded(_ENTRY_VALUE, new) if is_place else bytes(record)
    return b"".join(
        encoded(field.number, _renamed(field.content, levels[field.number], old, new))
        if field.number in levels
        else field.whole
        for field in _fields(record)
    )


def _part_of_graph(graph: memoryview, outputs: Sequence[str], picked: Mapping[str, Sequence[int]]) -> bytes:
    fields = list(_fields(graph))
    there = {_text(field.content, _VALUE_NAME): field.whole for field in fields if field.number == _GRAPH_OUTPUT}
    missing = [name for name in outputs if name not in there]
    if missing:
        raise ValueError(f"the graph has no output {missing[0]}")
    needed = set(outputs)
    kept: list[bytes | memoryview] = []
    for field in reversed(fields):  # nodes are in an order in which each follows what it needs
        if field.number != _GRAPH_NODE:
            continue
        makes = needed.intersection(_texts(field.content, _NODE_OUTPUT))
        if not makes:
            continue
        node = field.content
        for name in makes & picked.keys():
            node = memoryview(_pick(node, picked[name], name))
        needed.update(_reads(node))
        kept.append(encoded(_GRAPH_NODE, node))
    parts = kept[::-1]
    for field in fields:
        unused = field.number == _GRAPH_INITIALIZER and _text(field.content, _TENSOR_NAME) not in needed
        if field.number not in (_GRAPH_NODE, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO) and not unused:
            parts.append(field.whole)
    for name in outputs:  # a picked one has another shape, which ONNX Runtime infers
        parts.append(encoded(_GRAPH_OUTPUT, encoded(_VALUE_NAME, name.encode())) if name in picked else there[name])
    return b"".join(parts)


def _pick(node: memoryview, which: Sequence[int], name: str) -> bytes:
    """A Concat of some of its inputs."""
    fields = list(_fields(node))
    inputs = [field.whole for field in fields if field.number == _NODE_INPUT]
    if _text(node, _NODE_OP_TYPE) != "Concat" or not all(0 <= i < len(inputs) for i in which):
        raise ValueError(f"output {name} does not join {max(which) + 1} tensors")
    return b"".join([*(inputs[i] for i in which), *(f.whole for f in fields if f.number != _NODE_INPUT)])


def _reads(node: memoryview) -> Iterator[str]:
    """Names a node reads, also inside of graphs that are its attributes."""
    yield from _texts(node, _NODE_INPUT)
    for attribute in (field.content for field in _fields(node) if field.number == _NODE_ATTRIBUTE):
        for graph in (field.content for field in _fields(attribute) if field.number in _ATTRIBUTE_GRAPHS):
            for field in _fields(graph):
                if field.number == _GRAPH_NODE:
                    yield from _reads(field.content)
                if field.number == _GRAPH_OUTPUT:
                    yield _text(field.content, _VALUE_NAME)


def _texts(record: memoryview, number: int) -> list[str]:
    return [str(field.content, "utf-8") for field in _fields(record) if field.number == number]


def _text(record: memoryview, number: int) -> str:
    return next(iter(_texts(record, number)), "")


def _fields(record: memoryview) -> Iterator[_Field]:
    position = 0
    while position < len(record):
        start = position
        tag, position = _varint(record, position)
        kind, content = tag & 7, record[:0]
        if kind == BYTES:
            length, position = _varint(record, position)
            content = record[position : position + length]
            position += length
        elif kind == 0:
            _, position = _varint(record, position)
        else:
            position += _SIZES[kind]
        yield _Field(tag >> 3, content, record[start:position])


def _varint(record: memoryview, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the position after it."""
    value = shift = 0
    while True:
        byte = record[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift >= _LONGEST_NUMBER:
            raise ValueError("a number in it has no end")
