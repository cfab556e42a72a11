"""Names, dtypes and shapes of every graph input and output: the one table that exporter, manifest and runtime read."""

from collections.abc import Iterable
from dataclasses import dataclass

from igpt_runtime.config import ImageGPTConfig

PREFILL = "prefill"
DECODE = "decode"

INPUT_IDS = "input_ids"
PAST_LENGTH = "past_length"
UNIFORM = "uniform"
TEMPERATURE = "temperature"
TOP_K = "top_k"
TOP_P = "top_p"
NEXT_IDS = "next_ids"
LOGITS = "logits"
FEATURES = "features"
CLASS_LOGITS = "class_logits"

BATCH = "batch"
SEQUENCE = "sequence"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    dtype: str  # numpy's name
    shape: tuple[int | str, ...]  # a string is a free dimension


def hidden_state(index: int) -> str:
    """Name of hidden state `index`, 0..n_layer."""
    return f"hidden_states.{index}"


def cache_names(config: ImageGPTConfig, prefix: str) -> list[str]:
    """Names of the cache tensors in order: key and value of block 0, key and value of block 1, ..."""
    return [f"{prefix}.{layer}.{part}" for layer in range(config.n_layer) for part in ("key", "value")]


def past_names(config: ImageGPTConfig) -> list[str]:
    """Names of the cache inputs."""
    return cache_names(config, "past_key_values")


def present_names(config: ImageGPTConfig) -> list[str]:
    """Names of the cache outputs."""
    return cache_names(config, "present")


def _cache(names: Iterable[str], config: ImageGPTConfig, capacity: int | str) -> list[TensorSpec]:
    shape = (BATCH, config.n_head, capacity, config.head_dim)
    return [TensorSpec(name, "float32", shape) for name in names]


def prefill_inputs() -> list[TensorSpec]:
    """Inputs of the prefill graph."""
    return [TensorSpec(INPUT_IDS, "int64", (BATCH, SEQUENCE))]


def prefill_outputs(config: ImageGPTConfig, *, lm_head: bool, n_labels: int) -> list[TensorSpec]:
    """Outputs of the prefill graph, in order."""
    stream = (BATCH, SEQUENCE, config.n_embd)
    outputs = [TensorSpec(LOGITS, "float32", (BATCH, SEQUENCE, config.n_clusters))] if lm_head else []
    outputs += [TensorSpec(hidden_state(i), "float32", stream) for i in range(config.n_layer + 1)]
    outputs += [TensorSpec(FEATURES, "float32", (BATCH, config.n_layer + 1, config.n_embd))]
    outputs += [TensorSpec(CLASS_LOGITS, "float32", (BATCH, n_labels))] if n_labels else []
    return outputs + _cache(present_names(config), config, SEQUENCE)


def decode_inputs(config: ImageGPTConfig) -> list[TensorSpec]:
    """Inputs of the decode graph, in order."""
    return [
        TensorSpec(INPUT_IDS, "int64", (BATCH, SEQUENCE)),
        TensorSpec(PAST_LENGTH, "int64", ()),
        *_cache(past_names(config), config, config.n_positions),
        TensorSpec(UNIFORM, "float32", (BATCH,)),
        TensorSpec(TEMPERATURE, "float32", ()),
        TensorSpec(TOP_K, "int64", ()),
        TensorSpec(TOP_P, "float32", ()),
    ]


def decode_outputs(config: ImageGPTConfig) -> list[TensorSpec]:
    """Outputs of the decode graph, in order."""
    return [
        TensorSpec(NEXT_IDS, "int64", (BATCH, 1)),
        TensorSpec(LOGITS, "float32", (BATCH, config.n_clusters)),
        *_cache(present_names(config), config, config.n_positions),
    ]
