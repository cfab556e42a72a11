"""A checkpoint's stored tensors under the names of `igpt_export.model.model.ImageGPT`.

The mapping is data plus assertions: the model itself says which names and shapes it needs, every stored tensor is used
once or is a known leftover, and one error lists all that do not fit.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igpt_export.checkpoint.problems import listed, refuse
from igpt_export.checkpoint.weights import FLOAT_DTYPES, StoredTensor
from igpt_export.model.model import ImageGPT, Parts
from igpt_runtime.bundle.config import ImageGPTConfig

# Classes that have a head, by the names they had over time.
_LM_CLASSES = {"ImageGPTForCausalImageModeling", "ImageGPTForCausalLM"}
_SCORE_CLASSES = {"ImageGPTForImageClassification"}

_PREFIX = "transformer."  # of the body in every class but the bare ImageGPTModel
_HEADS = ("score", "probe")  # stored names of a classifier: transformers' head, this project's probe
_MASK = re.compile(r"h\.(\d+)\.attn\.(bias|masked_bias)")  # the causal mask that older transformers saved

# What wrappers put into the names of a model's tensors: torch.compile, FSDP and activation checkpointing anywhere,
# DataParallel and modules around the model in front of all.
_WRAPPED = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_AROUND = ("module.", "model.")

_REMEDY = "check that config.json belongs to these weights"


@dataclass(frozen=True)
class Heads:
    """Which heads the weights have."""

    lm_head: bool
    classifier: str | None  # "score", "probe" or None
    shape: tuple[int, int]  # of the classifier's weight, classes and features; 0, 0 without

    @property
    def parts(self) -> Parts:
        """What the model has; of the heads, only a probe has a bias, and may read several layers."""
        is_probe, (n_labels, n_features) = self.classifier == "probe", self.shape
        return Parts(self.lm_head, n_labels, n_features if is_probe else None, classifier_bias=is_probe)


class MadeTensors(Mapping[str, Tensor]):
    """Tensors that are read or made at every access; looking for a name makes none."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class ShapedTensors(MadeTensors):
    """Such tensors, of which type and shape are known before they are made."""

    def __init__(self, shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
        super().__init__(shapes)
        self.shapes = shapes


class LazyTensors(MadeTensors):
    """Canonical name -> float32 tensor, read (and converted, if it is stored in another dtype) at every access."""

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        """stored: canonical name -> where the tensor is."""
        super().__init__(stored.keys())
        self.stored = dict(stored)

    def __getitem__(self, name: str) -> Tensor:
        return self.stored[name].read().to(torch.float32).contiguous()


def empty_model(config: ImageGPTConfig, parts: Parts) -> ImageGPT:
    """The model without memory for its parameters (torch's meta device)."""
    with torch.device("meta"):
        return ImageGPT(config, parts)


def unwrapped(stored: Mapping[str, StoredTensor], where: str) -> dict[str, StoredTensor]:
    """Stored tensors under a model's own names, without what wrappers have put into them.

    Raises CheckpointError if two tensors get one name.
    """
    own = {name: _WRAPPED.sub("", name) for name in stored}
    while own and (around := next((a for a in _AROUND if all(name.startswith(a) for name in own.values())), None)):
        own = {name: _WRAPPED.sub("", short.removeprefix(around)) for name, short in own.items()}
    found: dict[str, StoredTensor] = {}
    for name, short in own.items():
        if short in found:
            refuse(where, [f"{found[short].name} and {name} are both {short}"], "keep one of them")
        found[short] = stored[name]
    return found


def find_heads(stored: Mapping[str, StoredTensor], architectures: Sequence[str], where: str) -> Heads:
    """The heads that the stored names, or the classes named in `config.json`, ask for.

    Raises CheckpointError if there are two classifiers or one without classes.
    """
    found = [head for head in _HEADS if any(name.startswith(f"{head}.") for name in stored)]
    if len(found) > 1:
        refuse(where, ["the weights hold two classifiers, score and probe"], "remove one of them")
    if not found and _SCORE_CLASSES & set(architectures):
        found = ["score"]
    lm_head = "lm_head.weight" in stored or bool(_LM_CLASSES & set(architectures))
    if not found:
        return Heads(lm_head, None, (0, 0))
    weight = stored.get(f"{found[0]}.weight")
    n_labels, n_features = weight.shape if weight and len(weight.shape) == 2 else (1, 1)
    if not n_labels:
        refuse(where, [f"{found[0]}.weight has no rows, so no classes"], "train the classifier, or remove it")
    return Heads(lm_head, found[0], (n_labels, n_features))


def map_tensors(stored: Mapping[str, StoredTensor], config: ImageGPTConfig, heads: Heads, where: str) -> LazyTensors:
    """The stored tensors under canonical names, in the model's order.

    Raises one CheckpointError that lists every missing, misshapen, mistyped and unknown tensor, or every one that holds
    NaN or infinity.
    """
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in stored) else ""
    wanted = {name: tuple(parameter.shape) for name, parameter in empty_model(config, heads.parts).named_parameters()}
    sources = {name: _source(name, prefix, heads) for name in wanted}
    present = {name: stored[source] for name, source in sources.items() if source in stored}
    misshapen = [
        f"{sources[name]} {list(tensor.shape)}, not {list(wanted[name])}"
        for name, tensor in present.items()
        if tensor.shape != wanted[name]
    ]
    mistyped = [f"{sources[name]} ({t.dtype})" for name, t in present.items() if t.dtype not in FLOAT_DTYPES]
    groups = {
        "missing tensors": [source for source in sources.values() if source not in stored],
        "tensors of another shape": misshapen,
        f"tensors that are none of {listed(FLOAT_DTYPES)}": mistyped,
        "unknown tensors": sorted(set(stored) - set(sources.values()) - _masks(stored, prefix, config.n_layer)),
    }
    problems = [f"{fact} ({len(names)}): {listed(names)}" for fact, names in groups.items() if names]
    if problems:
        refuse(where, problems, _REMEDY)
    tensors = LazyTensors(present)
    check_finite(tensors, sources, where)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], sources: Mapping[str, str], where: str) -> None:
    """Raise a CheckpointError with the stored names (`sources`) of all tensors that hold NaN or infinity."""
    damaged = [sources[name] for name in tensors if not is_finite(tensors[name])]
    if damaged:
        fact = f"NaN or infinity (in float32) in {len(damaged)} tensors: {listed(damaged)}"
        refuse(where, [fact], "download the checkpoint again, or train it anew if it diverged")


def is_finite(tensor: Tensor) -> bool:
    """Whether all elements are finite; NaN spreads to both extremes, so no temporary of the tensor's size is needed."""
    return bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def _source(name: str, prefix: str, heads: Heads) -> str:
    """The stored name of a canonical one."""
    if name.startswith("classifier."):
        return name.replace("classifier", heads.classifier or "", 1)
    return name if name.startswith("lm_head.") else prefix + name


def _masks(stored: Mapping[str, StoredTensor], prefix: str, n_layer: int) -> set[str]:
    """The stored names of causal-mask buffers, of the blocks that there are."""
    blocks = {str(layer) for layer in range(n_layer)}
    matches = {name: _MASK.fullmatch(name.removeprefix(prefix)) for name in stored if name.startswith(prefix)}
    return {name for name, match in matches.items() if match and match[1] in blocks}
