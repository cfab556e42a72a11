"""The fused operations once more, as ONNX functions of standard operators.

Each has the domain, name, attributes and output positions of ONNX Runtime's kernel. Attached to a model, it is what a
runtime without that kernel (or the ONNX reference evaluator) executes, and what inlining leaves behind.

The functions are onnxscript: Python syntax, parsed into ONNX and never executed as Python.
"""

# mypy: ignore-errors
# ruff: noqa: UP006, UP035
from typing import Tuple  # onnxscript reads typing.Tuple to count a function's outputs

import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

from igpt_export.model.ops import MICROSOFT

_microsoft = Opset(MICROSOFT, 1)
_INT8_CACHE = "int8"


@script(_microsoft, default_opset=op)
def QuickGelu(X: FLOAT, alpha: float = 1.702) -> FLOAT:
    return X * op.Sigmoid(X * alpha)


@script(_microsoft, default_opset=op)
def SkipSimplifiedLayerNormalization(
    X: FLOAT,
    skip: FLOAT,
    gamma: FLOAT,
    bias: FLOAT,
    epsilon: float = 1e-5,
) -> Tuple[FLOAT, FLOAT, FLOAT, FLOAT]:
    both = X + skip
    total = both + bias
    exact = op.Cast(total, to=1)  # squares overflow float16
    mean = op.ReduceMean(exact * exact, [-1], keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(mean + epsilon))
    normed = op.CastLike(exact * inverse * op.Cast(gamma, to=1), X)
    return normed, mean, inverse, total


@script(_microsoft, default_opset=op)
def GroupQueryAttention(
    qkv, key, value, past_key, past_value, seqlens_k, total, num_heads: int, kv_num_heads: int, scale: float
) -> Tuple[FLOAT, FLOAT, FLOAT]:
    q, k, v = op.Split(qkv, num_outputs=3, axis=-1)
    rows = op.Shape(qkv, start=0, end=2)
    sequence = op.Shape(qkv, start=1, end=2)
    capacity = op.Shape(past_key, start=2, end=3)
    end = op.Cast(op.Slice(seqlens_k, [0], [1]), to=7) + 1  # all rows have the same length; `total` may be any bound
    begin = end - sequence
    heads = op.Reshape(op.Constant(value_int=num_heads), [1])
    split = op.Concat(rows, heads, [-1], axis=0)
    q4 = op.Transpose(op.Reshape(q, split), perm=[0, 2, 1, 3])
    k4 = op.Transpose(op.Reshape(k, split), perm=[0, 2, 1, 3])
    v4 = op.Transpose(op.Reshape(v, split), perm=[0, 2, 1, 3])
    # Filled slots, the new tokens, then the slots still empty; a cache without empty slots grows.
    present_key = op.Concat(op.Slice(past_key, [0], begin, [2]), k4, op.Slice(past_key, end, capacity, [2]), axis=2)
    present_value = op.Concat(
        op.Slice(past_value, [0], begin, [2]), v4, op.Slice(past_value, end, capacity, [2]), axis=2
    )
    # In float32 whatever the cache is in, as the kernels compute it.
    keys, values = op.Cast(present_key, to=1), op.Cast(present_value, to=1)
    query = op.Cast(q4, to=1)
    scores = op.MatMul(query, op.Transpose(keys, perm=[0, 1, 3, 2])) * op.Constant(value_float=scale)
    query_position = op.Unsqueeze(op.Range(op.Squeeze(begin, [0]), op.Squeeze(end, [0]), op.Constant(value_int=1)), [1])
    slots = op.Squeeze(op.Shape(present_key, start=2, end=3), [0])
    key_position = op.Unsqueeze(op.Range(op.Constant(value_int=0), slots, op.Constant(value_int=1)), [0])
    masked = op.Where(key_position > query_position, op.Constant(value_float=-3.0e38), scores)
    mixed = op.CastLike(op.MatMul(op.Softmax(masked, axis=-1), values), qkv)
    merged = op.Concat(rows, [-1], axis=0)
    return op.Reshape(op.Transpose(mixed, perm=[0, 2, 1, 3]), merged), present_key, present_value


def _quantized_cache_attention():
    """GroupQueryAttention over an int8 cache, which has the same name and more inputs."""

    @script(_microsoft, default_opset=op)
    def GroupQueryAttention(
        qkv, key, value, past_key, past_value, seqlens_k, total,
        cos, sin, position_ids, bias, sink, k_scale, v_scale,
        num_heads: int, kv_num_heads: int, scale: float, kv_cache_bit_width: int, k_quant_type: str, v_quant_type: str,
    ) -> Tuple[FLOAT, FLOAT, FLOAT]:  # fmt: skip
        q, k, v = op.Split(qkv, num_outputs=3, axis=-1)
        rows = op.Shape(qkv, start=0, end=2)
        sequence = op.Shape(qkv, start=1, end=2)
        capacity = op.Shape(past_key, start=2, end=3)
        end = op.Cast(op.Slice(seqlens_k, [0], [1]), to=7) + 1
        begin = end - sequence
        heads = op.Reshape(op.Constant(value_int=num_heads), [1])
        split = op.Concat(rows, heads, [-1], axis=0)
        q4 = op.Transpose(op.Reshape(q, split), perm=[0, 2, 1, 3])
        k4 = op.Transpose(op.Reshape(k, split), perm=[0, 2, 1, 3])
        v4 = op.Transpose(op.Reshape(v, split), perm=[0, 2, 1, 3])
        low = op.Constant(value_float=-128.0)
        high = op.Constant(value_float=127.0)
        new_key = op.Cast(op.Clip(op.Round(k4 / k_scale), low, high), to=3)
        new_value = op.Cast(op.Clip(op.Round(v4 / v_scale), low, high), to=3)
        present_key = op.Concat(
            op.Slice(past_key, [0], begin, [2]), new_key, op.Slice(past_key, end, capacity, [2]), axis=2
        )
        present_value = op.Concat(
            op.Slice(past_value, [0], begin, [2]), new_value, op.Slice(past_value, end, capacity, [2]), axis=2
        )
        float_key = op.Cast(present_key, to=1) * k_scale
        float_value = op.Cast(present_value, to=1) * v_scale
        scores = op.MatMul(q4, op.Transpose(float_key, perm=[0, 1, 3, 2])) * op.Constant(value_float=scale)
        query_position = op.Unsqueeze(
            op.Range(op.Squeeze(begin, [0]), op.Squeeze(end, [0]), op.Constant(value_int=1)), [1]
        )
        slots = op.Squeeze(op.Shape(present_key, start=2, end=3), [0])
        key_position = op.Unsqueeze(op.Range(op.Constant(value_int=0), slots, op.Constant(value_int=1)), [0])
        masked = op.Where(key_position > query_position, op.Constant(value_float=-3.0e38), scores)
        mixed = op.MatMul(op.Softmax(masked, axis=-1), float_value)
        merged = op.Concat(rows, [-1], axis=0)
        return op.Reshape(op.Transpose(mixed, perm=[0, 2, 1, 3]), merged), present_key, present_value

    return GroupQueryAttention


@script(_microsoft, default_opset=op)
def MatMulIntegerToFloat(A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias) -> FLOAT:
    products = op.MatMulInteger(A, B, a_zero_point)  # weights have no zero point
    return op.Cast(products, to=1) * (a_scale * b_scale) + bias


@script(_microsoft, default_opset=op)
def MatMulNBits(
    A, B, scales, zero_points, g_idx, bias, K: int, N: int, bits: int, block_size: int, accuracy_level: int
) -> FLOAT:  # fmt: skip
    # 4 bits: two levels a byte, the low half first, zero at 8
    n_in = op.Reshape(op.Constant(value_int=K), [1])
    n_out = op.Reshape(op.Constant(value_int=N), [1])
    packed = op.Cast(B, to=1)
    high = op.Floor(packed / op.Constant(value_float=16.0))
    low = packed - high * op.Constant(value_float=16.0)
    pairs = op.Concat(op.Unsqueeze(low, [3]), op.Unsqueeze(high, [3]), axis=3)
    blocks = op.Reshape(pairs, op.Concat(op.Shape(scales), [-1], axis=0)) - op.Constant(value_float=8.0)
    weight = op.Reshape(blocks * op.Unsqueeze(scales, [2]), op.Concat(n_out, n_in, axis=0))
    return op.MatMul(A, op.Transpose(weight, perm=[1, 0])) + bias


def _without_bias(proto, n_inputs):
    """Of the body of a node that may add a bias: it for one of so few inputs that there is none."""
    (addition,) = (node for node in proto.node if node.op_type == "Add" and "bias" in node.input)
    (summand,) = (name for name in addition.input if name != "bias")
    total = addition.output[0]
    proto.node.remove(addition)
    # One name is left for both. That of an output stays; else the summand's, which may be an input's.
    old, new = (summand, total) if total in proto.output else (total, summand)
    for i, node in enumerate(proto.node):
        node.name = f"n{i}"
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    del proto.input[n_inputs:]


def inlined(model: ir.Model) -> ir.Model:
    """The model with every fused operator replaced by its portable body: standard operators only."""
    passes.InlinePass()(model)
    model.opset_imports.pop(MICROSOFT, None)
    passes.ShapeInferencePass()(model)
    for node in model.graph.all_nodes():
        if node.op_type == "CastLike" and node.inputs[1].dtype is not None:
            # Of a type known now: ONNX Runtime warns of every CastLike that it cannot fold.
            node.attributes["to"] = ir.AttrInt64("to", node.inputs[1].dtype.value)
            node.resize_inputs(1)
            node.op_type = "Cast"
    return model


def attach_functions(model: ir.Model) -> None:
    """Give a model the portable bodies, as model-local functions, of its `com.microsoft` nodes."""
    used = {node.op_type: node for node in model.graph if node.domain == MICROSOFT}
    bodies = {
        "QuickGelu": QuickGelu,
        "SkipSimplifiedLayerNormalization": SkipSimplifiedLayerNormalization,
        "MatMulIntegerToFloat": MatMulIntegerToFloat,
        "MatMulNBits": MatMulNBits,
        "GroupQueryAttention": GroupQueryAttention,
    }
    for name, node in used.items():
        proto = bodies[name].to_function_proto()
        if "bias" in proto.input and len(node.inputs) < len(proto.input):
            _without_bias(proto, len(node.inputs))
        if "k_quant_type" in node.attributes:
            # Another body for the same operator. A graph may attend to a float cache and to an int8 one.
            proto = _quantized_cache_attention().to_function_proto()
            proto.overload = _INT8_CACHE
            for attention in (n for n in model.graph if n.op_type == name):
                attention.overload = _INT8_CACHE
        function = ir.serde.deserialize_function(proto)
        for value in (*function.inputs, *function.outputs):
            value.shape = None  # onnxscript's FLOAT is a scalar
        model.functions[function.identifier()] = function
    model.opset_imports[MICROSOFT] = 1
