"""Names, dtypes and shapes of every graph input and output: the one table that exporter, manifest and runtime read."""

from collections.abc import Iterable
from dataclasses import dataclass

from igpt_runtime.bundle.config import Classifier, ImageFormat, ImageGPTConfig

PREFILL = "prefill"
DECODE = "decode"
DECODE_SHARED = "decode_shared"  # for rows that continue one prefix, which is stored once
PREPROCESS = "preprocess"
POSTPROCESS = "postprocess"
# From picture to result in one run.
COMPLETE = "complete"
CLASSIFY = "classify"
SCORE = "score"
FEATURES = "features"  # also the name of an output
EMBEDDED = (COMPLETE, CLASSIFY, SCORE, FEATURES)
NORMED_FEATURES = "normed_features"

IMAGE = "image"
IMAGES = "images"
TOKENS = "tokens"
KEEP_ROWS = "keep_rows"
N = "n"
SEED = "seed"
PROBABILITIES = "probabilities"
VALUES = "values"  # of a regression
NATS = "nats"
NATS_PER_TOKEN = "nats_per_token"

INPUT_IDS = "input_ids"
PAST_LENGTH = "past_length"
UNIFORM = "uniform"
TEMPERATURE = "temperature"
TOP_K = "top_k"
TOP_P = "top_p"
NEXT_IDS = "next_ids"
LOGITS = "logits"
CLASS_LOGITS = "class_logits"

BATCH = "batch"
SEQUENCE = "sequence"
PREFIX = "prefix"
CAPACITY = "capacity"
IMAGE_HEIGHT = "image_height"
IMAGE_WIDTH = "image_width"

# Channels that the shared-prefix graph's own cache has more than a head: the first is the sentinel's, the others make
# the width one that the attention kernel takes, a multiple of 8.
SHARED_CHANNELS = 8
# What that graph's own cache holds in slot 0, channel head_dim of every key and value, by its type: a one.
SENTINEL = {"float32": 1.0, "int8": 127}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    dtype: str  # numpy's name
    shape: tuple[int | str, ...]  # a string is a free dimension


GraphSpec = tuple[list[TensorSpec], list[TensorSpec]]  # inputs and outputs, in order


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


def prefix_names(config: ImageGPTConfig) -> list[str]:
    """Names of the tensors of a prefix that all rows share."""
    return cache_names(config, "prefix")


def _cache(names: Iterable[str], dtype: str, shape: tuple[int | str, ...]) -> list[TensorSpec]:
    return [TensorSpec(name, dtype, shape) for name in names]


def prefill_inputs() -> list[TensorSpec]:
    """Inputs of the prefill graph."""
    return [TensorSpec(INPUT_IDS, "int64", (BATCH, SEQUENCE))]


def prefill_outputs(
    config: ImageGPTConfig, *, lm_head: bool, n_labels: int, cache_dtype: str = "float32"
) -> list[TensorSpec]:
    """Outputs of the prefill graph, in order."""
    stream = (BATCH, SEQUENCE, config.n_embd)
    slots = (BATCH, config.n_head, SEQUENCE, config.head_dim)
    outputs = [TensorSpec(LOGITS, "float32", (BATCH, SEQUENCE, config.n_clusters))] if lm_head else []
    outputs += [TensorSpec(hidden_state(i), "float32", stream) for i in range(config.n_layer + 1)]
    pooled = (BATCH, config.n_layer + 1, config.n_embd)
    outputs += [TensorSpec(FEATURES, "float32", pooled), TensorSpec(NORMED_FEATURES, "float32", pooled)]
    outputs += [TensorSpec(CLASS_LOGITS, "float32", (BATCH, n_labels))] if n_labels else []
    return outputs + _cache(present_names(config), cache_dtype, slots)


def sampling_inputs() -> list[TensorSpec]:
    """What the choice of the next token depends on besides logits."""
    return [TensorSpec(UNIFORM, "float32", (BATCH,)), *_sampling_options()]


def _sampling_options() -> list[TensorSpec]:
    return [
        TensorSpec(TEMPERATURE, "float32", ()),
        TensorSpec(TOP_K, "int64", ()),
        TensorSpec(TOP_P, "float32", ()),
    ]


def _sampled(config: ImageGPTConfig) -> list[TensorSpec]:
    return [TensorSpec(NEXT_IDS, "int64", (BATCH, 1)), TensorSpec(LOGITS, "float32", (BATCH, config.n_clusters))]


def decode_inputs(config: ImageGPTConfig, cache_dtype: str = "float32") -> list[TensorSpec]:
    """Inputs of the decode graphs, in order."""
    return [
        TensorSpec(INPUT_IDS, "int64", (BATCH, SEQUENCE)),
        TensorSpec(PAST_LENGTH, "int64", ()),
        *_cache(past_names(config), cache_dtype, (BATCH, config.n_head, config.n_positions, config.head_dim)),
        *sampling_inputs(),
    ]


def decode_outputs(config: ImageGPTConfig, cache_dtype: str = "float32") -> list[TensorSpec]:
    """Outputs of the decode graphs, in order."""
    shape = (BATCH, config.n_head, config.n_positions, config.head_dim)
    return [*_sampled(config), *_cache(present_names(config), cache_dtype, shape)]


def prefix_specs(config: ImageGPTConfig) -> list[TensorSpec]:
    """The tensors of a prefix that all rows share.

    Keys with a slot a row, values with a slot a column: both are left factors of a product.
    """
    slots, columns = (1, config.n_head, PREFIX, config.head_dim), (1, config.n_head, config.head_dim, PREFIX)
    named = prefix_names(config)
    return [TensorSpec(name, "float32", columns if i % 2 else slots) for i, name in enumerate(named)]


def _own_slots(config: ImageGPTConfig) -> tuple[int | str, ...]:
    return (BATCH, config.n_head, CAPACITY, config.head_dim + SHARED_CHANNELS)


def shared_inputs(config: ImageGPTConfig, cache_dtype: str = "float32") -> list[TensorSpec]:
    """Inputs of the shared-prefix decode graph, in order."""
    return [
        TensorSpec(INPUT_IDS, "int64", (BATCH, 1)),
        TensorSpec(PAST_LENGTH, "int64", ()),
        *prefix_specs(config),
        *_cache(past_names(config), cache_dtype, _own_slots(config)),
        *sampling_inputs(),
    ]


def shared_outputs(config: ImageGPTConfig, cache_dtype: str = "float32") -> list[TensorSpec]:
    """Outputs of the shared-prefix decode graph, in order."""
    return [*_sampled(config), *_cache(present_names(config), cache_dtype, _own_slots(config))]


def _image() -> TensorSpec:
    return TensorSpec(IMAGE, "uint8", (IMAGE_HEIGHT, IMAGE_WIDTH, 3))


def class_output(classifier: Classifier) -> str:
    """Name of the output of the graph that classifies."""
    return VALUES if classifier.function_to_apply == "none" else PROBABILITIES


def _picture_specs(config: ImageGPTConfig, form: ImageFormat, classifier: Classifier | None) -> dict[str, GraphSpec]:
    """Inputs and outputs of the graphs that take or give pictures."""
    one = TensorSpec(TOKENS, "int64", (config.n_positions,))
    rows = TensorSpec(TOKENS, "int64", (BATCH, config.n_positions))
    images = TensorSpec(IMAGES, "uint8", (BATCH, form.height, form.width, 3))
    request = [TensorSpec(KEEP_ROWS, "int64", ()), TensorSpec(N, "int64", ()), TensorSpec(SEED, "int64", ())]
    nats = [TensorSpec(NATS, "float32", (form.height, form.width)), TensorSpec(NATS_PER_TOKEN, "float32", ())]
    classify: dict[str, GraphSpec] = {}
    if classifier is not None:
        output = TensorSpec(class_output(classifier), "float32", (len(classifier.labels),))
        classify = {CLASSIFY: ([_image()], [output])}
    return {
        PREPROCESS: ([_image()], [one]),
        POSTPROCESS: ([rows], [images]),
        COMPLETE: ([_image(), *request, *_sampling_options()], [images, rows]),
        **classify,
        FEATURES: ([_image()], [TensorSpec(FEATURES, "float32", (config.n_layer + 1, config.n_embd))]),
        SCORE: ([_image()], nats),
    }


def graph_specs(
    config: ImageGPTConfig, form: ImageFormat, *, lm_head: bool, classifier: Classifier | None, cache_dtype: str
) -> dict[str, GraphSpec]:
    """Inputs and outputs of every graph that a bundle of such a model may have, by name."""
    n_labels = 0 if classifier is None else len(classifier.labels)
    decode = decode_inputs(config, cache_dtype), decode_outputs(config, cache_dtype)
    return {
        PREFILL: (
            prefill_inputs(),
            prefill_outputs(config, lm_head=lm_head, n_labels=n_labels, cache_dtype=cache_dtype),
        ),
        DECODE: decode,
        DECODE_SHARED: (shared_inputs(config, cache_dtype), shared_outputs(config, cache_dtype)),
        **_picture_specs(config, form, classifier),
    }
