"""Rounds a checkpoint's tensors to the precision of a bundle, one at a time."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from igpt_export.checkpoint.tensors import ShapedTensors
from igpt_export.model.model import NIBBLE_BLOCK, ImageGPT, Parts
from igpt_export.model.ops import block_size
from igpt_export.precision.calibration import Observation
from igpt_export.precision.overflow import check_fits
from igpt_export.precision.precision import Precision
from igpt_runtime.bundle.config import ImageGPTConfig

# Of the block's largest weight, the shares that the scale of a 4-bit block is tried at: giving up on the largest
# weights makes the steps for all others finer.
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65)
# The largest level of 8-bit weights. CPUs without VNNI instructions add two products, of an activation up to 255 and a
# weight each, in 16 bits, which saturate: up to 64 they cannot, and every CPU computes the same.
INTEGER_LEVELS = 64
_CHUNK = 1 << 18  # weights rounded to 4 bits at a time
_TINY = torch.finfo(torch.float32).tiny
_HEADS = ("lm_head", "classifier")


def stored_shapes(
    tensors: Mapping[str, Tensor], config: ImageGPTConfig, precision: Precision
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """What the weights file of a checkpoint's tensors has, by name: dtypes and shapes."""
    parts = replace(Parts.of(tensors), lm_head=False, n_labels=0)
    with torch.device("meta"):
        stored = ImageGPT(config, parts, linear=precision.linear, int8_cache=precision.kv_cache == "int8")
    # The names and shapes of the model's own parameters, and of the heads, which stay as they are.
    shapes = {name: (t.dtype, tuple(t.shape)) for name, t in stored.state_dict().items()}
    heads = [name for name in tensors if name.split(".")[0] in _HEADS]  # no other value is made for its shape
    shapes |= {name: (torch.float32, tuple(tensors[name].shape)) for name in heads}
    return {name: (torch.float16, shape) for name, (_, shape) in shapes.items()} if precision.is_half else shapes


class QuantizedTensors(ShapedTensors):
    """Names and tensors of a bundle's weights file. Shapes are known beforehand, values are computed when accessed."""

    def __init__(
        self, tensors: Mapping[str, Tensor], config: ImageGPTConfig, precision: Precision, observed: Observation | None
    ) -> None:
        """tensors: those of the checkpoint; observed: needed for whatever has scales of activations."""
        super().__init__(stored_shapes(tensors, config, precision))
        self._tensors, kind = tensors, precision.linear
        self._make: dict[str, Callable[[], Tensor]] = {}
        if precision.is_half:
            self._make = {name: functools.partial(_half, tensors, name) for name in self.shapes}
            return
        for name in self.shapes:
            layer, _, part = name.rpartition(".")
            if kind != "float" and layer + ".weight" in tensors and layer + ".weight_scale" in self.shapes:
                self._make_linear(layer, part, kind, observed)
            elif part in ("k_scale", "v_scale"):
                self._make[name] = _cache_scale(name, observed)

    def _make_linear(self, layer: str, part: str, kind: str, observed: Observation | None) -> None:
        """How to make one of a linear layer's tensors; its bias stays."""
        name, source = f"{layer}.{part}", f"{layer}.weight"
        if part == "bias":
            return
        assert observed is not None
        power = observed.power[layer]
        scale_of, levels_of = (_nibble_scale, _nibbles) if kind == "nibble" else (_byte_scale, _bytes)
        rounding_scale = functools.cache(lambda: scale_of(self._tensors[source], power))
        if part == "weight_scale":
            self._make[name] = rounding_scale
        elif part == "weight":
            self._make[name] = lambda: levels_of(self._tensors[source], rounding_scale())
        else:
            scale, zero = _input_scale(*observed.inputs[layer])
            self._make[name] = lambda: scale if part == "input_scale" else zero

    def __getitem__(self, name: str) -> Tensor:
        make = self._make.get(name)
        return (self._tensors[name] if make is None else make()).contiguous()


def _half(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """The nearest float16 values. Raises VerificationError if there are none."""
    tensor = tensors[name]
    check_fits(float(tensor.abs().amax()), f"the largest weight of {name}")
    return tensor.to(torch.float16)


def _byte_scale(weight: Tensor, _: Tensor) -> Tensor:
    """A scale for every output, float [n_out], with which its largest weight is the last level."""
    return (weight.abs().amax(0) / INTEGER_LEVELS).clamp_min(_TINY)


def _bytes(weight: Tensor, scale: Tensor) -> Tensor:
    """The nearest levels, int8 [n_in, n_out]."""
    return torch.round(weight / scale).to(torch.int8)


def _nibble_scale(weight: Tensor, power: Tensor) -> Tensor:
    """A scale for every block of inputs of every output, float [n_out, blocks].

    Levels are -8 .. 7 and a scale may be negative, so that the largest weight of a block is a level whatever its sign.
    Of several scales a block gets the one with the least squared error of the layer's outputs, as far as its inputs
    are independent with mean squares `power` [n_in].
    """
    return torch.cat([_best_scale(blocks, power.reshape(blocks.shape[1:])) for blocks in _in_blocks(weight)])


def _best_scale(blocks: Tensor, importance: Tensor) -> Tensor:
    extreme = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    extreme = torch.where(extreme == 0, 1.0, extreme)
    weighted = importance * blocks
    most, best_scale = torch.full_like(extreme, -torch.inf), extreme / -8
    for share in _SHARES:
        levels = (blocks * (-8 / share / extreme)).round_().clamp_(-8, 7)
        # The best scale for these levels, by least squares; what it takes off the error is product * scale.
        product = (weighted * levels).sum(-1, keepdim=True)
        scale = product / (levels.square_() * importance).sum(-1, keepdim=True).clamp_min(_TINY)
        better = (product * scale > most) & (scale != 0)
        most, best_scale = torch.where(better, product * scale, most), torch.where(better, scale, best_scale)
    return best_scale[..., 0]


def _nibbles(weight: Tensor, scale: Tensor) -> Tensor:
    """The nearest levels, two a byte, uint8 [n_out, blocks, block / 2]."""
    parts, first = [], 0
    for blocks in _in_blocks(weight):
        rows = scale[first : first + len(blocks), :, None]
        levels = ((blocks / rows).round_().clamp_(-8, 7) + 8).to(torch.uint8)
        parts.append(levels[..., 0::2] | (levels[..., 1::2] << 4))
        first += len(blocks)
    return torch.cat(parts)


def _in_blocks(weight: Tensor) -> Iterator[Tensor]:
    """A matrix [n_in, n_out] as [n_out, blocks, block], some outputs at a time, which the processor's cache holds."""
    block = block_size(weight.shape[0], NIBBLE_BLOCK)
    step = max(1, _CHUNK // weight.shape[0])
    for first in range(0, weight.shape[1], step):
        part = weight[:, first : first + step]
        yield part.t().reshape(part.shape[1], -1, block)


def _input_scale(low: float, high: float) -> tuple[Tensor, Tensor]:
    """Scale and zero point with which uint8 covers low .. high, which include 0."""
    scale = max((high - low) / 255, _TINY)
    return torch.tensor(scale), torch.tensor(round(-low / scale), dtype=torch.uint8)


def _cache_scale(name: str, observed: Observation | None) -> Callable[[], Tensor]:
    assert observed is not None
    largest = (observed.keys if name.endswith("k_scale") else observed.values)[int(name.split(".")[1])]
    return lambda: (largest / 127).clamp_min(_TINY)[None, :, None, :]
