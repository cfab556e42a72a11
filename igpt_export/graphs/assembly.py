"""Puts traced graphs together into larger ones, also as the body of a loop; weights they share are there once."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx_ir.tape import Tape

from igpt_export.graphs.trace import IR_VERSION, OPSET
from igpt_runtime.bundle.graph_io import TensorSpec

Attribute = int | str | Sequence[int] | ir.Graph


class Assembly:
    """A graph under construction. Values come from `inputs`, `add`, `op` and `constant`."""

    def __init__(self, inputs: Sequence[ir.Value], parent: "Assembly | None" = None) -> None:
        """parent: the graph that this one will be a part of; it may use its values, and keeps weights there."""
        self.inputs = list(inputs)
        self._graph = ir.Graph(self.inputs, [], nodes=[], name="body", opset_imports={"": OPSET})
        self._root: Assembly = self if parent is None else parent._root
        self._model: ir.Model = ir.Model(self._graph, ir_version=IR_VERSION) if parent is None else parent._model
        self._used: Counter[str] = Counter()  # names, by what they begin with

    def add(
        self, part: ir.Model, inputs: Sequence[ir.Value], label: str, *, keep_shapes: bool = False
    ) -> list[ir.Value]:
        """Take over all nodes of `part`, fed with `inputs`; returns its outputs.

        label: of its names, used once; keep_shapes: whether a free dimension is here what it is there (not in a loop).
        """
        graph, root = part.graph, self._root._graph
        ir.convenience.replace_all_uses_with(list(graph.inputs), list(inputs), replace_graph_outputs=True)
        for name, value in sorted(graph.initializers.items()):  # whose order may be that of a set
            del graph.initializers[name]
            if not isinstance(value.const_value, ir.ExternalTensor):
                value.name = f"{label}/{name}"
            if name in root.initializers and value.name == name:
                ir.convenience.replace_all_uses_with(value, root.initializers[name])
            else:
                root.register_initializer(value)
        outputs = list(graph.outputs)
        graph.outputs.clear()
        nodes = list(graph)
        graph.remove(nodes)
        for node in nodes:
            node.name = f"{label}/{node.name}"
            for value in node.outputs:
                value.name = f"{label}/{value.name}"
                if not keep_shapes:
                    value.shape = None
        self._graph.extend(nodes)
        self._model.functions.update(part.functions)
        self._model.opset_imports.update(part.opset_imports)
        return outputs

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Attribute) -> ir.Value:
        """One standard operator with one output."""
        return self.ops(op_type, *inputs, outputs=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: ir.Value | None, outputs: int, **attributes: Attribute) -> Sequence[ir.Value]:
        """One standard operator with several outputs."""
        tape = Tape(self._graph)
        values = tape.op_multi_out(op_type, inputs, attributes, num_outputs=outputs)
        node = tape.nodes[0]
        node.name = self._unique(op_type.lower())
        for i, value in enumerate(values):
            value.name = f"{node.name}/{i}"
        return values

    def constant(self, value: int | bool | npt.NDArray[np.generic], name: str = "constant") -> ir.Value:
        """A number (int64 if it is an integer) or an array."""
        array = np.array(value, np.int64) if type(value) is int else np.array(value)
        result = ir.val(self._root._unique(name), const_value=ir.tensor(array))
        self._root._graph.register_initializer(result)
        return result

    def body(self, outputs: Sequence[ir.Value]) -> ir.Graph:
        """The finished graph, for a loop."""
        self._graph.outputs.extend(outputs)
        return self._graph

    def model(self, outputs: Sequence[ir.Value], specs: Sequence[TensorSpec], name: str) -> ir.Model:
        """The finished model."""
        for value, spec in zip(outputs, specs, strict=True):
            value.name, value.dtype, value.shape = spec.name, _dtype(spec), ir.Shape(spec.shape)
        self._graph.outputs.extend(outputs)
        passes.RemoveUnusedNodesPass()(self._model)
        self._graph.name, self._model.producer_name = f"imagegpt-{name}", "igpt-export"
        return self._model

    def _unique(self, label: str) -> str:
        label = label if self is self._root else f"body/{label}"
        self._root._used[label] += 1
        return f"{label}_{self._root._used[label]}"


def value_of(spec: TensorSpec) -> ir.Value:
    """An input of a graph."""
    return ir.val(spec.name, dtype=_dtype(spec), shape=ir.Shape(spec.shape))


def _dtype(spec: TensorSpec) -> ir.DataType:
    return ir.DataType.from_numpy(np.dtype(spec.dtype))
