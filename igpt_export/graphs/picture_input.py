"""The beginning of every graph that takes a picture: its tokens, and what the other graphs make of them."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from igpt_export.graphs.assembly import Assembly, value_of
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import ImageGPTConfig
from igpt_runtime.bundle.graph_io import GraphSpec

Graphs = Mapping[str, ir.Model]


class PictureInput(Assembly):
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
