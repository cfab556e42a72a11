"""What a checkpoint says besides its weights: the model's shape, its image format, how to sample, its classifier."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `igpt-run doctor` starts without numpy
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class ImageGPTConfig:
    """Shape and arithmetic of one ImageGPT (transformers' `ImageGPTConfig`, without its training-only fields)."""

    vocab_size: int = 513  # colour clusters plus sos, the last id
    n_positions: int = 1024  # height * width of the picture; the capacity of the cache
    n_embd: int = 512  # width of the hidden states
    n_layer: int = 24  # number of blocks
    n_head: int = 8  # attention heads of a block
    n_inner: int | None = None  # width of the MLP; None is 4 * n_embd
    activation_function: str = "quick_gelu"  # of the MLP
    layer_norm_epsilon: float = 1e-5  # added to the mean square in layer norms
    scale_attn_weights: bool = True  # divide attention scores by sqrt(head_dim)
    scale_attn_by_inverse_layer_idx: bool = False  # also divide them by the number of the block, counted from 1
    reorder_and_upcast_attn: bool = False  # compute attention scores in float32 in every precision

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def inner_dim(self) -> int:
        """Width of the MLP's hidden layer."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def n_clusters(self) -> int:
        """Number of colour clusters, which is the number of classes of the logits."""
        return self.vocab_size - 1

    @property
    def sos(self) -> int:
        """Start-of-sequence token, the first input of every sequence."""
        return self.vocab_size - 1

    def attention_scale(self, layer: int) -> float:
        """Factor on the attention scores of block `layer` (0-based)."""
        scale = self.head_dim**-0.5 if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale


LARGEST_COLOUR = 1.01  # of a cluster: colours lie in [-1, 1], and a mean of some may be rounded out of that


@dataclass(frozen=True, eq=False)
class ImageFormat:
    """How pictures become tokens (the fields of an image processor that ImageGPT uses)."""

    height: int  # pixels; height * width is n_positions
    width: int  # pixels
    clusters: "npt.NDArray[np.float32]"  # [n_clusters, 3] colour centres in [-1, 1]
    resample: int = 2  # PIL's filter number; 2 is bilinear


@dataclass(frozen=True)
class SamplingDefaults:
    """Recommended sampling: how tokens are drawn if a request does not say it.

    Without arguments it is the plain distribution, which is what the model itself predicts.
    """

    temperature: float = 1.0  # divides the logits; 0 always takes the likeliest token
    top_k: int = 0  # draw among the k likeliest tokens; 0 is off
    top_p: float = 1.0  # draw among the likeliest tokens that reach this probability together; 1 is off

    @property
    def is_plain(self) -> bool:
        """Whether this is the plain distribution."""
        return self == SamplingDefaults()

    def problem(self) -> str | None:
        """What is out of range, in words; None if nothing is."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            return f"temperature must be a finite number of at least 0, got {self.temperature}"
        if self.top_k < 0:
            return f"top-k must be at least 0 (0 is off), got {self.top_k}"
        if not 0 < self.top_p <= 1:
            return f"top-p must be above 0 and at most 1 (1 is off), got {self.top_p}"
        return None


@dataclass(frozen=True)
class Protocol:
    """How a picture becomes features."""

    crop: bool  # True: the short side is resized and the centre kept; False: the picture is squashed
    sos: bool  # True: the input is sos and the first n_positions - 1 tokens, as in pre-training; False: all tokens
    normed: bool  # True: the layer-normed input of each block's attention is pooled; False: the hidden state


PROTOCOLS = {
    # "Generative Pretraining from Pixels", sections 2.3 and 3.1, and image-gpt's src/model.py.
    "paper": Protocol(crop=True, sos=True, normed=True),
    # transformers' ImageGPTImageProcessor, `hidden_states` and ImageGPTForImageClassification.
    "hf": Protocol(crop=False, sos=False, normed=False),
}


# What makes results of a classifier's outputs, by the names of transformers' pipeline.
FUNCTIONS = ("softmax", "sigmoid", "none")


@dataclass(frozen=True)
class Classifier:
    """A linear head over mean-pooled features."""

    labels: tuple[str, ...]  # name of each class
    layers: tuple[int, ...]  # layers that it reads, 0..n_layer each; their features are joined in this order
    protocol: str  # protocol of these features: "hf" or "paper"
    # softmax: one label is right; sigmoid: each label is right or not by itself; none: the outputs are values
    function_to_apply: str = "softmax"


@dataclass(frozen=True)
class Likelihood:
    """What pictures of the kind that a model was trained on cost it: pictures of other kinds cost more."""

    pictures: str  # what was measured, like "96 held-out pictures of emoji"
    # Nats per token of the first 1, 2, ... rows: what 5 %, 50 % and 95 % of the pictures cost at most.
    by_rows: tuple[tuple[float, float, float], ...]

    def limit(self, rows: int) -> float:
        """Nats per token of the first rows, above which a picture is unlike them.

        It is twice as far above the 95 % quantile as that is above the median, which leaves room for what few measured
        pictures do not tell.
        """
        _, median, high = self.by_rows[rows - 1]
        return high + 2 * (high - median)


@dataclass(frozen=True)
class Examples:
    """Pictures to try a model with: one file of them, in rows of eight, each of the model's size."""

    file: str  # a PNG file of the bundle
    names: tuple[str, ...]  # from left to right and down
