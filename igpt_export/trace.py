"""Traces a torch module into an ONNX graph without touching a weight.

The model is built and traced under torch's `FakeTensorMode`, so tracing costs neither the memory nor the time of the
real weights; the graphs then refer to the bundle's weights file by name.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnx_safetensors
import onnxscript.optimizer
import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from igpt_export.portable import attach_functions
from igpt_runtime import names
from igpt_runtime.names import TensorSpec

# The last opset the exporter emits natively: a conversion would inline the portable functions away.
OPSET = 18
_DTYPES = {"float32": torch.float32, "int64": torch.int64, "int8": torch.int8, "float16": torch.float16}
# Sizes 0 and 1 would be specialised; any others stand for the free dimensions.
_EXAMPLE_SIZES = {names.BATCH: 3, names.SEQUENCE: 5, names.PREFIX: 6, names.CAPACITY: 7}


def trace(
    module: nn.Module, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], name: str, weights: Path,
    stored_names: Mapping[str, str],
) -> ir.Model:  # fmt: skip
    """One graph, called `name`, with the portable bodies of its fused operators.

    weights: the safetensors file that its parameters are in; stored_names: what their names without "model." are there,
    if they are others.
    """
    model = _trace(module, inputs, outputs)
    _simplify(model, stored_names)
    onnx_safetensors.replace_tensors(model, weights.name, weights.parent)
    attach_functions(model)
    passes.ClearMetadataAndDocStringPass()(model)
    name_model(model, name)
    return model


def name_model(model: ir.Model, name: str) -> None:
    """Say what a model is and who made it."""
    model.graph.name, model.producer_name = f"imagegpt-{name}", "igpt-export"


def _trace(module: nn.Module, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> ir.Model:
    """One graph as the exporter makes it. Runs of cache inputs become one list argument of the module."""
    dimensions = {name: torch.export.Dim(name) for name in _EXAMPLE_SIZES}
    arguments: dict[str, Any] = {}  # by the part of the inputs' names before the first dot
    dynamic: dict[str, Any] = {}
    for spec in inputs:
        sizes = [_EXAMPLE_SIZES[d] if isinstance(d, str) else d for d in spec.shape]
        example = torch.zeros(sizes, dtype=_DTYPES[spec.dtype])
        free = {axis: dimensions[d] for axis, d in enumerate(spec.shape) if isinstance(d, str)} or None
        name, *parts = spec.name.split(".")
        if parts:
            arguments.setdefault(name, []).append(example)
            dynamic.setdefault(name, []).append(free)
        else:
            arguments[name], dynamic[name] = example, free
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(arguments.values()),
            dynamo=True,
            optimize=False,  # its constant folding would read the fake weights
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=tuple(dynamic.values()),
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
        )
    assert program is not None
    _forget(program.model)
    return program.model


def _forget(model: ir.Model) -> None:
    """Let go of what torch noted while it traced, 2.5 MB a layer that else stay until the end.

    Nodes refer to those of torch's graph, and rewriting rules refer to the last node that they saw; and the methods of
    torch's environment of symbolic shapes cache by that environment.
    """
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        node.meta.clear()
        values += node.outputs
    for value in values:
        value.meta.clear()
        if value.const_value is not None:
            value.const_value.meta.clear()
    for method in vars(ShapeEnv).values():
        if hasattr(method, "cache_clear"):
            method.cache_clear()


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


def _simplify(model: ir.Model, stored_names: Mapping[str, str]) -> None:
    """Simplify the graph. Meanwhile its weights are inputs, so that it cannot come to depend on their values."""
    graph = model.graph
    parameters = [(value, value.const_value) for value in graph.initializers.values()]
    graph.initializers.clear()
    for parameter, _ in parameters:
        parameter.const_value = None
        graph.inputs.append(parameter)
    onnxscript.optimizer.optimize(model)
    for parameter, value in parameters:
        graph.inputs.remove(parameter)
        assert parameter.name is not None
        name = parameter.name.removeprefix("model.")
        parameter.name = stored_names.get(name, name)
        parameter.const_value = value
        if parameter.uses():
            graph.register_initializer(parameter)
