"""What is traced of a model: the pieces that the graphs of a bundle are put together of, as functions of tensors.

A graph is an embedding, blocks and an end. Between them goes the stream, a pair (x, residual).
"""

from functools import partial

import torch
from torch import Tensor

from igpt_export.model import Block, ImageGPT, mean
from igpt_export.ops import quantize_cache
from igpt_export.sampling import next_token
from igpt_export.trace import Piece
from igpt_runtime import names
from igpt_runtime.config import Classifier
from igpt_runtime.names import GraphSpec, TensorSpec

EMBEDDING, END, CLASSES = "embedding", "end", "classes"


def block_piece(layer: int) -> str:
    """Name of the piece that is a block, and what the names of its weights begin with."""
    return f"h.{layer}"


def prefill_pieces(model: ImageGPT, classifier: Classifier | None, *, int8_cache: bool) -> dict[str, Piece]:
    """Whole sequences. What is read (hidden states, means, logits) is float32 in every precision.

    The embedding makes the stream of token ids; a block of the stream the stream, the hidden state that it was fed, the
    means of that and of what its attention read, and its keys and values; the end of the stream the last hidden state,
    its mean, and logits where there is a head; the classes' logits are made of the means that they depend on, joined.
    """
    config = model.config
    stream = _stream(model, names.SEQUENCE)

    def embedding(input_ids: Tensor) -> tuple[Tensor, Tensor]:
        return model.embed(input_ids, torch.zeros((), dtype=torch.int64))

    def run(block: Block, x: Tensor, residual: Tensor) -> list[Tensor]:
        # With the attention that keeps a cache, which is the fused one. Means come at once, so that no state is kept.
        empty = torch.zeros(*x.shape[:1], config.n_head, *x.shape[1:2], config.head_dim, dtype=x.dtype)
        start = torch.zeros((), dtype=torch.int64)
        x, residual, hidden, normed, present = block(x, residual, [empty, empty], start, None)
        if int8_cache and block.attn.k_scale is not None and block.attn.v_scale is not None:
            scales = block.attn.k_scale, block.attn.v_scale
            present = [quantize_cache(tensor, scale) for tensor, scale in zip(present, scales, strict=True)]
        read = hidden.float()
        return [x, residual, read, mean(read), mean(normed), *present]

    def end(x: Tensor, residual: Tensor) -> list[Tensor]:
        last, _ = model.ln_f(x, residual)
        logits = [] if model.lm_head is None else [model.lm_head(last).float()]
        return [last.float(), mean(last), *logits]

    pieces = {EMBEDDING: Piece(embedding, names.prefill_inputs(), 2)}
    pieces |= {block_piece(i): Piece(partial(run, block), stream, 7) for i, block in enumerate(model.h)}
    pieces[END] = Piece(end, stream, 2 + (model.lm_head is not None))
    if classifier is not None:
        features = TensorSpec(names.FEATURES, "float32", (names.BATCH, len(classifier.layers), config.n_embd))
        pieces[CLASSES] = Piece(lambda features: [model.classify(features)], [features], 1)
    return pieces


def decode_pieces(model: ImageGPT, spec: GraphSpec) -> dict[str, Piece]:
    """New tokens after a cache, and, where the graph `spec` has one, after a prefix that all rows share.

    The embedding makes the stream of token ids and the length of the past; a block of the stream, that length, keys and
    values of the past and of the prefix the stream and keys and values; the end the next token and its logits.
    """
    given = {tensor.name: tensor for tensor in spec[0]}
    input_ids, past_length = given[names.INPUT_IDS], given[names.PAST_LENGTH]
    of_a_layer = [*names.past_names(model.config)[:2], *names.prefix_names(model.config)[:2]]
    cache = [given[name] for name in of_a_layer if name in given]
    stream = _stream(model, input_ids.shape[1])

    def run(block: Block, x: Tensor, residual: Tensor, past_length: Tensor, *cache: Tensor) -> list[Tensor]:
        x, residual, _, _, present = block(x, residual, cache[:2], past_length, cache[2:] or None)
        return [x, residual, *present]

    def end(x: Tensor, residual: Tensor, *sampling: Tensor) -> list[Tensor]:
        assert model.lm_head is not None
        last, _ = model.ln_f(x, residual)
        logits = model.lm_head(last[:, -1]).float()
        return [next_token(logits, *sampling), logits]

    pieces = {EMBEDDING: Piece(model.embed, [input_ids, past_length], 2)}
    pieces |= {
        block_piece(i): Piece(partial(run, block), [*stream, past_length, *cache], 4) for i, block in enumerate(model.h)
    }
    pieces[END] = Piece(end, [*stream, *names.sampling_inputs()], 2)
    return pieces


def _stream(model: ImageGPT, sequence: int | str) -> list[TensorSpec]:
    dtype = str(model.wte.weight.dtype).removeprefix("torch.")
    return [TensorSpec(name, dtype, (names.BATCH, sequence, model.config.n_embd)) for name in ("x", "residual")]
