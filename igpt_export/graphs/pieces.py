"""What is traced of a model: the pieces that the graphs of a bundle are put together of, as functions of tensors.

A graph is an embedding, blocks and an end. Between them goes the stream, a pair (x, residual).
"""

from functools import partial
from typing import cast

import torch
from torch import Tensor

from igpt_export.graphs.trace import Piece
from igpt_export.model.model import Block, ImageGPT, mean
from igpt_export.model.ops import quantize_cache
from igpt_export.model.sampling import next_token
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import Classifier
from igpt_runtime.bundle.graph_io import GraphSpec, TensorSpec

EMBEDDING, END, CLASSES = "embedding", "end", "classes"


def block_piece(layer: int) -> str:
    """Name of the piece that is a block, and what the names of its weights begin with."""
    return f"h.{layer}"


def prefill_pieces(model: ImageGPT, classifier: Classifier | None) -> dict[str, Piece]:
    """Pieces of the graph of whole sequences. What is read of it is float32 in every precision.

    embedding: input_ids -> x, residual. block: x, residual -> x, residual, hidden state that it was fed, mean of that,
    mean of what its attention read, key, value. end: x, residual -> last hidden state, its mean, logits if there is a
    head. classes: means that the classifier reads [batch, layers, n_embd] -> class logits.
    """
    config = model.config
    stream = _stream(model, graph_io.SEQUENCE)

    def embedding(input_ids: Tensor) -> tuple[Tensor, Tensor]:
        return model.embed(input_ids, torch.zeros((), dtype=torch.int64))

    def run(block: Block, x: Tensor, residual: Tensor) -> list[Tensor]:
        # With the attention that keeps a cache, which is the fused one. Means come at once, so that no state is kept.
        empty = torch.zeros(*x.shape[:1], config.n_head, *x.shape[1:2], config.head_dim, dtype=x.dtype)
        start = torch.zeros((), dtype=torch.int64)
        x, residual, hidden, normed, present = block(x, residual, [empty, empty], start, None)
        (key, value), k_scale, v_scale = present, block.attn.k_scale, block.attn.v_scale
        if k_scale is not None and v_scale is not None:
            key, value = quantize_cache(key, k_scale), quantize_cache(value, v_scale)
        read = hidden.float()
        return [x, residual, read, mean(read), mean(normed), key, value]

    def end(x: Tensor, residual: Tensor) -> list[Tensor]:
        last, _ = model.ln_f(x, residual)
        logits = [] if model.lm_head is None else [model.lm_head(last).float()]
        return [last.float(), mean(last), *logits]

    pieces = {EMBEDDING: Piece(embedding, graph_io.prefill_inputs(), 2)}
    pieces |= {block_piece(i): Piece(partial(run, block), stream, 7) for i, block in enumerate(_blocks(model))}
    pieces[END] = Piece(end, stream, 2 + (model.lm_head is not None))
    if classifier is not None:
        features = TensorSpec(graph_io.FEATURES, "float32", (graph_io.BATCH, len(classifier.layers), config.n_embd))
        pieces[CLASSES] = Piece(lambda features: [model.classify(features)], [features], 1)
    return pieces


def decode_pieces(model: ImageGPT, spec: GraphSpec) -> dict[str, Piece]:
    """Pieces of a graph of new tokens after a cache and, if it is in `spec`, a prefix that all rows share.

    embedding: input_ids, past_length -> x, residual. block: x, residual, past_length, key and value of the past, and of
    the prefix -> x, residual, key, value. end: x, residual, `graph_io.sampling_inputs` -> next_ids, logits.
    """
    given = {tensor.name: tensor for tensor in spec[0]}
    input_ids, past_length = given[graph_io.INPUT_IDS], given[graph_io.PAST_LENGTH]
    of_a_layer = [*graph_io.past_names(model.config)[:2], *graph_io.prefix_names(model.config)[:2]]
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
        block_piece(i): Piece(partial(run, block), [*stream, past_length, *cache], 4)
        for i, block in enumerate(_blocks(model))
    }
    pieces[END] = Piece(end, [*stream, *graph_io.sampling_inputs()], 2)
    return pieces


def _blocks(model: ImageGPT) -> list[Block]:
    return cast(list[Block], list(model.h))  # a ModuleList has lost their type


def _stream(model: ImageGPT, sequence: int | str) -> list[TensorSpec]:
    """What goes between pieces. The first block's residual is that of one row, [1, ...], but sizes are read from x."""
    dtype = str(model.wte.weight.dtype).removeprefix("torch.")
    return [TensorSpec(name, dtype, (graph_io.BATCH, sequence, model.config.n_embd)) for name in ("x", "residual")]
