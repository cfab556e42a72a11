"""The file of a graph's weights is renamed without the onnx package, and nothing else changes."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from igpt_runtime.bundle.subgraph import part_of, with_weights_file

OLD, NEW = "weights.safetensors", "0" * 64


def external(name: str, location: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "8"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def places(graph: onnx.GraphProto) -> list[str]:
    """Files of the tensors of a graph and of those inside of its nodes."""
    found = [entry.value for t in graph.initializer for entry in t.external_data if entry.key == "location"]
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return found + [place for part in inner for place in places(part)]


def test_tensors_of_all_levels() -> None:
    body = helper.make_graph([], "body", [], [], [external("inner", OLD), external("other", f"{OLD}.old")])
    branch = helper.make_node("If", [OLD], ["y"], name=OLD, then_branch=body, else_branch=body)
    graph = helper.make_graph([branch], OLD, [], [], [external(OLD, OLD), external("data", "data")])
    model = helper.make_model(graph, producer_name=OLD)
    renamed = onnx.load_from_string(with_weights_file(model.SerializeToString(), OLD, NEW))
    assert places(model.graph) == [OLD, "data", OLD, f"{OLD}.old", OLD, f"{OLD}.old"]
    assert places(renamed.graph) == [NEW, "data", NEW, f"{OLD}.old", NEW, f"{OLD}.old"]
    # Back again, it is what it was: names, offsets and texts that look like the file's are left alone.
    assert onnx.load_from_string(with_weights_file(renamed.SerializeToString(), NEW, OLD)) == model


@pytest.mark.parametrize("graph", ["prefill", "decode", "decode_shared", "complete", "classify", "preprocess"])
def test_graphs_of_a_bundle(tiny_bundle: Path, graph: str) -> None:
    data = (tiny_bundle / f"{graph}.onnx").read_bytes()
    there, renamed = onnx.load_from_string(data), with_weights_file(data, OLD, NEW)
    assert set(places(onnx.load_from_string(renamed).graph)) == ({NEW} if places(there.graph) else set())
    assert onnx.load_from_string(with_weights_file(renamed, NEW, OLD)) == there


def record(number: int, content: bytes) -> bytes:
    """A record of a protocol buffer."""
    size, length = bytearray(), len(content)
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content


TEXT, OUTPUT = record(9, OLD.encode()), record(12, record(1, b"y"))


def nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    content = TEXT
    for _ in range(depth):
        content = record(1, record(2, b"y") + record(5, record(6, content)))
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff" * 4_000_000, "a number in it has no end"),
        (b"\x0a\xff", "damaged or cut short"),
        (b"\x0b", "damaged or cut short"),
        (nested(3000), "nested without end"),
    ],
    ids=["number", "cut", "type", "nested"],
)
def test_files_of_strangers(content: bytes, words: str) -> None:
    model = record(7, OUTPUT + TEXT + content)
    for change in (lambda: part_of(model, ["y"]), lambda: with_weights_file(model, OLD, NEW)):
        with pytest.raises(ValueError, match=words):
            change()
