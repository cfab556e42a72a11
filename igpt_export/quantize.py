"""Rounds a checkpoint's tensors to the precision of a bundle, one at a time."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from igpt_export.calibration import Observation
from igpt_export.model import NIBBLE_BLOCK, ImageGPT
from igpt_export.ops import block_size
from igpt_export.precision import Precision
from igpt_runtime import names
from igpt_runtime.config import ImageGPTConfig

# Of the block's largest weight, the shares that the scale of a 4-bit block is tried at: giving up on the largest weights
# makes the steps for all others finer.
_CLIPPING = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


class QuantizedTensors(Mapping[str, Tensor]):
    """Names and tensors of a bundle's weights file. Shapes are known beforehand, values are computed at every access."""

    def __init__(
        self, tensors: Mapping[str, Tensor], config: ImageGPTConfig, precision: Precision, observed: Observation | None
    ) -> None:
        """tensors: those of the checkpoint; observed: needed for whatever has scales of activations."""
        self._tensors = tensors
        kind = precision.linear(names.PREFILL)
        with torch.device("meta"):
            stored = ImageGPT(config, lm_head=False, linear=kind, int8_cache=precision.kv_cache == "int8")
        # The names and shapes of the model's own parameters, and of the heads, which stay as they are.
        self.shapes = {name: (t.dtype, tuple(t.shape)) for name, t in stored.state_dict().items()}
        self.shapes |= {n: (torch.float32, tuple(t.shape)) for n, t in tensors.items() if n.split(".")[0] in _HEADS}
        self._make: dict[str, Callable[[], Tensor]] = {}
        for name in self.shapes:
            layer, _, part = name.rpartition(".")
            if kind != "float" and layer + ".weight" in tensors and layer + ".weight_scale" in self.shapes:
                self._make_linear(layer, part, kind, observed)
            elif part in ("k_scale", "v_scale"):
                self._make[name] = _cache_scale(name, observed)

    def _make_linear(self, layer: str, part: str, kind: str, observed: Observation | None) -> None:
        """How to make one of a linear layer's tensors; its bias stays."""
        name, source = f"{layer}.{part}", f"{layer}.weight"
        rounding = _nibbles if kind == "nibble" else _bytes
        if part == "weight":
            self._make[name] = lambda: rounding(self._tensors[source])[0]
        elif part == "weight_scale":
            self._make[name] = lambda: rounding(self._tensors[source])[1]
        elif part in ("input_scale", "input_zero_point"):
            assert observed is not None
            scale, zero = _input_scale(*observed.inputs[layer])
            self._make[name] = lambda: scale if part == "input_scale" else zero

    def __getitem__(self, name: str) -> Tensor:
        make = self._make.get(name)
        return (self._tensors[name] if make is None else make()).contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


_HEADS = ("lm_head", "classifier")


def _bytes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """8 bits, a scale for every output: int8 [n_in, n_out] and float [n_out]."""
    scale = (weight.abs().amax(0) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.round(weight / scale).to(torch.int8), scale


def _nibbles(weight: Tensor) -> tuple[Tensor, Tensor]:
    """4 bits in blocks along the inputs: uint8 [n_out, blocks, block / 2] and float [n_out, blocks].

    Levels are -8 .. 7 and the scale may be negative, so that the largest weight of a block, whatever its sign, is a
    level. Of several scales a block gets the one with the least squared error.
    """
    n_in, n_out = weight.shape
    block = block_size(n_in, NIBBLE_BLOCK)
    blocks = weight.t().reshape(n_out, n_in // block, block)
    extreme = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    best_error = torch.full_like(extreme, torch.inf)
    best_scale, best_levels = torch.zeros_like(extreme), torch.zeros_like(blocks)
    for share in _CLIPPING:
        scale = extreme * share / -8
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        levels = torch.clamp(torch.round(blocks / scale), -8, 7)
        error = ((levels * scale - blocks) ** 2).sum(-1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
        best_levels = torch.where(better, levels, best_levels)
    stored = (best_levels + 8).to(torch.uint8)
    return stored[..., 0::2] | (stored[..., 1::2] << 4), best_scale[..., 0]


def _input_scale(low: float, high: float) -> tuple[Tensor, Tensor]:
    """Scale and zero point with which uint8 covers low .. high, which include 0."""
    scale = max((high - low) / 255, torch.finfo(torch.float32).tiny)
    return torch.tensor(scale), torch.tensor(round(-low / scale), dtype=torch.uint8)


def _cache_scale(name: str, observed: Observation | None) -> Callable[[], Tensor]:
    assert observed is not None
    largest = (observed.keys if name.endswith("k_scale") else observed.values)[int(name.split(".")[1])]
    return lambda: (largest / 127).clamp_min(torch.finfo(torch.float32).tiny)[None, :, None, :]
