"""`igpt-run bench`: tokens that do not follow from the model are found, and what is reported is what it says."""

import json
import math
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from igpt_runtime.bench import hardware
from igpt_runtime.bench.bandwidth import ideal_memory, read_bandwidth, slot_bytes, step_weights
from igpt_runtime.bench.bench import Result, _Clock, benchmark
from igpt_runtime.bench.fresh_process import Where, measure_fresh_process
from igpt_runtime.bench.report import as_text
from igpt_runtime.bench.verification import EXACT, HALF, QUANTISED, Agreement, redraw, tolerance_of
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.cli import main
from igpt_runtime.engine.generate import GenerationOptions, generate_all
from igpt_runtime.engine.random import uniforms
from igpt_runtime.engine.session import Session, open_session
from igpt_runtime.errors import DeviceError, VerificationError

KEPT = 32
PRIMER = np.random.default_rng(5).integers(0, 16, KEPT)
Edit = Callable[[Path, Callable[[dict[str, Any]], Any]], None]


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return open_session(tiny_bundle, device="cpu")


@pytest.fixture(scope="module")
def result(tiny_bundle: Path) -> Result:
    return benchmark(tiny_bundle, Where("cpu"), n=3, rounds=2)


# Drawing again


@pytest.mark.parametrize(
    "options",
    [
        GenerationOptions(5),
        GenerationOptions(5, seed=2**40 + 1, temperature=0.6, top_k=5),
        GenerationOptions(5, seed=3, temperature=1.7, top_p=0.8),
        GenerationOptions(5, top_k=9, top_p=0.6),
        GenerationOptions(2, temperature=0.0),
        GenerationOptions(2, temperature=1e-300),
        GenerationOptions(2, temperature=1e300, top_k=10**30),
    ],
    ids=str,
)
def test_what_was_drawn_is_drawn_again(session: Session, options: GenerationOptions) -> None:
    tokens = generate_all(session, PRIMER, options)
    agreement = redraw(session, [tokens, tokens[:1], tokens], KEPT, options)
    assert agreement == Agreement(options.n * 32, 1.0, 0.0, 0.0, EXACT)
    agreement.check()


def test_draws_follow_the_rules_written_out(session: Session) -> None:
    """`redraw` itself, against a loop over the rules for one token."""
    options = GenerationOptions(1, seed=9, temperature=0.9, top_k=12, top_p=0.95)
    picture = generate_all(session, PRIMER, options)
    inputs = np.concatenate([[16], picture[0, :-1]])[None]
    logits = session.graph("prefill").run(["logits"], {"input_ids": inputs})[0][0]
    for position in range(KEPT, 64):
        row = [float(x) for x in logits[position]]
        ranks = sorted(range(16), key=lambda token: (-row[token], token))[:12]
        weights = [math.exp((row[token] - row[ranks[0]]) / float(np.float32(0.9))) for token in ranks]
        kept, likelier = [], 0.0
        for weight in weights:
            if likelier < 0.95 or not kept:
                kept.append(weight / sum(weights))
            likelier += weight / sum(weights)
        uniform, total = float(uniforms(9, [0], [position])[0, 0]), 0.0
        cumulative = [total := total + probability for probability in kept]
        rank = next(i for i, c in enumerate(cumulative) if c > uniform * total)
        assert picture[0, position] == ranks[rank]


def least_likely(session: Session, picture: npt.NDArray[np.int64], position: int) -> int:
    inputs = np.concatenate([[16], picture[:-1]])[None]
    logits = session.graph("prefill").run(["logits"], {"input_ids": inputs})[0]
    return int(logits[0, position].argmin())


@pytest.mark.parametrize("position", [KEPT, 63])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_tampered_token_is_found(session: Session, position: int, temperature: float) -> None:
    options = GenerationOptions(40, temperature=temperature)
    tokens = generate_all(session, PRIMER, options)
    draws = uniforms(0, range(40), [position])[:, 0]
    sample = int(draws.argmin())  # where the likeliest tokens are right, and the least likely far off
    tokens[sample, position] = least_likely(session, tokens[sample], position)
    agreement = redraw(session, [tokens], KEPT, options)
    if position == 63:  # nothing follows from it
        assert agreement.identical == 1 - 1 / 1280
    assert agreement.distance > 0.9
    for tolerance in (EXACT, HALF, QUANTISED):
        with pytest.raises(VerificationError, match=r"one is (0\.9|1)\d* off in probability, more than 0") as caught:
            replace(agreement, tolerance=tolerance).check()
        assert "\n" not in str(caught.value)


def test_what_was_drawn_in_fp16_is_drawn_again(bundle_of: Callable[[str, str], Path]) -> None:
    session, options = open_session(bundle_of("fp16", "fp16"), device="cpu"), GenerationOptions(8)
    agreement = redraw(session, [generate_all(session, PRIMER, options)], KEPT, options)
    agreement.check()
    assert agreement.tolerance is HALF and agreement.identical > 0.9


def test_tokens_of_another_seed_are_found(session: Session) -> None:
    tokens = generate_all(session, PRIMER, GenerationOptions(4, seed=1))
    agreement = redraw(session, [tokens], KEPT, GenerationOptions(4, seed=2))
    assert agreement.identical < 0.9 and agreement.mean_distance > 0.05
    with pytest.raises(VerificationError, match=r"\d%? of 128 are drawn again, not 99\.9%"):
        agreement.check()
    with pytest.raises(VerificationError, match=r"off on average, more than 0\.02\)"):
        replace(agreement, distance=0.0, tolerance=QUANTISED).check()


@pytest.mark.parametrize(
    ("tolerance", "good", "bad"),
    [
        (EXACT, (0.999, 1e-3, 1e-5), [(0.9989, 0, 0), (1, 1.1e-3, 0), (1, 0, 1.1e-5)]),
        (HALF, (0.3, 0.05, 1e-3), [(1, 0.051, 0), (1, 0, 1.1e-3)]),
        (QUANTISED, (0.3, 0.75, 0.02), [(1, 0.76, 0), (1, 0, 0.021)]),
    ],
)
def test_check(tolerance: Any, good: tuple[float, ...], bad: list[tuple[float, ...]]) -> None:
    Agreement(1000, *good, tolerance).check()
    for figures in bad:
        with pytest.raises(VerificationError, match="the times mean nothing"):
            Agreement(1000, *figures, tolerance).check()


def test_tolerance_is_that_of_the_precision(session: Session) -> None:
    manifest = session.manifest
    assert tolerance_of(manifest) is EXACT
    assert tolerance_of(replace(manifest, precision="fp16", kv_cache="fp16")) is HALF
    assert tolerance_of(replace(manifest, precision="int8")) is QUANTISED
    assert tolerance_of(with_cache(manifest, "int8")) is QUANTISED


def with_cache(manifest: Manifest, dtype: str) -> Manifest:
    """The manifest as if the cache were stored in another type."""
    graph = manifest.graphs["decode"]
    inputs = tuple(
        replace(spec, dtype=dtype) if spec.name.startswith("past_key") else spec for spec in graph.inputs
    )  # fmt: skip
    return replace(manifest, graphs={**manifest.graphs, "decode": replace(graph, inputs=inputs)})


# What a step reads


def test_bytes(tiny_bundle: Path, session: Session) -> None:
    manifest = session.manifest
    assert slot_bytes(manifest) == 2 * 3 * 32 * 4  # a key and a value of every layer
    assert slot_bytes(with_cache(manifest, "int8")) * 4 == slot_bytes(manifest)
    block = 2 * 32 + 32 * 96 + 96 + 32 * 32 + 32 + 32 * 128 + 128 + 128 * 32 + 32
    bundle = open_bundle(tiny_bundle)
    assert step_weights(bundle) == 4 * (3 * block + 32 + 16 * 32)
    ideal = ideal_memory(bundle, rows=5, kept=32)
    assert ideal.weights == (tiny_bundle / "weights.safetensors").stat().st_size
    assert ideal.cache == (32 + 5 * 32) * slot_bytes(manifest)


def test_weights_are_those_the_header_tells(bundle_copy: Path) -> None:
    """Of any type and name; embeddings and the classifier are not read in full."""
    names = {"h.0.mlp.weight_int4": 100, "lm_head.weight": 20, "wte.weight": 3000, "probe.weight": 4000}
    offset, header = 0, {"__metadata__": {"format": "pt"}}
    for name, size in names.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}  # type: ignore[dict-item]
        offset += size
    text = json.dumps(header).encode()
    (bundle_copy / "weights.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))
    assert step_weights(open_bundle(bundle_copy)) == 120


@pytest.mark.parametrize("threads", [1, 3])
def test_read_bandwidth(threads: int) -> None:
    assert 1e6 < read_bandwidth(threads, size=1 << 20) < 1e14


# The machine


def test_machine() -> None:
    import onnxruntime

    machine = hardware.machine()
    assert machine.onnxruntime == onnxruntime.__version__ and machine.numpy == np.__version__
    assert machine.cpu and machine.system and machine.python == sys.version.split()[0]
    assert 1 <= hardware.default_threads() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux")
def test_memory_is_followed() -> None:
    before = hardware.resident_memory()
    block = np.ones(64 << 20, np.uint8)
    after, higher = hardware.resident_memory(), hardware.peak_memory()
    assert before and after and higher
    assert after.anonymous - before.anonymous > 0.9 * block.nbytes
    del block
    final = hardware.peak_memory()
    assert after.anonymous + after.file <= higher * 1.05
    assert final and final >= higher * 0.95  # the kernel's counters are off by some pages


def test_systems_that_tell_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "_PROC", tmp_path)
    monkeypatch.setattr(hardware, "_CPUS", tmp_path)
    assert hardware.peak_memory()  # from getrusage
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sysconf", raising=False)
    for system in ("Windows", "Darwin"):  # without sysctl on the path either
        monkeypatch.setattr("platform.system", lambda system=system: system)
        monkeypatch.setenv("PATH", str(tmp_path))
        machine = hardware.machine()
        assert (machine.physical_cores, machine.memory) == (None, None) and machine.cpu
        assert hardware.peak_memory() is hardware.resident_memory() is hardware.last_level_cache() is None
        assert hardware.default_threads() >= 1


# The whole


def test_result(result: Result) -> None:
    assert (result.n, result.rounds, result.provider) == (3, 2, "CPUExecutionProvider")
    assert (result.precision, result.cache_dtype) == ("fp32", "float32")
    alone, together = result.decode
    assert (alone.rows, alone.steps, together.rows, together.steps) == (1, 31, 3, 31)
    assert (result.prefill.tokens, result.end_to_end.tokens, result.verification.tokens) == (33, 96, 96)
    assert result.verification.identical == 1
    for steps in result.decode:
        assert 0 < steps.median <= steps.p90
    assert result.load < result.open_to_first_token
    assert result.fresh_process.start_to_first_token < result.fresh_process.start_to_pictures
    traffic, ideal = result.traffic, result.ideal_memory
    assert traffic is not None
    assert traffic.reached == pytest.approx((traffic.weights + traffic.cache) / alone.median)
    assert traffic.share == pytest.approx(traffic.reached / traffic.ceiling)
    assert traffic.cache == 49 * 768  # 34 .. 64 slots, 49 on average
    if result.fresh_process.peak_memory is not None:
        assert result.fresh_process.peak_memory > ideal.weights + ideal.cache


def test_clock_leaves_out_what_is_no_step() -> None:
    clock = _Clock()
    clock._ticks = [(t, 2) for t in (5.0, 6.0, 8.0)] + [(t, 2) for t in (20.0, 21.0, 24.0)] + [(30.0, 1), (31.0, 1)]
    assert clock.steps(3) == (2, [1.0, 2.0, 1.0, 3.0])


def test_text(result: Result) -> None:
    lines = as_text(result).splitlines()
    assert lines[0] == "tiny: 3 layers x 32 wide, 8x8 pictures, fp32 weights, float32 cache"
    text = "\n".join(lines)
    for part in (
        "decode, batch 1 ",
        "decode, batch 3 ",
        "3 completions ",
        " images/min",
        "tokens/s",
        "p90",
        "prefill ",
    ):
        assert part in text
    assert "verified                 yes   100% of 96 tokens are the same" in text and "\x1b" not in text
    unknown = replace(result.fresh_process, peak_memory=None, anonymous=None, mapped=None)
    machine = replace(result.machine, memory=None, physical_cores=None)
    verification = replace(result.verification, identical=0.99999, mean_distance=0.0003, tolerance=QUANTISED)
    bare = replace(result, traffic=None, fresh_process=unknown, machine=machine, verification=verification)
    text = as_text(bare)
    assert "unknown   of the fresh process\n" in text and "GB/s" not in text
    assert "are off by 0.0003 of probability on average (limit 0.02); 99.99% of 96 tokens are the same" in text


def test_json_of_a_result(result: Result) -> None:
    assert json.loads(json.dumps(asdict(result)))["verification"]["tolerance"]["distance"] == 1e-3


@pytest.mark.parametrize("as_json", [False, True])
def test_command(tiny_bundle: Path, as_json: bool) -> None:
    arguments = ["bench", "-n", "2", "--rounds", "1", "--threads", "1", "--model", str(tiny_bundle)]
    done = CliRunner().invoke(main, [*arguments, "--json"] if as_json else arguments)
    assert done.exit_code == 0, done.output
    if as_json:
        record = json.loads(done.stdout)
        assert (record["name"], record["n"], record["threads"]) == ("tiny", 2, 1)
        assert record["verification"]["identical"] == 1 and len(record["decode"]) == 2
    else:
        assert done.stdout.startswith("tiny: ") and "one round" in done.stdout
    assert "benchmark: round 1 of 1, 2 completions ..." in done.stderr.splitlines()


def test_wrong_tokens_end_the_command(
    refused: Callable[..., str], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Agreement(64, 0.5, 0.4, 0.2, EXACT)
    monkeypatch.setattr("igpt_runtime.bench.bench.redraw", lambda *_: wrong)
    line = refused(main, "bench", "-n", "1", "--rounds", "1", "--model", tiny_bundle)
    assert line.startswith(
        "the timed tokens do not follow from the prefill graph's logits (50.00% of 64 are drawn again"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-n", "0"], "n must be 1 .. 65536, got 0"),
        (["--rounds", "0"], "rounds must be at least 1, got 0"),
        (["--threads", "0"], "Invalid value for '--threads': 0 is not in the range x>=1."),
        (["--threads", "many"], "Invalid value for '--threads': 'many' is not a valid integer range."),
        (["--device", "cuda"], "CUDA was asked for but this onnxruntime has no CUDA provider"),
        (["--model", "none"], "no bundle at none; make one with igpt-export"),
        (["seven.png"], "Got unexpected extra argument (seven.png)"),
    ],
)
def test_bad_options(refused: Callable[..., str], arguments: list[str], expected: str) -> None:
    assert refused(main, "bench", *arguments).startswith(expected)


def test_damaged_bundles(refused: Callable[..., str], bundle_copy: Path, edit_manifest: Edit) -> None:
    weights = (bundle_copy / "weights.safetensors").read_bytes()
    (bundle_copy / "weights.safetensors").write_bytes(weights[:-1])
    assert f"bytes instead of {len(weights)}" in refused(main, "bench", "--model", bundle_copy)
    edit_manifest(bundle_copy, lambda record: record["graphs"].pop("decode"))
    assert "has no decode graph" in refused(main, "bench", "--model", bundle_copy)


def test_process_that_fails(bundle_copy: Path) -> None:
    (bundle_copy / "decode.onnx").unlink()
    with pytest.raises(DeviceError, match=r"^a fresh process could not complete a picture \(.*decode\.onnx is missing"):
        measure_fresh_process(bundle_copy, 1, Where("cpu"))
