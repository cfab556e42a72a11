"""Random numbers in a graph: section 5 of `runtime/SPEC.md`, in the integers that every runtime has."""

import numpy as np
import onnx_ir as ir

from igpt_export.graphs.assembly import Assembly

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)  # of Threefry-2x32
_HALF = 0xFFFF  # of a word
_UNIT = np.array(2.0**-24, np.float32)


def draws_of(graph: Assembly, seed: ir.Value, samples: ir.Value, fed: ir.Value, positions: ir.Value) -> ir.Value:
    """Uniforms [positions from the one before `fed` on, rows]."""
    op, constant = graph.op, graph.constant
    # A seed from 2^63 on is a negative number of the same bits. Division rounds to zero: the sign is taken off first.
    rest = op("BitwiseAnd", seed, constant(2**63 - 1))
    quarters = op("BitwiseAnd", op("Div", rest, constant(np.array([2**48, 2**32, 2**16, 1]))), constant(_HALF))
    sign = op("Cast", op("Less", seed, constant(0)), to=ir.DataType.INT64.value)
    quarters = op("Add", quarters, op("Mul", sign, constant(np.array([2**15, 0, 0, 0]))))
    key = [op("Slice", quarters, *(constant(np.array([place])) for place in ends)) for ends in ((0, 2), (2, 4))]
    key = [op("Reshape", word, constant(np.array([2, 1, 1]))) for word in key]
    places = op("Range", op("Sub", fed, constant(1)), positions, constant(1))
    counter = [_halves(graph, word, shape) for word, shape in ((samples, (1, 1, -1)), (places, (1, -1, 1)))]
    high, low = graph.ops("Split", _threefry(graph, key, counter), outputs=2, axis=0, num_outputs=2)
    bits = op("Add", op("Mul", high, constant(256)), op("Div", low, constant(256)))
    numbers = op("Cast", op("Squeeze", bits, constant(np.array([0]))), to=ir.DataType.FLOAT.value)
    return op("Mul", numbers, constant(_UNIT))


def _halves(graph: Assembly, words: ir.Value, shape: tuple[int, int, int]) -> ir.Value:
    """The high and the low 16 bits of words, [2, ...]. shape: to give the words, with a 1 in front."""
    words = graph.op("Reshape", words, graph.constant(np.array(shape)))
    high, low = graph.constant(_HALF + 1), graph.constant(_HALF)
    return graph.op("Concat", graph.op("Div", words, high), graph.op("BitwiseAnd", words, low), axis=0)


def _threefry(graph: Assembly, key: list[ir.Value], counter: list[ir.Value]) -> ir.Value:
    """First word of Threefry-2x32: section 5 of `runtime/SPEC.md`.

    Words are pairs of 16 bits, high and low [2, ...], so that no number on the way exceeds 2^31 - 1: some runtimes
    compute int64 in 32 bits.
    """
    op, constant = graph.op, graph.constant
    mask, swap = constant(_HALF), constant(np.array([1, 0]))
    carries = constant(np.array([2**31 - 1, _HALF + 1]).reshape(2, 1, 1))  # of low sums only

    def add(*words: ir.Value) -> ir.Value:
        total = words[0]
        for word in words[1:]:
            total = op("Add", total, word)
        carry = op("Gather", op("Div", total, carries), swap, axis=0)
        return op("BitwiseAnd", op("Add", total, carry), mask)

    def rotate(word: ir.Value, bits: int) -> ir.Value:
        swapped = op("Gather", word, swap, axis=0)
        if bits >= 16:
            word, swapped, bits = swapped, word, bits - 16
        if bits == 0:
            return word
        left = op("BitwiseAnd", op("Mul", word, constant(1 << bits)), mask)
        return op("BitwiseOr", left, op("Div", swapped, constant(1 << (16 - bits))))

    parity = constant(np.array([0x1BD1, 0x1BDA]).reshape(2, 1, 1))
    keys = [*key, op("BitwiseXor", op("BitwiseXor", *key), parity)]
    x0, x1 = (add(word, k) for word, k in zip(counter, key, strict=True))
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x0 = add(x0, x1)
            x1 = op("BitwiseXor", rotate(x1, rotation), x0)
        x0 = add(x0, keys[(block + 1) % 3])
        x1 = add(x1, keys[(block + 2) % 3], constant(np.array([0, block + 1]).reshape(2, 1, 1)))
    return x0
