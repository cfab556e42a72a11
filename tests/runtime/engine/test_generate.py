"""The generation loop: seeds, primers, batches, and the cache that the decode graph updates in place."""

import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import SamplingDefaults
from igpt_runtime.engine import kv_cache, memory
from igpt_runtime.engine.generate import (
    DecodeStep,
    GenerationOptions,
    ResolvedOptions,
    generate,
    generate_all,
    prefill,
    start_cache,
)
from igpt_runtime.engine.kv_cache import Cache, cache_bytes, new_cache, share_prefix
from igpt_runtime.engine.memory import rows_at_once, weights_bytes
from igpt_runtime.engine.session import Session, open_session
from igpt_runtime.errors import MemoryShortageError, OptionError
from igpt_runtime.tasks.complete import complete
from igpt_runtime.tasks.sample import sample

N_POSITIONS, N_CLUSTERS = 64, 16  # of the tiny bundle
MODULE = sys.modules[GenerationOptions.__module__]  # the package's attribute of this name is the function
PRIMER = np.random.default_rng(2).integers(0, N_CLUSTERS, 20)
EMPTY = np.empty(0, np.int64)
DRAW = np.zeros(1, np.float32)


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return open_session(tiny_bundle, device="cpu")


def drawn(
    session: Session, primer: npt.NDArray[np.int64], seed: int, n: int, samples: Sequence[int] | None = None
) -> npt.NDArray[np.int64]:
    """What `generate` streams, int64 [rows, positions]."""
    return np.stack(list(generate(session, primer, GenerationOptions(n, seed), samples)), axis=1)


@pytest.mark.parametrize("primer", [EMPTY, PRIMER], ids=["empty", "primed"])
def test_a_sample_depends_on_its_seed_and_index_only(session: Session, primer: npt.NDArray[np.int64]) -> None:
    eight = drawn(session, primer, 7, 8)
    assert eight.shape == (8, N_POSITIONS - primer.size) and eight.dtype == np.int64
    assert eight.min() >= 0 and eight.max() < N_CLUSTERS
    assert len(np.unique(eight, axis=0)) == 8
    for n in (1, 2, 5):
        assert np.array_equal(drawn(session, primer, 7, n), eight[:n])
    for samples in ([3, 1], [6], [7, 0, 7]):
        assert np.array_equal(drawn(session, primer, 7, 8, samples), eight[samples])
    assert not np.array_equal(drawn(session, primer, 8, 2), eight[:2])
    assert not np.array_equal(drawn(session, primer, 7 + 2**32, 2), eight[:2])


@pytest.mark.parametrize(
    ("few", "many"), [pytest.param((1, 2), 5, marks=pytest.mark.slow), ((6, 9), 16)], ids=["copied", "shared"]
)
def test_integer_weights_round_a_row_alike_in_any_batch(
    bundle_of: Callable[[str, str], Path], few: tuple[int, int], many: int
) -> None:
    session = open_session(bundle_of("int8", "int8"), device="cpu")
    for seed in range(5):
        expected = drawn(session, PRIMER, seed, many)
        for n in few:
            assert np.array_equal(drawn(session, PRIMER, seed, n), expected[:n])


@pytest.mark.parametrize("length", [0, 1, 63, 64])
def test_stream_covers_what_the_primer_leaves(session: Session, length: int) -> None:
    primer = np.arange(length) % N_CLUSTERS
    columns = list(generate(session, primer, GenerationOptions(3)))
    assert [column.shape for column in columns] == [(3,)] * (N_POSITIONS - length)
    pictures = generate_all(session, primer, GenerationOptions(3))
    assert np.array_equal(pictures, np.column_stack([np.tile(primer, (3, 1)), *columns]))


def test_streamed_columns_are_copies(session: Session) -> None:
    options = GenerationOptions(4, seed=1)
    as_they_come = [column.tolist() for column in generate(session, EMPTY, options)]
    assert [column.tolist() for column in list(generate(session, EMPTY, options))] == as_they_come


@pytest.mark.parametrize(
    "primer",
    [
        pytest.param(np.zeros(65, np.int64), id="too long"),
        pytest.param(np.array([0, 16]), id="sos"),
        pytest.param(np.array([0, -1]), id="negative"),
    ],
)
def test_bad_primer(session: Session, primer: npt.NDArray[np.int64]) -> None:
    for function in (generate, generate_all):
        with pytest.raises(OptionError, match=r"^the primer must be at most 64 tokens in 0 \.\. 15$"):
            function(session, primer, GenerationOptions(1))


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_chunks_make_the_same_pictures(session: Session, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    options = GenerationOptions(7, seed=4)
    expected = generate_all(session, PRIMER, options)
    monkeypatch.setattr(memory, "_MOST_ROWS", rows)
    counts: list[int] = []
    assert np.array_equal(generate_all(session, PRIMER, options, counts.append), expected)
    assert sum(counts) == 7 * (N_POSITIONS - PRIMER.size)
    assert max(counts) == {1: 1, 2: 2, 3: 3, 7: 7, 100: 7}[rows]


@pytest.mark.parametrize("length", [0, 20])
def test_batches_fit_the_memory_there_is(session: Session, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    manifest = session.manifest
    fixed = weights_bytes(manifest) + memory._RESERVE

    def given(available: int | None, n: int, *, loaded: bool = False) -> int:
        monkeypatch.setattr(memory, "available_memory", lambda: available)
        return rows_at_once(manifest, n, length, loaded=loaded)

    for rows in (1, 3, 8):
        available = fixed + cache_bytes(manifest, rows, length)
        assert given(available, 8) == {1: 1, 3: 3, 8: 8}[rows]
        assert given(available, 4) == {1: 1, 3: 2, 8: 4}[rows]  # batches of like size
        for n in range(1, 20):
            assert memory._RESERVE + cache_bytes(manifest, given(available, n), length) <= available
            assert given(available - weights_bytes(manifest), n, loaded=True) == given(available, n)
    with pytest.raises(MemoryShortageError, match=r"^one picture of tiny needs 0\.27 GB of memory .* are available; "):
        given(fixed + cache_bytes(manifest, 1, length) - 1, 8)
    assert given(None, 8) == 8


def test_a_second_request_does_not_count_the_weights_again(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    generate_all(session, PRIMER, GenerationOptions(1))
    left = memory._RESERVE + cache_bytes(session.manifest, 1, PRIMER.size)
    monkeypatch.setattr(memory, "available_memory", lambda: left)
    assert generate_all(session, PRIMER, GenerationOptions(2)).shape == (2, N_POSITIONS)


@pytest.mark.parametrize(
    ("weights", "dtype"), [("fp32", "fp32"), pytest.param("fp32", "int8", marks=pytest.mark.slow), ("fp16", "fp16")]
)
def test_cache_bytes_are_those_of_the_arrays(bundle_of: Callable[[str, str], Path], weights: str, dtype: str) -> None:
    session = open_session(bundle_of(weights, dtype))
    slots = prefill(session, PRIMER)
    for rows in (3, 8):
        cache = start_cache(session, slots, rows)
        assert sum(part.nbytes for part in [*cache.own, *cache.prefix]) == cache_bytes(session.manifest, rows, 20)


def test_available_memory_is_the_least_that_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:       4 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_memory() == 4096
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 2000\ninactive_file 500\n")
    assert memory.available_memory() == 2500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() == 4096
    (tmp_path / "meminfo").unlink()
    assert memory.available_memory() is None


def test_rows_have_copies_where_no_graph_shares_a_prefix(bundle_of: Callable[[str, str], Path]) -> None:
    session = open_session(bundle_of("fp16", "fp16"), device="cpu")
    slots = prefill(session, PRIMER)
    assert start_cache(session, slots, 8).graph == graph_io.DECODE and {part.dtype for part in slots} == {
        np.dtype("f2")
    }
    pictures = generate_all(session, PRIMER, GenerationOptions(8, seed=3))
    assert len(np.unique(pictures, axis=0)) == 8
    # What is drawn in fp16 is, but for a few tokens on a border, what fp32 draws.
    exact = open_session(bundle_of("fp32", "fp32"), device="cpu")
    same = [a == b for a, b in zip(pictures, generate_all(exact, PRIMER, GenerationOptions(8, seed=3)), strict=True)]
    assert np.mean([row[PRIMER.size : PRIMER.size + 8] for row in same]) > 0.9


def test_sharing_the_prefix_draws_the_same_tokens(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = prefill(session, PRIMER)
    assert start_cache(session, slots, 6).graph == graph_io.DECODE_SHARED
    assert start_cache(session, slots, 5).graph == graph_io.DECODE
    requests = [GenerationOptions(6, seed=seed) for seed in range(8)]
    shared = [generate_all(session, PRIMER, options) for options in requests]
    monkeypatch.setattr(kv_cache, "_SHARED_ROWS", 100)
    assert start_cache(session, slots, 6).graph == graph_io.DECODE
    for options, tokens in zip(requests, shared, strict=True):
        assert np.array_equal(generate_all(session, PRIMER, options), tokens)


@pytest.mark.parametrize(
    ("weights", "kv_cache"),
    [
        ("fp32", "fp32"),
        pytest.param("fp32", "int8", marks=pytest.mark.slow),
        ("int8", "int8"),
        pytest.param("int8", "fp32", marks=pytest.mark.slow),
        pytest.param("int4", "int8", marks=pytest.mark.slow),
    ],
)
def test_sharing_the_prefix_changes_logits_by_rounding_only(
    bundle_of: Callable[[str, str], Path], weights: str, kv_cache: str
) -> None:
    session = open_session(bundle_of(weights, kv_cache), device="cpu")
    slots = prefill(session, PRIMER)
    tokens = np.random.default_rng(5).integers(0, N_CLUSTERS, (10, 6, 1))
    found = []
    for start in (new_cache, share_prefix):
        step = DecodeStep(session, start(session.manifest, 6, slots), GenerationOptions(), with_logits=True)
        steps = []
        for position, column in enumerate(tokens, start=PRIMER.size):
            step(column, position, np.zeros(6, np.float32))
            steps.append(step.logits().copy())
        found.append(np.stack(steps))
    exact = (weights, kv_cache) == ("fp32", "fp32")
    assert np.abs(found[0] - found[1]).max() <= (1e-5 if exact else 0.02) * np.abs(found[0]).max()
    assert found[0].std() > 0.1


def test_only_one_decode_graph_holds_the_weights(session: Session) -> None:
    generate_all(session, PRIMER, GenerationOptions(2))
    assert graph_io.PREFILL not in session._graphs  # opened for the primer only
    generate_all(session, PRIMER, GenerationOptions(1))
    assert set(session._graphs) == {graph_io.DECODE}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n", 0, "n must be 1 .. 65536, got 0"),
        ("seed", -1, "seed must be in 0 .. 2**64 - 1, got -1"),
        ("seed", 2**64, "seed must be in 0 .. 2**64 - 1, got 18446744073709551616"),
        ("temperature", -0.1, "temperature must be a finite number of at least 0, got -0.1"),
        ("temperature", float("nan"), "temperature must be a finite number of at least 0, got nan"),
        ("temperature", float("inf"), "temperature must be a finite number of at least 0, got inf"),
        ("top_k", -1, "top-k must be at least 0 (0 is off), got -1"),
        ("top_p", 0.0, "top-p must be above 0 and at most 1 (1 is off), got 0.0"),
        ("top_p", 1.001, "top-p must be above 0 and at most 1 (1 is off), got 1.001"),
        ("top_p", float("nan"), "top-p must be above 0 and at most 1 (1 is off), got nan"),
    ],
)
def test_options_out_of_range(field: str, value: float, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        GenerationOptions(**{field: value})  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(GenerationOptions(2, temperature=1e-6), id="low temperature"),
        pytest.param(GenerationOptions(2, temperature=1e-300), id="temperature below float32"),
        pytest.param(GenerationOptions(2, top_k=1), id="top-k 1"),
        pytest.param(GenerationOptions(2, top_p=1e-9), id="small top-p"),
        pytest.param(GenerationOptions(2, top_p=1e-300), id="top-p below float32"),
    ],
)
def test_limits_are_greedy(session: Session, options: GenerationOptions) -> None:
    greedy = generate_all(session, PRIMER, GenerationOptions(2, temperature=0.0))
    assert (greedy == greedy[0]).all()
    assert np.array_equal(generate_all(session, PRIMER, options), greedy)


@pytest.mark.parametrize(
    ("options", "same"),
    [
        pytest.param(GenerationOptions(2, temperature=1e300), GenerationOptions(2, temperature=1e38), id="temperature"),
        pytest.param(GenerationOptions(2, top_k=2**63 - 1), GenerationOptions(2), id="top-k"),
        pytest.param(GenerationOptions(2, top_k=10**30), GenerationOptions(2), id="top-k beyond int64"),
        pytest.param(GenerationOptions(2, top_p=1 - 1e-16), GenerationOptions(2), id="top-p"),
    ],
)
def test_huge_options(session: Session, options: GenerationOptions, same: GenerationOptions) -> None:
    assert np.array_equal(generate_all(session, PRIMER, options), generate_all(session, PRIMER, same))


RECOMMENDED = {"temperature": 0.5, "top_k": 3, "top_p": 0.9}


def test_what_a_request_leaves_out_is_the_models(session: Session) -> None:
    plain = session.manifest
    assert plain.sampling == SamplingDefaults(1.0, 0, 1.0)
    manifest = replace(plain, sampling=SamplingDefaults(**RECOMMENDED))
    assert GenerationOptions(3, 4).resolved(plain) == ResolvedOptions(3, 4, 1.0, 0, 1.0) == ResolvedOptions(3, 4)
    assert GenerationOptions(3, 4).resolved(manifest) == ResolvedOptions(3, 4, **RECOMMENDED)
    half = GenerationOptions(top_k=0, top_p=1.0).resolved(manifest)
    assert half == ResolvedOptions(temperature=0.5) and half.resolved(plain) == half
    assert GenerationOptions(temperature=0.0).resolved(manifest) == ResolvedOptions(8, 0, 0.0, 3, 0.9)


def test_every_route_draws_as_the_model_recommends(
    bundle_copy: Path, session: Session, edit_manifest: Callable[..., None], picture: Path
) -> None:
    edit_manifest(bundle_copy, lambda record: record.update(sampling=RECOMMENDED))
    advised = open_session(bundle_copy, device="cpu")
    asked = GenerationOptions(3, 4, **RECOMMENDED)
    expected = generate_all(session, PRIMER, asked)
    assert not np.array_equal(expected, generate_all(session, PRIMER, GenerationOptions(3, 4)))
    assert np.array_equal(generate_all(advised, PRIMER, GenerationOptions(3, 4)), expected)
    assert np.array_equal(np.stack(list(generate(advised, PRIMER, GenerationOptions(3, 4))), 1), expected[:, 20:])
    plain = GenerationOptions(3, 4, temperature=1.0, top_k=0, top_p=1.0)
    assert np.array_equal(generate_all(advised, PRIMER, plain), generate_all(session, PRIMER, plain))
    for ours, theirs in (
        (complete(advised, picture, GenerationOptions(3, 4)), complete(session, picture, asked)),
        (sample(advised, GenerationOptions(3, 4)), sample(session, asked)),
    ):
        assert np.array_equal(ours.tokens, theirs.tokens)
        assert ours.options == theirs.options == ResolvedOptions(3, 4, **RECOMMENDED)
    assert sample(advised).options == ResolvedOptions(**RECOMMENDED)


def filled(cache: Cache) -> list[tuple[int, ...]]:
    """For each tensor of a cache the slots in which anything is not zero."""
    return [tuple(np.flatnonzero((array != 0).any(axis=(0, 1, 3))).tolist()) for array in cache.own]


@pytest.mark.parametrize("n", [1, 8])
def test_what_prefill_returned_is_given_up(session: Session, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    kept = []

    def prefilled(*arguments: object) -> list[np.ndarray]:
        slots = prefill(*arguments)
        kept.extend(weakref.ref(values) for values in slots[1::2])  # keys of a shared prefix are used as they are
        return slots

    monkeypatch.setattr(MODULE, "prefill", prefilled)
    alive: list[int] = []
    progress = lambda _: alive.append(sum(values() is not None for values in kept))  # noqa: E731
    generate_all(session, PRIMER, GenerationOptions(n), progress)
    assert len(kept) == session.manifest.config.n_layer and max(alive) == 0


def test_cache_is_updated_in_place(session: Session) -> None:
    cache = new_cache(session.manifest, 2)
    step = DecodeStep(session, cache, GenerationOptions())
    uniform = np.array([0.1, 0.9], np.float32)
    step(np.array([[16, 1, 2], [16, 3, 4]]), 0, uniform)
    assert filled(cache) == [(0, 1, 2)] * 6
    before = [array.copy() for array in cache.own]
    step(np.array([[5], [6]]), 3, uniform)
    assert filled(cache) == [(0, 1, 2, 3)] * 6
    for old, new in zip(before, cache.own, strict=True):
        assert np.array_equal(old[:, :, :3], new[:, :, :3])


def test_prefill_is_copied_to_every_row_or_shared(session: Session) -> None:
    slots = prefill(session, PRIMER)
    assert [part.shape for part in slots] == [(1, 4, PRIMER.size, 8)] * 6
    copied, shared = new_cache(session.manifest, 4, slots), share_prefix(session.manifest, 4, slots)
    assert filled(copied) == [tuple(range(PRIMER.size))] * 6
    assert filled(shared) == [(0,)] * 6
    for i, (single, rows, prefix) in enumerate(zip(slots, copied.own, shared.prefix, strict=True)):
        assert (rows[:, :, : PRIMER.size] == single).all()
        assert ((prefix.swapaxes(2, 3) if i % 2 else prefix) == single).all()
    assert prefill(session, EMPTY) == []
    assert filled(start_cache(session, [], 2)) == [()] * 6


@pytest.mark.parametrize("chunks", [[1] * 64, [40, 1, 23], [64]], ids=["one by one", "uneven", "at once"])
def test_cached_logits_are_those_of_the_whole_sequence(session: Session, chunks: list[int]) -> None:
    tokens = np.random.default_rng(3).integers(0, N_CLUSTERS, (1, N_POSITIONS))
    whole = session.graph(graph_io.PREFILL).run([graph_io.LOGITS], {graph_io.INPUT_IDS: tokens})[0]
    step = DecodeStep(session, new_cache(session.manifest, 1), GenerationOptions(), with_logits=True)
    position = 0
    for length in chunks:
        step(tokens[:, position : position + length], position, DRAW)
        position += length
        assert np.abs(step.logits() - whole[:, position - 1]).max() <= 1e-5
    assert np.abs(np.diff(whole, axis=1)).max() > 0.1  # logits that do change from one position to the next


def test_a_shared_prefix_lets_go_of_what_prefill_returned(session: Session) -> None:
    slots = prefill(session, np.zeros(8, np.int64))
    prefix = share_prefix(session.manifest, 2, slots).prefix
    assert not any(np.shares_memory(part, slot) for part, slot in zip(prefix, slots, strict=True))
