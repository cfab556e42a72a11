"""Traces the model into its graphs, prefill and decode, without touching a weight.

The module is built and traced under torch's `FakeTensorMode`, so tracing costs neither the memory nor the time of the
real weights; the graphs then refer to the bundle's weights file by name.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnx_safetensors
import onnxscript.optimizer
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from igpt_export.model import ImageGPT
from igpt_export.ops import MICROSOFT, quantize_cache
from igpt_export.portable import portable_functions
from igpt_export.precision import Precision
from igpt_export.sampling import next_token
from igpt_runtime import names
from igpt_runtime.config import Classifier, ImageGPTConfig
from igpt_runtime.names import TensorSpec, graph_specs

# The last opset the exporter emits natively: a conversion would inline the portable functions away.
OPSET = 18
_DTYPES = {"float32": torch.float32, "int64": torch.int64, "int8": torch.int8, "float16": torch.float16}
# Sizes 0 and 1 would be specialised; any others stand for the free dimensions.
_EXAMPLE_SIZES = {names.BATCH: 3, names.SEQUENCE: 5, names.PREFIX: 6, names.CAPACITY: 7}


class Prefill(nn.Module):
    """Whole sequences in; logits, hidden states, pooled features, class logits and the cache out."""

    def __init__(self, model: ImageGPT, classifier: Classifier | None, *, int8_cache: bool) -> None:
        super().__init__()
        self.model, self.classifier, self.int8_cache = model, classifier, int8_cache

    def forward(self, input_ids: Tensor) -> list[Tensor]:
        config = self.model.config
        batch, sequence = input_ids.shape
        dtype = self.model.wte.weight.dtype
        empty = torch.zeros(batch, config.n_head, sequence, config.head_dim, dtype=dtype)
        start = torch.zeros((), dtype=torch.int64)
        last, hidden_states, present = self.model(input_ids, start, [empty] * (2 * config.n_layer))
        # What is read is float32 in every precision, and so is the mean.
        hidden_states = [hidden.float() for hidden in hidden_states]
        features = torch.stack([hidden.mean(1) for hidden in hidden_states], dim=1)
        logits = [] if self.model.lm_head is None else [self.model.lm_head(last).float()]
        class_logits = []
        if self.classifier is not None and self.model.classifier is not None:
            class_logits = [self.model.classifier(features[:, self.classifier.layer].to(dtype)).float()]
        outputs = [*logits, *hidden_states, features, *class_logits]
        return [*outputs, *(self._quantized(present) if self.int8_cache else present)]

    def _quantized(self, present: list[Tensor]) -> list[Tensor]:
        parameters = dict(self.model.named_parameters())
        scales = [parameters[f"h.{i}.attn.{kind}_scale"] for i in range(self.model.config.n_layer) for kind in "kv"]
        return [quantize_cache(tensor, scale) for tensor, scale in zip(present, scales, strict=True)]


class Decode(nn.Module):
    """One or more new tokens and the cache in; the next token, its logits and the cache out."""

    def __init__(self, model: ImageGPT) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        past_length: Tensor,
        past: list[Tensor],
        uniform: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
    ) -> list[Tensor]:
        assert self.model.lm_head is not None
        last, _, present = self.model(input_ids, past_length, past)
        logits = self.model.lm_head(last[:, -1]).float()
        return [next_token(logits, uniform, temperature, top_k, top_p), logits, *present]


class DecodeShared(nn.Module):
    """One new token a row, a prefix all rows share, and each row's own cache in; as Decode otherwise."""

    def __init__(self, model: ImageGPT) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        past_length: Tensor,
        prefix: list[Tensor],
        past: list[Tensor],
        uniform: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
    ) -> list[Tensor]:
        assert self.model.lm_head is not None
        last, _, present = self.model(input_ids, past_length, past, prefix)
        logits = self.model.lm_head(last[:, -1])
        return [next_token(logits, uniform, temperature, top_k, top_p), logits, *present]


def trace_graphs(
    config: ImageGPTConfig,
    *,
    lm_head: bool,
    classifier: Classifier | None,
    classifier_bias: bool,
    weights: Path,
    precision: Precision,
) -> dict[str, ir.Model]:
    """The graphs a checkpoint of this shape exports to, by name, with their weights referring to the file `weights`."""
    n_labels = 0 if classifier is None else len(classifier.labels)
    int8_cache = precision.kv_cache == "int8"
    specs = graph_specs(config, lm_head=lm_head, n_labels=n_labels, cache_dtype=precision.cache_dtype)
    graphs = {}
    for name, (inputs, outputs) in specs.items():
        if name not in precision.graphs or (name != names.PREFILL and not lm_head):
            continue
        with FakeTensorMode():
            model = ImageGPT(
                config,
                lm_head=lm_head,
                n_labels=n_labels,
                bias=classifier_bias,
                linear=precision.linear,
                int8_cache=int8_cache,
            ).eval()
            if precision.is_half:
                _halve(model)
            if name == names.PREFILL:
                module: nn.Module = Prefill(model, classifier, int8_cache=int8_cache)
            else:
                module = DecodeShared(model) if name == names.DECODE_SHARED else Decode(model)
            graphs[name] = _trace(module, inputs, outputs)
        _finish(graphs[name], name, weights)
    return graphs


def _halve(model: nn.Module) -> None:
    """Make all parameters float16; `Module.half` cannot do that to fake tensors."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.half(), requires_grad=False))


def _trace(module: nn.Module, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> ir.Model:
    """One graph, its weights still fake. Runs of cache inputs become one list argument of the module."""
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
    return program.model


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


def _finish(model: ir.Model, name: str, weights: Path) -> None:
    """Simplify the graph, point its weights at their file, and attach the portable bodies."""
    graph = model.graph
    # While it is simplified the weights are inputs, so that the graph cannot come to depend on their values.
    parameters = [(value, value.const_value) for value in graph.initializers.values()]
    graph.initializers.clear()
    for parameter, _ in parameters:
        parameter.const_value = None
        graph.inputs.append(parameter)
    onnxscript.optimizer.optimize(model)
    del graph.inputs[-len(parameters) :]
    for parameter, value in parameters:
        assert parameter.name is not None
        parameter.name = parameter.name.removeprefix("model.")
        parameter.const_value = value
        if parameter.uses():
            graph.register_initializer(parameter)
    onnx_safetensors.replace_tensors(model, weights.name, weights.parent)
    for function in portable_functions(model):
        model.functions[function.identifier()] = function
    model.opset_imports[MICROSOFT] = 1
    passes.ClearMetadataAndDocStringPass()(model)
    graph.name, model.producer_name = f"imagegpt-{name}", "igpt-export"
