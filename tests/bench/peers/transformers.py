"""transformers on torch: its ImageGPT class as it is, and its GPT-2 code with ImageGPT's arithmetic, compiled.

The completion is made of forward passes over transformers' caches, with less around them than `generate` has.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, ImageGPTForCausalImageModeling, StaticCache

from peers.as_gpt2 import load_as_gpt2
from peers.stepping import Stepper
from peers.workload import Logits, Shape, Tokens


def versions() -> dict[str, str]:
    """What was measured."""
    return {name: version(name) for name in ("transformers", "torch")}


def _grow(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """A cache tensor [rows, heads, slots, width] continued to `length` slots with repetitions of itself."""
    repeats = -(-length // tensor.shape[2])
    return tensor.repeat(1, 1, repeats, 1)[:, :, :length].contiguous()


class Eager(Stepper):
    """Forward passes over a DynamicCache."""

    proxy = False

    def __init__(self, model: Any, shape: Shape, settings: str) -> None:
        super().__init__(shape)
        self.model, self.settings = model, settings

    @torch.inference_mode()
    def begin(self, tokens: Tokens, rows: int) -> Logits:
        """See `Stepper`."""
        self.cache: Any = DynamicCache(config=self.model.config)
        inputs = torch.from_numpy(tokens)[None]
        return self.model(inputs, past_key_values=self.cache, use_cache=True).logits[0, -1].numpy()

    @torch.inference_mode()
    def fork(self, rows: int) -> None:
        """See `Stepper`."""
        self.cache.batch_repeat_interleave(rows)

    @torch.inference_mode()
    def step(self, tokens: Tokens) -> Logits:
        """See `Stepper`."""
        inputs = torch.from_numpy(tokens)[:, None]
        return self.model(inputs, past_key_values=self.cache, use_cache=True).logits[:, -1].numpy()

    @torch.inference_mode()
    def seek(self, length: int) -> None:
        """See `Stepper`."""
        for layer in self.cache.layers:
            layer.keys, layer.values = _grow(layer.keys, length), _grow(layer.values, length)


class Compiled(Stepper):
    """A compiled step over a StaticCache; the given half runs uncompiled, as transformers advises."""

    proxy = False

    def __init__(self, model: Any, shape: Shape, settings: str, **compiler: Any) -> None:
        super().__init__(shape)
        self.model, self.settings = model, settings
        self.compiled = torch.compile(self._forward, dynamic=False, fullgraph=True, **compiler)
        self.caches: dict[int, Any] = {}

    def _forward(self, inputs: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        outputs = self.model(inputs, position_ids=positions, past_key_values=cache, use_cache=True)
        logits: torch.Tensor = outputs.logits[:, -1]
        return logits

    @torch.no_grad()
    def begin(self, tokens: Tokens, rows: int) -> Logits:
        """See `Stepper`."""
        self.prefix = DynamicCache(config=self.model.config)
        inputs = torch.from_numpy(tokens)[None]
        return self.model(inputs, past_key_values=self.prefix, use_cache=True).logits[0, -1].numpy()

    @torch.no_grad()
    def fork(self, rows: int) -> None:
        """See `Stepper`. One cache a batch size is kept: compiled code refers to its address."""
        if rows not in self.caches:
            cache = StaticCache(config=self.model.config, max_cache_len=self.shape.n_positions)
            head_dim = self.shape.n_embd // self.shape.n_head
            cache.early_initialization(rows, self.shape.n_head, head_dim, torch.float32, torch.device("cpu"))
            self.caches[rows] = cache
            self.cache = cache
            self._fill()
            self.step(np.zeros(rows, np.int64))  # compiles
        self.cache = self.caches[rows]
        self._fill()

    def _fill(self) -> None:
        length = self.prefix.get_seq_length()
        for source, target in zip(self.prefix.layers, self.cache.layers, strict=True):
            target.keys[:, :, :length] = source.keys
            target.values[:, :, :length] = source.values
        self._set_length(length)

    def _set_length(self, length: int) -> None:
        self.length = length
        for layer in self.cache.layers:
            layer.cumulative_length.fill_(length)

    @torch.no_grad()
    def step(self, tokens: Tokens) -> Logits:
        """See `Stepper`."""
        positions = torch.tensor([[self.length]])
        self.length += 1
        return self.compiled(torch.from_numpy(tokens)[:, None], positions, self.cache).numpy()

    def seek(self, length: int) -> None:
        """See `Stepper`: slots beyond the prefix may hold anything finite."""
        self._set_length(length)


def load(checkpoint: Path, shape: Shape, variant: str, threads: int) -> Stepper:
    """variant: eager or compiled."""
    torch.set_num_threads(threads)
    if variant == "eager":
        model = ImageGPTForCausalImageModeling.from_pretrained(checkpoint).eval()
        return Eager(model, shape, "its ImageGPT class, DynamicCache, prefix copied by batch_repeat_interleave")
    model = load_as_gpt2(checkpoint, shape)
    settings = "its GPT-2 code with ImageGPT's norm, sdpa, StaticCache, torch.compile of the step"
    return Compiled(model, shape, settings)
