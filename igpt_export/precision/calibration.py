"""Shows pictures to the float model and notes what it computes, for the scales of quantised layers and caches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from igpt_export.checkpoint.checkpoint import Checkpoint
from igpt_export.model.blockwise import states_by_block, unloaded_model
from igpt_export.model.model import Attention, Conv1D, ImageGPT, RMSNorm, States, pooled
from igpt_export.precision.picture_source import PictureSource, as_tokens, most_pictures
from igpt_runtime.progress import SILENT, Progress

Array = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

_TOKENS = 8192  # of calibration pictures, about: more change the scales of a layer very little
HELD_OUT_TOKENS = 4096  # of those held out, about; and of calibration pictures, how many are measured as well
_BATCH = 4


@dataclass(frozen=True)
class Pictures:
    """Pictures as tokens, int64 [pictures, n_positions]; those held out take no part in calibration."""

    calibration: Tokens
    held_out: Tokens
    source: str  # what they are, for the certificate


@dataclass(eq=False)
class Observation:
    """Extremes over all calibration pictures, positions and rows; filled by `observe`."""

    inputs: dict[str, tuple[float, float]] = field(default_factory=dict)  # by linear layer: least and largest input
    power: dict[str, Tensor] = field(default_factory=dict)  # by linear layer: relative mean square of inputs [n_in]
    keys: dict[int, Tensor] = field(default_factory=dict)  # by block: largest absolute key [n_head, head_dim]
    values: dict[int, Tensor] = field(default_factory=dict)  # likewise
    largest: dict[int, float] = field(default_factory=dict)  # by block: largest absolute activation or residual sum


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model computes of some pictures whose tokens follow sos."""

    logits: Array | None  # float32 [pictures, n_positions, n_clusters]; None without a language-model head
    features: Array  # float32 [pictures, n_layer + 1, n_embd]: every hidden state's mean over positions
    class_logits: Array | None  # float32 [pictures, n_labels]; None without a classifier

    def of(self, rows: slice | npt.NDArray[np.int64]) -> "Outputs":
        """Those of some of the pictures."""
        logits, class_logits = (None if part is None else part[rows] for part in (self.logits, self.class_logits))
        return Outputs(logits, self.features[rows], class_logits)

    @staticmethod
    def together(parts: Sequence["Outputs"]) -> "Outputs":
        """Those of one model for all of the pictures that the parts are of."""
        logits = [part.logits for part in parts if part.logits is not None]
        class_logits = [part.class_logits for part in parts if part.class_logits is not None]
        return Outputs(
            np.concatenate(logits) if logits else None,
            np.concatenate([part.features for part in parts]),
            np.concatenate(class_logits) if class_logits else None,
        )


def load_pictures(checkpoint: Checkpoint, source: PictureSource) -> Pictures:
    """Pictures of a source, as many as the size of the model allows, in its size and colours. Raises ImageError."""
    config, form = checkpoint.config, checkpoint.image_format
    calibration = as_tokens(source.calibration(most_pictures(config, _TOKENS)), form)
    held_out = as_tokens(source.held_out(most_pictures(config, HELD_OUT_TOKENS)), form)
    return Pictures(calibration, held_out, f"{len(calibration) + len(held_out)} {source.kind}")


def shifted(tokens: Tokens, sos: int) -> Tokens:
    """The inputs whose logits predict `tokens`: sos, then all but the last. int64 [pictures, n_positions]."""
    return np.concatenate([np.full((len(tokens), 1), sos, np.int64), tokens[:, :-1]], axis=1)


@torch.no_grad()
def observe(checkpoint: Checkpoint, pictures: Pictures, progress: Progress = SILENT) -> tuple[Observation, Outputs]:
    """Run the float model over all pictures.

    Returns what it computed inside of the calibration pictures, and its outputs for all, calibration pictures first.
    """
    model = unloaded_model(checkpoint.config, checkpoint.tensors)
    observation = Observation()
    hooks = _hooks(model, observation)
    half = checkpoint.config.n_layer + 1
    calibration = _outputs(
        model, checkpoint, pictures.calibration, lambda block: progress.count(block, 2 * half, "layers")
    )
    for hook in hooks:
        hook.remove()
    held_out = _outputs(
        model, checkpoint, pictures.held_out, lambda block: progress.count(half + block, 2 * half, "layers")
    )
    return observation, Outputs.together([calibration, held_out])


def _outputs(model: ImageGPT, checkpoint: Checkpoint, tokens: Tokens, progress: Callable[[int], None]) -> Outputs:
    """What an unloaded model computes of pictures; progress: called with the number of blocks that are done."""
    shifted_tokens = torch.from_numpy(shifted(tokens, checkpoint.config.sos))
    inputs = [shifted_tokens[first : first + _BATCH] for first in range(0, len(tokens), _BATCH)]
    last: list[Tensor] = []
    hidden_means, normed_means = [], []
    for block, states in enumerate(states_by_block(model, checkpoint.tensors, inputs), start=1):
        last = [hidden for hidden, _ in states]
        hidden_means.append(torch.cat([pooled([hidden]) for hidden, _ in states]))
        normed_means.append(torch.cat([pooled([normed]) for _, normed in states]))
        progress(block)
    logits = None if model.lm_head is None else torch.cat([model.lm_head(state) for state in last]).numpy()
    class_logits = None
    if checkpoint.classifier is not None:  # which reads means, here as states of a single position
        means = States(hidden_means[-1], hidden_means, normed_means, [])
        class_logits = model.class_logits(means, checkpoint.classifier).numpy()
    return Outputs(logits, torch.cat(hidden_means, dim=1).numpy(), class_logits)


def _hooks(model: nn.Module, observation: Observation) -> list[torch.utils.hooks.RemovableHandle]:
    """Watch the inputs of all linear layers, and the keys and values of all blocks."""
    handles = []
    last = len(model.get_submodule("h")._modules) - 1  # the final norm's input is what it puts out
    for name, module in model.named_modules():
        if isinstance(module, Conv1D):
            handles.append(module.register_forward_hook(_watch_linear(observation, name)))
        if isinstance(module, RMSNorm):
            block = int(name.split(".")[1]) if name.startswith("h.") else last
            handles.append(module.register_forward_hook(_watch_sum(observation, block)))
        if isinstance(module, Attention):
            block = int(name.split(".")[1])
            handles.append(module.c_attn.register_forward_hook(_watch_cache(observation, block, module.n_head)))
    return handles


def _watch_linear(observation: Observation, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
    block = int(name.split(".")[1])

    def watch(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        low, high = observation.inputs.get(name, (0.0, 0.0))
        least, most = (float(t) for t in torch.aminmax(inputs[0]))
        observation.inputs[name] = min(low, least), max(high, most)
        power = inputs[0].square().flatten(0, 1).mean(0)
        observation.power[name] = (observation.power[name] + power) if name in observation.power else power
        largest = max(-least, most, float(output.abs().amax()))
        observation.largest[block] = max(observation.largest.get(block, 0.0), largest)

    return watch


def _watch_sum(observation: Observation, block: int) -> Callable[[nn.Module, tuple[Tensor, ...], Any], None]:
    def watch(_: nn.Module, __: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        observation.largest[block] = max(observation.largest.get(block, 0.0), float(output[1].abs().amax()))

    return watch


def _watch_cache(
    observation: Observation, block: int, n_head: int
) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
    def watch(_: nn.Module, __: tuple[Tensor], qkv: Tensor) -> None:
        _, key, value = qkv.abs().flatten(0, 1).amax(0).view(3, n_head, -1)
        for seen, now in ((observation.keys, key), (observation.values, value)):
            seen[block] = torch.maximum(seen[block], now) if block in seen else now

    return watch
