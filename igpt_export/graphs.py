"""The graphs of a bundle as torch modules, and which of them a checkpoint exports to."""

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from igpt_export.checkpoint import Checkpoint
from igpt_export.embed import embedded_graphs
from igpt_export.model import ImageGPT, Parts, States, mean
from igpt_export.ops import quantize_cache
from igpt_export.pictures import has_filter, postprocess_graph, preprocess_graph
from igpt_export.precision import Precision
from igpt_export.sampling import next_token
from igpt_export.trace import trace
from igpt_runtime import names
from igpt_runtime.config import Classifier
from igpt_runtime.names import graph_specs


class Prefill(nn.Module):
    """Whole sequences in; logits, hidden states, pooled features, class logits and the cache out."""

    def __init__(self, model: ImageGPT, classifier: Classifier | None, *, int8_cache: bool) -> None:
        super().__init__()
        self.model, self.classifier, self.int8_cache = model, classifier, int8_cache

    def forward(self, input_ids: Tensor) -> list[Tensor]:
        # What is read is float32 in every precision. Means come at once, so that a state is not kept for them.
        hidden_states, means, normed_means = [], [], []

        def visit(hidden: Tensor, normed: Tensor) -> None:
            hidden_states.append(hidden.float())
            means.append(mean(hidden_states[-1]))
            normed_means.append(mean(normed))

        states = _prefilled(self.model, input_ids, visit)
        logits = [] if self.model.lm_head is None else [self.model.lm_head(states.last).float()]
        of_means = States(states.last, means, normed_means, [])
        class_logits = [] if self.classifier is None else [self.model.class_logits(of_means, self.classifier)]
        outputs = [*logits, *hidden_states, torch.cat(means, 1), torch.cat(normed_means, 1), *class_logits]
        return [*outputs, *(_quantized(self.model, states.present) if self.int8_cache else states.present)]


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
        states = self.model(input_ids, past_length, past)
        logits = self.model.lm_head(states.last[:, -1]).float()
        return [next_token(logits, uniform, temperature, top_k, top_p), logits, *states.present]


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
        states = self.model(input_ids, past_length, past, prefix)
        logits = self.model.lm_head(states.last[:, -1])
        return [next_token(logits, uniform, temperature, top_k, top_p), logits, *states.present]


def _prefilled(model: ImageGPT, input_ids: Tensor, visit: Callable[[Tensor, Tensor], None]) -> States:
    """What `model` makes of whole sequences, with the attention that keeps a cache, which is the fused one."""
    batch, sequence = input_ids.shape
    config = model.config
    empty = torch.zeros(batch, config.n_head, sequence, config.head_dim, dtype=model.wte.weight.dtype)
    start = torch.zeros((), dtype=torch.int64)
    states: States = model(input_ids, start, [empty] * (2 * config.n_layer), visit=visit)
    return states


def _quantized(model: ImageGPT, present: list[Tensor]) -> list[Tensor]:
    parameters = dict(model.named_parameters())
    scales = [parameters[f"h.{i}.attn.{kind}_scale"] for i in range(model.config.n_layer) for kind in "kv"]
    return [quantize_cache(tensor, scale) for tensor, scale in zip(present, scales, strict=True)]


def trace_graphs(
    checkpoint: Checkpoint, parts: Parts, precision: Precision, weights: Path, *, embed: bool,
    stored_names: Mapping[str, str] | None = None,
) -> dict[str, ir.Model]:  # fmt: skip
    """The graphs a checkpoint exports to, by name, with their weights referring to the file `weights`.

    parts: what the weights are for; embed: also those that take a picture and give what one wants of it, with no host
    code; stored_names: see `igpt_export.trace.trace`.
    """
    config, form, classifier = checkpoint.config, checkpoint.image_format, checkpoint.classifier
    cache_dtype, int8_cache = precision.cache_dtype, precision.kv_cache == "int8"
    specs = graph_specs(config, form, lm_head=parts.lm_head, n_labels=parts.n_labels, cache_dtype=cache_dtype)
    modules: dict[str, Callable[[ImageGPT], nn.Module]] = {
        names.PREFILL: lambda model: Prefill(model, classifier, int8_cache=int8_cache)
    }
    if parts.lm_head:
        modules[names.DECODE] = Decode
    if parts.lm_head and names.DECODE_SHARED in precision.graphs:
        modules[names.DECODE_SHARED] = DecodeShared
    graphs = {}
    for name, module in modules.items():
        with FakeTensorMode():
            model = ImageGPT(config, parts, linear=precision.linear, int8_cache=int8_cache).eval()
            if precision.is_half:
                _halve(model)
            graphs[name] = trace(module(model), *specs[name], name, weights, stored_names or {})
    if embed or has_filter(form):
        graphs[names.PREPROCESS] = preprocess_graph(specs[names.PREPROCESS], form)
    graphs[names.POSTPROCESS] = postprocess_graph(specs[names.POSTPROCESS], form)
    if embed:
        graphs |= embedded_graphs(graphs, specs, config, form, classifier)
    return graphs


def _halve(model: nn.Module) -> None:
    """Make all parameters float16; `Module.half` cannot do that to fake tensors."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.half(), requires_grad=False))
