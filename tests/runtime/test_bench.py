"""`igpt-run bench`: its record is consistent, its tokens are verified, and wrong ones are found."""

import dataclasses
import json
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from igpt_runtime import bench, fresh, hardware
from igpt_runtime.bench import Result, benchmark
from igpt_runtime.cli import main
from igpt_runtime.errors import BundleError, DeviceError, OptionError, VerificationError
from igpt_runtime.fresh import half_picture, measure_fresh_process
from igpt_runtime.generate import GenerationOptions, generate_all
from igpt_runtime.manifest import WEIGHTS_FILE
from igpt_runtime.random import uniforms
from igpt_runtime.redraw import TOLERANCE, Agreement, draw_tokens, is_near, redraw
from igpt_runtime.report import as_text
from igpt_runtime.session import Session, open_session
from igpt_runtime.traffic import cache_dtype, slot_bytes, weight_bytes

Refused = Callable[..., str]
Floats = npt.NDArray[np.float32]

KEPT, DRAWN = 32, 32  # of the 64 tokens of the tiny bundle's pictures
MIB = 1 << 20


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return open_session(tiny_bundle, device="cpu")


@pytest.fixture(scope="module")
def result(tiny_bundle: Path) -> Result:
    """A benchmark of the tiny bundle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "_MAX_BUFFER", MIB)
        return benchmark(tiny_bundle, device="cpu", threads=1, n=3, rounds=2)


@pytest.fixture(scope="module")
def pictures(session: Session) -> npt.NDArray[np.int64]:
    """Three completions of 32 tokens, seed 4."""
    return generate_all(session, np.arange(KEPT) % 16, GenerationOptions(3, seed=4))


# The result


def test_command_prints_the_record(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_MAX_BUFFER", MIB)
    arguments = ["bench", "--model", str(tiny_bundle), "-n", "2", "--rounds", "1", "--threads", "1", "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert set(record) == {field.name for field in dataclasses.fields(Result)}
    assert (record["n"], record["rounds"], record["threads"]) == (2, 1, 1)
    assert record["provider"] == "CPUExecutionProvider"
    assert [steps["rows"] for steps in record["decode"]] == [1, 2]
    assert record["verification"]["tokens_checked"] == 2 * DRAWN == record["verification"]["tokens_equal"]
    assert all(line.startswith("benchmark: ") and line.endswith(" ...") for line in done.stderr.splitlines())


def test_command_prints_aligned_text(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_MAX_BUFFER", MIB)
    done = CliRunner().invoke(main, ["bench", "--model", str(tiny_bundle), "-n", "2", "--rounds", "1"])
    assert done.exit_code == 0, done.output
    rows = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert {"load", "prefill", "decode x 1", "decode x 2", "half image x 2", "bandwidth", "machine"} <= set(rows)
    assert rows["verified"].strip() == "64 of 64 tokens are those of the prefill graph"
    assert all(len(line) < 200 for line in done.stdout.splitlines())


def test_numbers_are_consistent(result: Result) -> None:
    alone, together = result.decode
    assert (alone.rows, together.rows) == (1, 3)
    for steps in result.decode:
        assert steps.steps == DRAWN - 1 and 0 < steps.median <= steps.p90 and steps.tokens_per_second > 0
    assert result.prefill.tokens == KEPT + 1
    assert result.prefill.tokens_per_second == pytest.approx((KEPT + 1) / result.prefill.seconds)
    whole = result.end_to_end
    assert whole.tokens == 3 * DRAWN
    assert whole.tokens_per_second == pytest.approx(whole.tokens / whole.seconds)
    assert whole.images_per_minute == pytest.approx(60 * 3 / whole.seconds)
    assert 0 < result.load < result.open_to_first_token
    assert 0 < result.fresh_process.start_to_first_token < result.fresh_process.start_to_pictures
    assert result.verification == Agreement(3 * DRAWN, 3 * DRAWN, 0, True, None)
    assert (result.precision, result.cache_dtype, result.rounds, result.threads) == ("fp32", "float32", 2, 1)


def test_traffic_is_what_a_step_reads(result: Result, tiny_bundle: Path) -> None:
    traffic = result.traffic
    assert traffic is not None
    n_embd, n_layer, n_inner, n_clusters = 32, 3, 128, 16
    matrices = n_layer * (4 * n_embd * n_embd + 2 * n_embd * n_inner) + n_clusters * n_embd
    vectors = n_layer * (3 * n_embd + n_embd + n_inner + n_embd + 2 * n_embd) + n_embd
    assert traffic.weight_bytes == 4 * (matrices + vectors + 2 * n_embd)  # and a row of each embedding
    assert traffic.cache_bytes == (KEPT + 2 + 64) / 2 * 2 * n_layer * n_embd * 4
    step = result.decode[0].median
    assert traffic.effective == pytest.approx((traffic.weight_bytes + traffic.cache_bytes) / step)
    assert traffic.share == pytest.approx(traffic.effective / traffic.ceiling)
    assert traffic.in_cache in (True, None)


def test_traffic_follows_the_types_of_the_bundle(session: Session) -> None:
    manifest = session.manifest
    decode = manifest.graphs["decode"]
    inputs = tuple(
        dataclasses.replace(spec, dtype="int8") if spec.name.startswith("past_key_values.") else spec
        for spec in decode.inputs
    )
    graphs = {**manifest.graphs, "decode": dataclasses.replace(decode, inputs=inputs)}
    quantised = dataclasses.replace(manifest, graphs=graphs)
    assert (cache_dtype(manifest), cache_dtype(quantised)) == ("float32", "int8")
    assert slot_bytes(manifest) == 4 * slot_bytes(quantised) == 4 * 2 * 3 * 32


def test_n_that_is_split_into_batches(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_MAX_BUFFER", MIB)
    result = benchmark(tiny_bundle, device="cpu", n=70, rounds=1)
    rows, steps = result.decode[1].rows, result.decode[1].steps
    assert rows <= 70 and steps == (70 // rows) * (DRAWN - 1)
    assert result.verification.tokens_equal == result.verification.tokens_checked == 70 * DRAWN


def test_text_of_other_results(result: Result) -> None:
    """No bandwidth on a GPU, no peak memory on Windows, differences in a quantised bundle."""
    text = as_text(
        dataclasses.replace(
            result,
            provider="CUDAExecutionProvider",
            traffic=None,
            fresh_process=dataclasses.replace(result.fresh_process, peak_memory=None),
            verification=Agreement(1000, 987, 3, False, "picture 1"),
        )
    )
    assert "not measured on this provider" in text and "peak memory not known" in text
    assert "987 of 1,000 tokens are those of the prefill graph (98.70%)\n" in text


# Verification


def test_tokens_of_the_loop_are_redrawn(session: Session, pictures: npt.NDArray[np.int64]) -> None:
    agreement = redraw(session, [pictures, pictures.copy()], KEPT, GenerationOptions(3, seed=4))
    assert agreement == Agreement(3 * DRAWN, 3 * DRAWN, 0, True, None)
    agreement.check()


@pytest.mark.parametrize("position", [KEPT, 50, 63])
def test_a_wrong_token_is_found(session: Session, pictures: npt.NDArray[np.int64], position: int) -> None:
    options = GenerationOptions(3, seed=4)
    inputs = np.concatenate([[16], pictures[1, :-1]])[None]
    logits = session.graph("prefill").run(["logits"], {"input_ids": inputs})[0][0, position]
    u = float(uniforms(4, range(3), range(64))[1, position])
    wrong = pictures.copy()
    wrong[1, position] = next(token for token in range(16) if not is_near(logits, u, token))
    agreement = redraw(session, [pictures, wrong], KEPT, options)
    assert agreement.tokens_checked == 4 * DRAWN  # the changed picture counts besides the right one
    assert agreement.tokens_equal < agreement.tokens_checked
    found = f"picture 2, position {position}: token {wrong[1, position]}, expected {pictures[1, position]}"
    assert agreement.first_difference == found
    with pytest.raises(VerificationError, match=f"tokens drawn do not follow from .* \\({found}\\); export the bundle"):
        agreement.check()


def test_other_draws_are_found(session: Session, pictures: npt.NDArray[np.int64]) -> None:
    agreement = redraw(session, [pictures], KEPT, GenerationOptions(3, seed=5))
    with pytest.raises(VerificationError):
        agreement.check()


def test_what_is_excused() -> None:
    Agreement(1000, 990, 10, True, "rounding").check()
    Agreement(20, 18, 2, True, "rounding").check()
    Agreement(1000, 500, 0, False, "a quantised bundle").check()
    for bad in (
        Agreement(1000, 999, 0, True, "not explained"),
        Agreement(1000, 980, 20, True, "too many to be rounding"),
    ):
        with pytest.raises(VerificationError):
            bad.check()


def test_quantised_bundles_report_agreement_only(
    bundle_copy: Path, edit_manifest: Callable[[Path, Callable[[dict[str, Any]], Any]], None]
) -> None:
    edit_manifest(bundle_copy, lambda record: record.update(precision="int8"))
    wrong = np.zeros((1, 64), np.int64)
    agreement = redraw(open_session(bundle_copy, device="cpu"), [wrong], KEPT, GenerationOptions(1))
    assert not agreement.exact and agreement.tokens_equal < DRAWN
    agreement.check()


def test_command_refuses_wrong_tokens(refused: Refused, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_MAX_BUFFER", MIB)
    original = bench.complete

    def faulty(*arguments: Any, **options: Any) -> Any:
        done = original(*arguments, **options)
        done.tokens[0, KEPT:] = (done.tokens[0, KEPT:] + 5) % 16
        return done

    monkeypatch.setattr(bench, "complete", faulty)
    line = refused(main, "bench", "--model", tiny_bundle, "-n", 2, "--rounds", 1)
    assert "of the 64 tokens drawn do not follow from the prefill graph's logits" in line


# The sampling rule


def draw_in_graph(session: Session, inputs: list[int], draws: Floats, options: GenerationOptions) -> tuple[Any, Floats]:
    """Tokens int64 [rows] that the decode graph draws after the same inputs, and the logits they come from."""
    feeds: dict[str, Any] = {
        spec.name: np.zeros([len(draws), *spec.shape[1:]], spec.dtype)
        for spec in session.manifest.graphs["decode"].inputs
        if spec.name.startswith("past_key_values.")
    }
    feeds |= {
        "input_ids": np.tile(np.array(inputs, np.int64), (len(draws), 1)),
        "past_length": np.array(0, np.int64),
        "uniform": draws,
        "temperature": np.array(options.temperature, np.float32),
        "top_k": np.array(options.top_k, np.int64),
        "top_p": np.array(options.top_p, np.float32),
    }
    tokens, logits = session.graph("decode").run(["next_ids", "logits"], feeds)
    return tokens[:, 0], logits


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [0, 1, 5, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.7, 1e-300])
def test_rule_is_that_of_the_graph(session: Session, temperature: float, top_k: int, top_p: float) -> None:
    options = GenerationOptions(1, 0, temperature, top_k, top_p)
    draws = np.concatenate([[0, 1 - 2**-24], uniforms(9, range(1), range(200))[0]]).astype(np.float32)
    for inputs in ([16], [16, 2, 2, 11]):
        tokens, logits = draw_in_graph(session, inputs, draws, options)
        assert draw_tokens(logits, draws, options).tolist() == tokens.tolist()


def test_rule_by_hand() -> None:
    logits = np.log(np.array([[0.25, 0.5, 0.25]], np.float32))

    def drawn(u: float, **options: Any) -> int:
        return int(draw_tokens(logits, np.array([u], np.float32), GenerationOptions(**options))[0])

    assert [drawn(u) for u in (0, 0.49, 0.51, 0.74, 0.76, 0.999)] == [1, 1, 0, 0, 2, 2]  # equal: lower token first
    assert [drawn(u, top_k=2) for u in (0.66, 0.67)] == [1, 0]
    assert [drawn(u, top_p=0.6) for u in (0.66, 0.67, 0.999)] == [1, 0, 0]
    assert drawn(0.999, temperature=0) == drawn(0.999, top_p=0.4) == 1
    assert drawn(0.19, temperature=0.5) == 1 and drawn(0.67, temperature=0.5) == 0


def test_what_is_near() -> None:
    logits = np.log(np.array([0.2, 0.5, 0.2999, 0.0001], np.float32))  # in rank order 1, 2, 0, 3
    assert is_near(logits, 0.4, 1) and not is_near(logits, 0.4, 2)
    border = 0.5
    assert is_near(logits, border - TOLERANCE / 2, 2) and is_near(logits, border + TOLERANCE / 2, 1)
    assert not is_near(logits, border - 2 * TOLERANCE, 2) and not is_near(logits, border + 2 * TOLERANCE, 1)
    tied = np.array([1, 1 + TOLERANCE, -3], np.float32)  # may swap ranks
    assert is_near(tied, 0.1, 0) and is_near(tied, 0.1, 1) and not is_near(tied, 0.1, 2)


# The machine and the fresh process


@pytest.mark.parametrize("threads", [1, 2])
def test_read_bandwidth(threads: int) -> None:
    assert hardware.read_bandwidth(threads, MIB) > 0


def test_machine() -> None:
    machine = hardware.machine()
    assert machine.cpu and machine.cores >= hardware.default_threads() >= 1
    assert (machine.numpy, machine.python) == (np.__version__, ".".join(map(str, sys.version_info[:3])))
    assert machine.date.startswith("20") and machine.date.endswith("+00:00")
    assert machine.last_level_cache is None or machine.last_level_cache > 0


def test_peak_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = hardware.peak_memory()
    assert peak is None or 10 * MIB < peak < 1 << 40
    monkeypatch.setattr(hardware, "_text", lambda path: "")  # no /proc
    other = hardware.peak_memory()
    assert other is None or 10 * MIB < other < 1 << 40
    monkeypatch.setitem(sys.modules, "resource", None)
    assert hardware.peak_memory() is None
    assert hardware.cpu_model() and hardware.default_threads() >= 1


def test_fresh_process(tiny_bundle: Path) -> None:
    ballast = np.ones(400 * MIB, np.uint8)  # of this process, and none of the fresh one's
    begin = time.perf_counter()
    measured = measure_fresh_process(tiny_bundle, "cpu", 1, 2)
    assert 0 < measured.start_to_first_token < measured.start_to_pictures <= time.perf_counter() - begin
    if sys.platform == "linux":
        assert measured.peak_memory is not None and 10 * MIB < measured.peak_memory < ballast.nbytes


def test_fresh_process_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"a fresh process could not complete a picture \(no bundle at .*/none;"):
        measure_fresh_process(tmp_path / "none", "cpu", None, 1)
    monkeypatch.setattr(fresh.sys, "executable", "/bin/false")
    with pytest.raises(DeviceError, match="a fresh process could not complete a picture"):
        measure_fresh_process(tmp_path, "cpu", None, 1)


def test_half_picture_is_always_the_same(session: Session) -> None:
    form = session.manifest.image_format
    first, second = (half_picture(form.clusters, form.height, form.width) for _ in range(2))
    assert first.size == (8, 8) and first.tobytes() == second.tobytes()


# Refusals


def test_weight_bytes_of_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS_FILE
    header = json.dumps({"a": {"shape": [1]}}).encode()
    for data in (b"", b"1234", struct.pack("<Q", 1 << 60), struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + header,
                 struct.pack("<Q", len(header)) + header):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(BundleError, match="is not a safetensors file"):
            weight_bytes(path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-n", 0], "n must be 1 .. 65536, got 0"),
        (["--rounds", 0], "rounds must be at least 1, got 0"),
        (["--threads", 0], "threads must be at least 1, got 0"),
        (["--device", "cuda"], "CUDA was asked for but this onnxruntime has no CUDA provider"),
        (["--model", "none"], "no bundle at none; make one with igpt-export"),
        (["-n", "x"], "Invalid value for '-n'"),
        (["extra"], "Got unexpected extra argument (extra)"),
    ],
)
def test_bad_options(refused: Refused, arguments: list[object], expected: str) -> None:
    assert refused(main, "bench", *arguments).startswith(expected)


def test_damaged_bundle(refused: Refused, bundle_copy: Path) -> None:
    weights = (bundle_copy / WEIGHTS_FILE).read_bytes()
    (bundle_copy / WEIGHTS_FILE).write_bytes(weights[:-1])
    line = refused(main, "bench", "--model", bundle_copy, "-n", 1, "--rounds", 1)
    path = bundle_copy / WEIGHTS_FILE
    assert line.startswith(f"{path} has {len(weights) - 1} bytes instead of {len(weights)}; ")


def test_bundle_that_cannot_generate(
    refused: Refused,
    bundle_copy: Path,
    edit_manifest: Callable[[Path, Callable[[dict[str, Any]], Any]], None],
) -> None:
    edit_manifest(bundle_copy, lambda record: record["graphs"].pop("decode"))
    line = refused(main, "bench", "--model", bundle_copy)
    assert line.startswith(f"{bundle_copy} has no decode graph: its checkpoint has no language-model head; ")


def test_pictures_of_one_pixel(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    monkeypatch.setattr(bench, "rows_to_keep", lambda keep, height: height)
    with pytest.raises(OptionError, match="draws pictures of one pixel"):
        benchmark(tiny_bundle)
