"""A graph that puts zeros behind one row and repeats it: how a cache begins, on a device.

Written as a protocol buffer (`onnx.proto` of the ONNX standard), as the runtime does without the onnx package.
"""

from igpt_runtime.bundle.protobuf import encoded, encoded_number

ROW, SHAPE, PADS, FILLED = "row", "shape", "pads", "filled"
_PADDED = "padded"
_IR_VERSION, _OPSET = 8, 13
_FLOAT16, _INT64 = 10, 7  # TensorProto.DataType
_RANK = 4


def repeating_graph() -> bytes:
    """A serialized ModelProto.

    Inputs: `row` float16 [1, a, b, c]; `pads` int64 [8], numbers of zeros as in ONNX's Pad; `shape` int64 [4], to which
    the padded row is broadcast. Output: `filled` float16, of that shape.
    """
    graph = b"".join(
        (
            encoded(1, _node("Pad", [ROW, PADS], _PADDED)),
            encoded(1, _node("Expand", [_PADDED, SHAPE], FILLED)),
            encoded(2, b"repeat"),
            encoded(11, _value(ROW, _FLOAT16, _RANK)),
            encoded(11, _value(SHAPE, _INT64, 1)),
            encoded(11, _value(PADS, _INT64, 1)),
            encoded(12, _value(FILLED, _FLOAT16, _RANK)),
        )
    )
    return encoded_number(1, _IR_VERSION) + encoded(7, graph) + encoded(8, encoded_number(2, _OPSET))


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    return (
        b"".join(encoded(1, name.encode()) for name in inputs)
        + encoded(2, output.encode())
        + encoded(4, operator.encode())
    )


def _value(name: str, dtype: int, rank: int) -> bytes:
    """A ValueInfoProto of a tensor whose axes have names, each its own."""
    axes = b"".join(encoded(1, encoded(2, f"{name}_{axis}".encode())) for axis in range(rank))
    return encoded(1, name.encode()) + encoded(2, encoded(1, encoded_number(1, dtype) + encoded(2, axes)))
