"""Adds the biases of linear layers inside the norms that follow them."""

import numpy as np
import onnx_ir as ir

_NORM = "SkipSimplifiedLayerNormalization"
# Of the inputs of a norm: the first term of the sum that it takes, its weight, and what it adds to that sum.
_SUMMAND, _WEIGHT, _BIAS = 0, 2, 3


def add_biases_in_norms(graph: ir.Graph) -> None:
    """Have the norm of a sum add the bias that an operator of its own would add before.

    Half of a block's biases are such. The kernel of the norm reads all that it needs for it anyway.
    """
    norms = [node for node in graph if node.op_type == _NORM]
    found = {norm: addition for norm in norms if (addition := _addition(norm)) is not None}
    for norm in norms if found else ():
        norm.resize_inputs(_BIAS + 1)
        if norm in found:
            product, bias = found[norm].inputs
            norm.replace_input_with(_SUMMAND, product)
            graph.remove(found[norm], safe=True)
        else:  # all norms of a graph have one portable body, so all add something
            bias = _zeros(graph, norm)
        norm.replace_input_with(_BIAS, bias)


def _addition(norm: ir.Node) -> ir.Node | None:
    """What adds a bias to the first term of a norm's sum, and to nothing else."""
    summand = norm.inputs[_SUMMAND]
    addition = None if summand is None else summand.producer()
    if summand is None or addition is None or addition.op_type != "Add":
        return None
    if len(summand.uses()) > 1 or summand.is_graph_output():
        return None
    bias = addition.inputs[1]
    return addition if bias is not None and bias.shape is not None and len(bias.shape) == 1 else None


def _zeros(graph: ir.Graph, norm: ir.Node) -> ir.Value:
    """A constant like the norm's weight, in front of it."""
    weight = norm.inputs[_WEIGHT]
    assert weight is not None
    assert weight.dtype is not None
    assert weight.shape is not None
    zeros = np.zeros(weight.shape.numpy(), weight.dtype.numpy())
    node = ir.node("Constant", [], {"value": ir.tensor(zeros)})
    graph.insert_before(norm, node)
    value = node.outputs[0]
    value.name, value.dtype, value.shape = f"{weight.name}.no_bias", weight.dtype, weight.shape
    return value
