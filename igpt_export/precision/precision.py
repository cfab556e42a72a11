"""Precisions a bundle may have, and which linear layers its graphs are made of."""

from dataclasses import dataclass

from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import ImageGPTConfig
from igpt_runtime.bundle.manifest import CACHE_DTYPES
from igpt_runtime.errors import OptionError

# The kind of linear layers (a key of `igpt_export.model.model.LINEAR`) by the precision of the weights.
_LINEAR = {"fp32": "float", "int8": "integer", "int4": "nibble", "fp16": "float"}
WEIGHTS = tuple(_LINEAR)
KV_CACHES = tuple(CACHE_DTYPES)
_SMALLEST_BLOCK = 16  # of MatMulNBits
_HEAD_DIM_MULTIPLE = 8  # of GroupQueryAttention


@dataclass(frozen=True)
class Precision:
    """What a bundle stores its weights and its cache in."""

    # fp32, int8 or int4: the blocks' matrices; embeddings, norms, biases and heads stay fp32. fp16: all of them.
    weights: str = "fp32"
    kv_cache: str = "fp32"  # fp32 or int8; fp16 with fp16 weights, and only with them

    def __post_init__(self) -> None:
        """Raise OptionError for a precision there is not."""
        if self.weights not in WEIGHTS:
            raise OptionError(f"unknown precision {self.weights!r}; choose one of {', '.join(WEIGHTS)}")
        if self.kv_cache not in KV_CACHES:
            raise OptionError(f"unknown cache precision {self.kv_cache!r}; choose one of {', '.join(KV_CACHES)}")
        if (self.weights == "fp16") != (self.kv_cache == "fp16"):
            raise OptionError(
                f"a {self.kv_cache} cache does not go with {self.weights} weights: fp16 weights have an fp16 cache and "
                "no others do; leave --kv-cache out"
            )

    @property
    def cache_dtype(self) -> str:
        """NumPy's name of the cache's type."""
        return CACHE_DTYPES[self.kv_cache]

    @property
    def is_exact(self) -> bool:
        """Whether nothing is rounded, so that nothing needs calibration or a certificate."""
        return self == Precision()

    @property
    def is_half(self) -> bool:
        """Whether weights, activations and cache are float16."""
        return self.weights == "fp16"

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs that a bundle has, if its model can fill them."""
        # The attention kernel of GPUs, for which fp16 is, is fast enough over copies of a prefix.
        return (
            (graph_io.PREFILL, graph_io.DECODE)
            if self.is_half
            else (graph_io.PREFILL, graph_io.DECODE, graph_io.DECODE_SHARED)
        )

    @property
    def linear(self) -> str:
        """The kind of linear layers, a key of `igpt_export.model.model.LINEAR`."""
        return _LINEAR[self.weights]

    def __str__(self) -> str:
        """As in a bundle's name: "int8", or "int8-kv-fp32" where the cache is not what one expects."""
        return self.weights if self.kv_cache == default_kv_cache(self.weights) else f"{self.weights}-kv-{self.kv_cache}"


def default_kv_cache(weights: str) -> str:
    """The precision of the cache if none is asked for."""
    return weights if weights in ("fp32", "fp16") else "int8"


def check_shape(config: ImageGPTConfig, precision: Precision, profile: str = "fused") -> None:
    """Raise OptionError for a model whose shape the kernels of a precision, or of the fused profile, do not take."""
    if profile == "fused" and config.head_dim % _HEAD_DIM_MULTIPLE:
        raise OptionError(
            f"ONNX Runtime's attention kernel needs heads whose width is a multiple of {_HEAD_DIM_MULTIPLE}, and "
            f"n_embd {config.n_embd} / n_head {config.n_head} = {config.head_dim}; add --portable, which is slower"
        )
    widths = {"n_embd": config.n_embd, "n_inner": config.inner_dim}
    for name, width in widths.items():
        if precision.weights in ("int8", "int4") and width % _SMALLEST_BLOCK:
            raise OptionError(
                f"{precision.weights} needs {name} to be a multiple of {_SMALLEST_BLOCK}, it is {width}; "
                "use --precision fp32"
            )
