"""Runs a torch model block by block, with the weights of one block in memory at a time.

So the export of a model of any size calibrates, compares and certifies in the memory of its largest block.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from igpt_export.model.model import ImageGPT, Parts
from igpt_runtime.bundle.config import ImageGPTConfig
from igpt_runtime.engine.session import return_freed_memory


def unloaded_model(
    config: ImageGPTConfig, tensors: Mapping[str, Tensor], *, linear: str = "float", int8_cache: bool = False
) -> ImageGPT:
    """The model that tensors are for, with its heads' weights but without memory for all others, in eval mode."""
    parts = Parts.of(tensors)
    with torch.device("meta"):
        model = ImageGPT(config, parts, linear=linear, int8_cache=int8_cache)
    for head in ("lm_head", "classifier"):
        if getattr(model, head) is not None:
            _load(model, head, tensors)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def states_by_block(
    model: ImageGPT, tensors: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Run batches of whole sequences, int64 [batch, sequence] each, through an unloaded model.

    Yields n_layer + 1 times, for each batch, the hidden state and the normed state of `igpt_export.model.model.States`.
    """
    with _loaded(model, ["wte", "wpe"], tensors):
        streams = [model.embed(batch, torch.tensor(0)) for batch in inputs]
    for layer, block in enumerate(model.h):
        states = []
        with _loaded(model, [f"h.{layer}"], tensors):
            for i, (x, residual) in enumerate(streams):
                x, residual, hidden, normed, _ = block(x, residual, None, torch.tensor(0), None)
                streams[i] = x, residual
                states.append((hidden, normed))
        yield states
    with _loaded(model, ["ln_f"], tensors):
        last = [model.ln_f(x, residual)[0] for x, residual in streams]
    yield [(state, state) for state in last]


@contextmanager
def _loaded(model: nn.Module, names: Sequence[str], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    for name in names:
        _load(model, name, tensors)
    try:
        yield
    finally:
        for name in names:
            model.get_submodule(name).to("meta")
        return_freed_memory()  # else it is kept for reuse, in pieces too small, block after block


def _load(model: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    module = model.get_submodule(name)
    found = {part: tensors[f"{name}.{part}"] for part, _ in module.named_parameters()}
    floats = {part: tensor.float() if tensor.dtype == torch.float16 else tensor for part, tensor in found.items()}
    module.load_state_dict(floats, assign=True)
    module.requires_grad_(False)
