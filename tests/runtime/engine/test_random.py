"""Random draws: the generator's published vectors, and the draws against a second implementation in Python's ints."""

import numpy as np
import pytest

from igpt_runtime.engine.random import threefry2x32, uniforms

MASK = 0xFFFFFFFF


def reference_uniform(seed: int, sample: int, position: int) -> float:
    """One draw, written from the paper: Threefry-2x32, 20 rounds, a key injection after every fourth."""
    keys = [seed >> 32, seed & MASK]
    keys.append(keys[0] ^ keys[1] ^ 0x1BD11BDA)
    a, b = (sample + keys[0]) & MASK, (position + keys[1]) & MASK
    for round_ in range(20):
        bits = (13, 15, 26, 6, 17, 29, 16, 24)[round_ % 8]
        a = (a + b) & MASK
        b = ((b << bits | b >> (32 - bits)) & MASK) ^ a
        if round_ % 4 == 3:
            injection = round_ // 4 + 1
            a = (a + keys[injection % 3]) & MASK
            b = (b + keys[(injection + 1) % 3] + injection) & MASK
    return (a >> 8) / 2**24


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        pytest.param((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE), id="zeros"),
        pytest.param((MASK, MASK), (MASK, MASK), (0x1CB996FC, 0xBB002BE7), id="ones"),
        pytest.param((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0), id="pi"),
    ],
)
def test_known_answers_of_random123(key: tuple[int, int], counter: tuple[int, int], expected: tuple[int, int]) -> None:
    words = threefry2x32(key, (np.array([counter[0]], np.uint32), np.array([counter[1]], np.uint32)))
    assert (int(words[0][0]), int(words[1][0])) == expected


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 0x0123456789ABCDEF, 2**64 - 1])
def test_draws_are_the_top_24_bits(seed: int) -> None:
    samples, positions = [0, 1, 7, 2**32 - 1], [0, 1, 2, 1023, 4095]
    draws = uniforms(seed, samples, positions)
    assert draws.dtype == np.float32
    assert draws.tolist() == [[reference_uniform(seed, s, p) for p in positions] for s in samples]


def test_words_of_the_seed_are_not_interchangeable() -> None:
    seeds = [1, 2**32, 2**32 + 1, 2]
    assert len({uniforms(seed, [0], range(4)).tobytes() for seed in seeds}) == len(seeds)


def test_a_draw_does_not_depend_on_its_batch() -> None:
    whole = uniforms(5, range(9), range(40))
    assert np.array_equal(uniforms(5, [7, 2, 2], range(10, 40, 3)), whole[[7, 2, 2], 10::3])
    assert uniforms(5, range(3), []).shape == (3, 0)
    assert uniforms(5, [], range(3)).shape == (0, 3)


def test_draws_are_roughly_uniform() -> None:
    draws = uniforms(0, range(100), range(1000))
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.histogram(draws, 64, (0, 1))[0]
    assert np.square(counts - draws.size / 64).sum() / (draws.size / 64) < 120  # chi square, 63 degrees of freedom
    for axis in (0, 1):  # no row or column is off, as its mean would tell
        assert np.abs(draws.mean(axis) - 0.5).max() < 5 / np.sqrt(12 * draws.shape[axis])
    assert np.abs(np.corrcoef(draws)[np.triu_indices(100, 1)]).max() < 0.2
