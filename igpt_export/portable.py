"""The fused operations once more, as ONNX functions of standard operators.

Each has the domain, name, attributes and output positions of ONNX Runtime's kernel. Attached to a model, it is what a
runtime without that kernel (or the ONNX reference evaluator) executes, and what inlining leaves behind.

The functions are onnxscript: Python syntax, parsed into ONNX and never executed as Python.
"""

# mypy: ignore-errors
# ruff: noqa: UP006, UP035
from typing import Tuple  # onnxscript reads typing.Tuple to count a function's outputs

import onnx_ir as ir
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

from igpt_export.ops import MICROSOFT

_microsoft = Opset(MICROSOFT, 1)


@script(_microsoft, default_opset=op)
def QuickGelu(X: FLOAT, alpha: float = 1.702) -> FLOAT:
    return X * op.Sigmoid(X * alpha)


@script(_microsoft, default_opset=op)
def SkipSimplifiedLayerNormalization(
    X: FLOAT,
    skip: FLOAT,
    gamma: FLOAT,
    epsilon: float = 1e-5,
) -> Tuple[FLOAT, FLOAT, FLOAT, FLOAT]:
    total = X + skip
    mean = op.ReduceMean(total * total, [-1], keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(mean + epsilon))
    normed = total * inverse * gamma
    return normed, mean, inverse, total


@script(_microsoft, default_opset=op)
def GroupQueryAttention(
    qkv, key, value, past_key, past_value, seqlens_k, total, num_heads: int, kv_num_heads: int, scale: float
) -> Tuple[FLOAT, FLOAT, FLOAT]:
    q, k, v = op.Split(qkv, num_outputs=3, axis=-1)
    rows = op.Shape(qkv, start=0, end=2)
    sequence = op.Shape(qkv, start=1, end=2)
    capacity = op.Shape(past_key, start=2, end=3)
    end = op.Reshape(op.Cast(total, to=7), [1])
    begin = end - sequence
    heads = op.Reshape(op.Constant(value_int=num_heads), [1])
    split = op.Concat(rows, heads, [-1], axis=0)
    q4 = op.Transpose(op.Reshape(q, split), perm=[0, 2, 1, 3])
    k4 = op.Transpose(op.Reshape(k, split), perm=[0, 2, 1, 3])
    v4 = op.Transpose(op.Reshape(v, split), perm=[0, 2, 1, 3])
    # The cache keeps its capacity: filled slots, the new tokens, then the slots still empty.
    present_key = op.Concat(op.Slice(past_key, [0], begin, [2]), k4, op.Slice(past_key, end, capacity, [2]), axis=2)
    present_value = op.Concat(
        op.Slice(past_value, [0], begin, [2]), v4, op.Slice(past_value, end, capacity, [2]), axis=2
    )
    scores = op.MatMul(q4, op.Transpose(present_key, perm=[0, 1, 3, 2])) * op.Constant(value_float=scale)
    query_position = op.Unsqueeze(op.Range(op.Squeeze(begin), op.Squeeze(end), op.Constant(value_int=1)), [1])
    key_position = op.Unsqueeze(op.Range(op.Constant(value_int=0), op.Squeeze(capacity), op.Constant(value_int=1)), [0])
    masked = op.Where(key_position > query_position, op.Constant(value_float=-3.0e38), scores)
    mixed = op.MatMul(op.Softmax(masked, axis=-1), present_value)
    merged = op.Concat(rows, [-1], axis=0)
    return op.Reshape(op.Transpose(mixed, perm=[0, 2, 1, 3]), merged), present_key, present_value


def portable_functions() -> list[ir.Function]:
    """The portable bodies as ONNX functions, ready to attach to a model."""
    bodies = (QuickGelu, SkipSimplifiedLayerNormalization, GroupQueryAttention)
    return [ir.serde.deserialize_function(body.to_function_proto()) for body in bodies]
