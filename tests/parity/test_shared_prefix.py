"""A prefix that rows share, against the same attention over all slots of each row by torch."""

import pytest
import torch
from torch.nn import functional

from igpt_export.model.ops import shared_prefix_attention
from igpt_runtime.bundle.graph_io import SENTINEL, SHARED_CHANNELS

N_HEAD, HEAD_DIM = 2, 8
SCALE = HEAD_DIM**-0.5
OWN, CAPACITY = 4, 7


@pytest.mark.parametrize("int8_cache", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize(("prefix_size", "own_size"), [(1, 1), (15, 15), (15, 0.1), (0.1, 15), (200, 200)])
@pytest.mark.parametrize("length", [1, 60])
@pytest.mark.parametrize("rows", [1, 6])
def test_merging_is_one_softmax(rows: int, length: int, prefix_size: float, own_size: float, int8_cache: bool) -> None:
    """Scores go up to about 5 times the sizes of the keys."""
    generator = torch.Generator().manual_seed(0)
    shapes = [
        (rows, 1, 3 * N_HEAD * HEAD_DIM),
        *2 * [(1, N_HEAD, length, HEAD_DIM)],
        *2 * [(rows, N_HEAD, OWN, HEAD_DIM)],
    ]
    qkv, keys, values, own_keys, own_values = (torch.randn(shape, generator=generator) for shape in shapes)
    query, new_key, new_value = qkv.view(rows, 3, N_HEAD, 1, HEAD_DIM).unbind(1)
    keys, own_keys = keys * prefix_size, own_keys * own_size
    scales = None
    steps = torch.ones(2, 1, N_HEAD, 1, HEAD_DIM)
    if int8_cache:
        steps *= torch.tensor([max(prefix_size, own_size), 1.0]).view(2, 1, 1, 1, 1) / 30
        scales = (steps[0], steps[1])
        keys, own_keys, new_key = (torch.round(t / steps[0]).clamp(-128, 127) for t in (keys, own_keys, new_key))
        values, own_values, new_value = (
            torch.round(t / steps[1]).clamp(-128, 127) for t in (values, own_values, new_value)
        )

    own = torch.zeros(2, rows, N_HEAD, CAPACITY, HEAD_DIM + SHARED_CHANNELS)
    own[..., 0, HEAD_DIM] = SENTINEL["int8" if int8_cache else "float32"]
    own[..., 1 : OWN + 1, :HEAD_DIM] = torch.stack([own_keys, own_values])
    own_key, own_value = own.to(torch.int8 if int8_cache else torch.float32)
    prefix = (keys, values.transpose(2, 3))
    past_length = torch.tensor(length + OWN)
    mixed, *_ = shared_prefix_attention(qkv, prefix, (own_key, own_value), past_length, N_HEAD, SCALE, scales)

    key, value = (
        torch.cat([shared.expand(rows, -1, -1, -1), rest, new], 2).double() * step
        for shared, rest, new, step in ((keys, own_keys, new_key, steps[0]), (values, own_values, new_value, steps[1]))
    )
    expected = functional.scaled_dot_product_attention(query.double(), key, value, scale=SCALE)
    # A score is known to the precision of float32 only.
    tolerance = 1e-5 * max(1, prefix_size, own_size)
    assert (mixed.view(rows, N_HEAD, 1, HEAD_DIM) - expected).abs().max() < tolerance
