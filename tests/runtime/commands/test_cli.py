"""The command `igpt-run`: what it writes and prints, and the one line with which it refuses everything else."""

import io
import json
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from igpt_runtime.cli import main
from igpt_runtime.engine.generate import GenerationOptions
from igpt_runtime.engine.session import open_session
from igpt_runtime.tasks.classify import classify
from igpt_runtime.tasks.complete import complete, sample
from igpt_runtime.tasks.features import features

Run = Callable[..., Result]
Refused = Callable[..., str]
COMMAND = [sys.executable, "-m", "igpt_runtime.cli"]


@pytest.fixture
def run(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs a command well in this test's directory, with the tiny bundle."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [*map(str, arguments), "--model", str(tiny_bundle)])
        assert result.exit_code == 0, result.output
        return result

    return invoke


def pipe(*arguments: object, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a process of its own."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, **options)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# What the commands do


def test_complete(run: Run, tmp_path: Path, picture: Path) -> None:
    result = run("complete", picture, "-n", 3, "--seed", 5)
    assert result.stdout == "photo-completed.png\n"
    assert result.stderr.startswith("3 pictures in ") and result.stderr.endswith("seed 5, CPUExecutionProvider\n")
    assert files(tmp_path) == ["photo-completed.png"]
    with Image.open("photo-completed.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 5 * 128 > sheet.height


def test_complete_as_json(run: Run, picture: Path, tiny_bundle: Path) -> None:
    record = json.loads(run("complete", picture, "-n", 2, "--seed", 5, "-o", "out.jpg", "--json").stdout)
    expected = complete(open_session(tiny_bundle), picture, GenerationOptions(2, seed=5))
    assert record["tokens"] == expected.tokens.tolist()
    assert (record["files"], record["n"], record["seed"], record["kept_rows"]) == (["out.jpg"], 2, 5, 4)
    assert record["provider"] == "CPUExecutionProvider" and record["tokens_per_second"] > 0
    with Image.open("out.jpg") as sheet:
        assert sheet.format == "JPEG"


def test_sample(run: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    record = json.loads(run("sample", "-n", 2, "--temperature", 0.5, "--top-k", 4, "--top-p", 0.8, "--json").stdout)
    expected = sample(open_session(tiny_bundle), GenerationOptions(2, temperature=0.5, top_k=4, top_p=0.8))
    assert record["tokens"] == expected.tokens.tolist() and record["kept_rows"] == 0
    assert files(tmp_path) == ["samples.png"]


@pytest.mark.parametrize(
    ("keep", "rows"),
    [("top-half", 4), ("0.25", 2), ("25%", 2), ("1", 1), ("0", 0), ("7", 7), ("0.0", 0), ("0%", 0), ("87.5%", 7)],
)
def test_keep(run: Run, picture: Path, keep: str, rows: int) -> None:
    record = json.loads(run("complete", picture, "-n", 2, "--keep", keep, "--json").stdout)
    tokens = np.array(record["tokens"])
    assert record["kept_rows"] == rows
    assert (tokens[0, : rows * 8] == tokens[1, : rows * 8]).all()
    assert (tokens[0, rows * 8 :] != tokens[1, rows * 8 :]).any()


def test_separate_and_animation(run: Run, tmp_path: Path, picture: Path, tiny_bundle: Path) -> None:
    result = run("complete", picture, "-n", 2, "-o", "a.webp", "--separate", "--gif", "--scale", 3)
    assert result.stdout.split() == ["a.webp", "a-1.webp", "a-2.webp", "a.gif"]
    assert files(tmp_path) == sorted(result.stdout.split())
    completions = complete(open_session(tiny_bundle), picture, GenerationOptions(2)).images
    for i, completion in enumerate(completions, 1):
        with Image.open(f"a-{i}.webp") as single:
            assert single.format == "WEBP" and single.size == (24, 24)
            assert np.array_equal(np.asarray(single)[::3, ::3], np.asarray(completion))
    with Image.open("a.gif") as animation, Image.open("a.webp") as sheet:
        assert animation.n_frames == 17 and animation.size == sheet.size  # 32 tokens, 2 a frame, and the start


def test_force_overwrites(run: Run, refused: Refused, picture: Path, tiny_bundle: Path) -> None:
    run("complete", picture, "-n", 1, "-o", "a.png", "--gif")
    first = Path("a.png").read_bytes()
    for name in ("a.png", "a.gif"):
        line = refused(main, "complete", picture, "-n", 1, "--seed", 1, "-o", "a.png", "--gif", "--model", tiny_bundle)
        assert line == f"{name} exists; add --force to overwrite it, or choose another output"
        Path(name).rename(f"old-{name}")
    Path("old-a.png").rename("a.png")
    run("complete", picture, "-n", 1, "--seed", 1, "-o", "a.png", "--force")
    assert Path("a.png").read_bytes() != first


def test_classify(run: Run, picture: Path, tiny_bundle: Path) -> None:
    probabilities = classify(open_session(tiny_bundle), [picture])[0]
    first, *others = sorted(zip(probabilities, "abc", strict=True), reverse=True)
    expected = ", ".join(f"{label} {value:.1%}" for value, label in [first, *others])
    assert run("classify", picture, picture).stdout == f"{picture}: {expected}\n" * 2
    record = json.loads(run("classify", picture, "--json").stdout)
    assert record[0]["image"] == str(picture) and record[0]["label"] == first[1]
    assert np.allclose(list(record[0]["probabilities"].values()), probabilities, atol=1e-6)


def test_features(run: Run, picture: Path, tiny_bundle: Path) -> None:
    expected = features(open_session(tiny_bundle), [picture, picture])
    assert run("features", picture, picture, "-o", "all.npz").stdout == "all.npz\n"
    with np.load("all.npz") as saved:
        assert np.array_equal(saved["features"], expected)
        assert saved["layers"].tolist() == [0, 1, 2, 3] and saved["images"].tolist() == [str(picture)] * 2
    record = json.loads(run("features", picture, "-o", "two.npz", "--layers", "3,0", "--json").stdout)
    assert record == {
        "output": "two.npz", "images": 1, "layers": [3, 0], "n_embd": 32, "protocol": "hf", "pool": "mean",
        "skipped": [],
    }  # fmt: skip
    with np.load("two.npz") as saved:
        assert np.abs(saved["features"] - expected[:1, [3, 0]]).max() <= 1e-6


def test_crop(run: Run, picture: Path, tiny_bundle: Path) -> None:
    session = open_session(tiny_bundle)
    record = json.loads(run("complete", picture, "-n", 1, "--crop", "--json").stdout)
    assert record["tokens"] == complete(session, picture, GenerationOptions(1), crop=True).tokens.tolist()
    record = json.loads(run("classify", picture, "--crop", "--json").stdout)
    expected = classify(session, [picture], crop=True)[0]
    assert np.allclose(list(record[0]["probabilities"].values()), expected, atol=1e-6)


def test_info(run: Run, tiny_bundle: Path) -> None:
    lines = dict(line.split(": ", 1) for line in run("info").stdout.splitlines())
    assert lines["path"].strip() == str(tiny_bundle)
    assert lines["model"].strip() == "3 layers x 32 wide, 4 heads, quick_gelu"
    assert lines["pictures"].strip() == "8x8, 16 colours"
    assert lines["classifier"].strip() == "3 labels on layer 1 (paper)"
    record = json.loads(run("info", "--json").stdout)
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert record == {**manifest, "provider": "CPUExecutionProvider"}


def test_info_shows_the_certificate(run: Run, bundle_of: Callable[[str, str], Path]) -> None:
    assert "drawing" not in run("info").stdout
    result = CliRunner().invoke(main, ["info", "--model", str(bundle_of("int8", "int8"))])
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert lines["precision"].strip() == "int8, cache int8"
    for graph, name in (("prefill", "prefilling"), ("decode", "drawing")):
        loss = open_session(bundle_of("int8", "int8")).manifest.certificate[graph]["held_out"]
        assert lines[name].strip().startswith(f"{loss['increase']:+.4f} nats per token, KL ")


# Processes: pipes, signals, a full disk


def test_pipes(picture: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    data = picture.read_bytes()
    done = pipe("complete", "-", "-n", 1, "-o", "-", "--model", tiny_bundle, stdin=data, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr.startswith(b"1 pictures in ") and done.stderr.count(b"\n") == 1
    with Image.open(io.BytesIO(done.stdout)) as sheet:
        assert sheet.format == "PNG"
    assert files(tmp_path) == []
    done = pipe("features", "-", "-o", "-", "--model", tiny_bundle, stdin=data)
    with np.load(io.BytesIO(done.stdout)) as saved:
        assert saved["features"].shape == (1, 4, 32)
    done = pipe("complete", "-", "-n", 1, "--model", tiny_bundle, stdin=data, cwd=tmp_path)
    assert done.stdout == b"stdin-completed.png\n" and files(tmp_path) == ["stdin-completed.png"]
    done = pipe("classify", "-", "--model", tiny_bundle, stdin=data)
    assert done.stdout.startswith(b"-: ") and done.stderr == b""


def test_reader_that_has_gone(tiny_bundle: Path) -> None:
    command = [*COMMAND, "sample", "-n", "64", "--scale", "64", "-o", "-", "--model", str(tiny_bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() != 0


@pytest.mark.parametrize("command", ["sample -o -", "info", "info --json"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_stdout(tiny_bundle: Path, command: str) -> None:
    with open("/dev/full", "wb") as full:
        arguments = [*COMMAND, *command.split(), "--model", str(tiny_bundle)]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == "Error: No space left on device" and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["sample -o a.png", "sample -o a.png --gif --force"])
def test_full_disk(tiny_bundle: Path, tmp_path: Path, command: str) -> None:
    arguments = command.split()
    old = tmp_path / arguments[arguments.index("-o") + 1]
    if "--force" in arguments:
        old.write_bytes(b"old")
    before = files(tmp_path)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    done = pipe(*arguments, "--model", tiny_bundle, cwd=tmp_path, preexec_fn=limit)
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.decode().startswith(f"Error: cannot write '{old.name}': File too large; ")
    assert done.stderr.count(b"\n") == 1
    assert files(tmp_path) == before and (not before or old.read_bytes() == b"old")


def test_interrupt_leaves_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from igpt_runtime import cli
module = sys.modules["igpt_runtime.tasks.complete"]
original, done = module.generate_all, []
def generate_all(session, primer, options, progress):
    def interrupt(tokens):
        progress(tokens)
        done.append(tokens)
        if len(done) == 30:
            os.kill(os.getpid(), signal.SIGINT)
    return original(session, primer, options, interrupt)
module.generate_all = generate_all
cli.main()
"""
    command = [sys.executable, "-c", code, "sample", "-n", "3000", "-o", "a.png", "--model", str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.split() == ["Aborted!"] and files(tmp_path) == []


# Refusals

COMPLETE = [
    pytest.param(["-n", "0"], "n must be 1 .. 65536, got 0", id="n"),
    pytest.param(["-n", "100000000000", "--separate"], "n must be 1 .. 65536", id="n-huge"),
    pytest.param(["-n", "two"], "Invalid value for '-n': 'two' is not a valid integer.", id="n not a number"),
    pytest.param(["--seed", "-1"], "seed must be in 0 .. 2**64 - 1, got -1", id="seed"),
    pytest.param(["--seed", 2**64], f"seed must be in 0 .. 2**64 - 1, got {2**64}", id="large seed"),
    pytest.param(["--temperature", "-1"], "temperature must be a finite number of at least 0", id="temperature"),
    pytest.param(["--temperature", "nan"], "temperature must be a finite number of at least 0", id="nan"),
    pytest.param(["--temperature", "inf"], "temperature must be a finite number of at least 0", id="inf"),
    pytest.param(["--top-k", "-1"], "top-k must be at least 0 (0 is off), got -1", id="top-k"),
    pytest.param(["--top-p", "0"], "top-p must be above 0 and at most 1 (1 is off), got 0.0", id="top-p 0"),
    pytest.param(["--top-p", "1.5"], "top-p must be above 0 and at most 1 (1 is off), got 1.5", id="top-p 1.5"),
    pytest.param(["--scale", "0"], "scale must be 1 .. 64, got 0", id="scale 0"),
    pytest.param(["--scale", "65"], "scale must be 1 .. 64, got 65", id="scale 65"),
    *(
        pytest.param(["--keep", keep], f"keep {keep!r} is {rows} rows; it must be 0 .. 7 of the picture's 8", id=keep)
        for keep, rows in (("2.0", 16), ("8", 8), ("-1", -1), ("100%", 8), ("1.0", 8), ("-5%", 0), ("200%", 16))
        if rows
    ),
    *(
        pytest.param(
            ["--keep", keep],
            f"keep must be top-half, a fraction like 0.25, or a number of rows; got {keep!r}",
            id=f"keep {keep}",
        )
        for keep in ("abc", "", "%", "nan%", "inf%", "1e400%", "0.x", "bottom-half")
    ),
    pytest.param(["-o", "a.xyz"], "cannot write a picture as '.xyz'; use one of .png", id="suffix"),
    pytest.param(["-o", "-", "--gif"], "--separate and --gif need a file name", id="animation on stdout"),
    pytest.param(["-o", "-", "--separate"], "--separate and --gif need a file name", id="singles on stdout"),
    pytest.param(["-o", "a.gif", "--gif"], "the contact sheet and the animation would both be a.gif", id="one name"),
    pytest.param(["-o", "none/a.png"], "cannot write 'none/a.png': no directory none; create", id="no directory"),
    pytest.param(["-o", "file.txt/a.png"], "cannot write 'file.txt/a.png': no directory file.txt", id="below a file"),
    pytest.param(["-o", "."], "'.' names no file; give -o the name of a picture", id="no-name"),
    pytest.param(["-o", ".", "--gif"], "'.' names no file", id="no-name-gif"),
    pytest.param(["-o", ".."], "cannot write '..': it is a directory; name a file in it", id="directory"),
    pytest.param(["-o", "./out.gif", "--gif"], "the contact sheet and the animation would both be", id="gif-twice"),
    pytest.param(["-o", "-", "--json"], "--json and -o - would both write to stdout", id="stdout-twice"),
    pytest.param(["-o", "old.png"], "old.png exists; add --force to overwrite it", id="exists"),
    pytest.param(["-o", "new.png", "--separate"], "new-2.png exists; add --force to overwrite it", id="single exists"),
    pytest.param(["--device", "cuda"], "CUDA was asked for but this onnxruntime has no CUDA provider", id="cuda"),
    pytest.param(["--device", "tpu"], "Invalid value for '--device': 'tpu' is not one of", id="device"),
    pytest.param(["--no-such-option"], "No such option '--no-such-option'", id="option"),
]


@pytest.mark.parametrize(("arguments", "expected"), COMPLETE)
def test_bad_options(
    refused: Refused, tiny_bundle: Path, picture: Path, tmp_path: Path, arguments: list[object], expected: str
) -> None:
    for name in ("file.txt", "old.png", "new-2.png"):
        (tmp_path / name).write_text("mine")
    assert refused(main, "complete", picture, "--model", tiny_bundle, *arguments).startswith(expected)


def huge_png() -> bytes:
    """A small PNG file of 12000x12000 black pixels, as its header has it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 12000, 12000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(12000 * (1 + 12000 // 8)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


PICTURES = {
    "text": (b"no picture", "is not a PNG, JPEG, WebP, GIF or BMP picture; convert it to one of these"),
    "empty": (b"", "is not a PNG, JPEG, WebP, GIF or BMP picture; convert it to one of these"),
    "cut short": (None, "is damaged or cut short ("),
    "bomb": (huge_png(), "has more than 89478485 pixels; make it smaller first"),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("command", ["complete", "classify", "features -o a.npz"])
def test_bad_pictures(
    refused: Refused, tiny_bundle: Path, picture: Path, tmp_path: Path, command: str, kind: str
) -> None:
    data, expected = PICTURES[kind]
    if data is None:
        data = picture.read_bytes()[:-500]
    (tmp_path / "bad.png").write_bytes(data)
    assert refused(main, *command.split(), "bad.png", "--model", tiny_bundle).startswith(f"'bad.png' {expected}")
    line = refused(main, *command.split(), "-", "--model", tiny_bundle, stdin=data)
    assert line.startswith(f"the given picture {expected}")


@pytest.mark.parametrize("command", ["complete", "classify", "features -o a.npz"])
def test_no_picture(refused: Refused, tiny_bundle: Path, command: str) -> None:
    assert refused(main, *command.split(), "no.png", "--model", tiny_bundle) == "'no.png': no such file; check the path"
    of_directory = refused(main, *command.split(), ".", "--model", tiny_bundle)
    assert of_directory.startswith("'.' holds no pictures" if "features" in command else "'.' is a directory; name a ")
    assert refused(main, *command.split(), "--model", tiny_bundle).startswith("Missing argument 'IMAGE")


def test_process_shows_one_line_of_a_bomb(tiny_bundle: Path) -> None:
    """Pillow's own warning is not shown; in a process, as the test runner changes what warnings do."""
    done = pipe("classify", "-", "--model", tiny_bundle, stdin=huge_png())
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr == b"Error: the given picture has more than 89478485 pixels; make it smaller first\n"


def test_closed_stdin(tiny_bundle: Path) -> None:
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "classify", "-", "--model", str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: standard input is closed; name a picture file\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--layers", "99"], "layers must be of 0 .. 3 for this bundle, got 99"),
        (["--layers", "0,-1"], "layers must be of 0 .. 3 for this bundle, got 0, -1"),
        (["--layers", "0,last"], "--layers must be all, or numbers like 9,12,18; got '0,last'"),
        (["-o", "a.csv"], "features are written as .npz or .parquet; give -o such a name, not 'a.csv'"),
        (["-o", "old.npz"], "old.npz exists; add --force to overwrite it, or choose another output"),
        (["-o", "none/a.npz"], "cannot write 'none/a.npz': no directory none; create its directory first"),
    ],
)
def test_bad_feature_options(
    refused: Refused, tiny_bundle: Path, picture: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "old.npz").write_text("mine")
    assert refused(main, "features", picture, "-o", "a.npz", "--model", tiny_bundle, *arguments) == expected


@pytest.mark.parametrize("command", ["complete photo", "sample", "classify photo", "features photo -o a.npz", "info"])
def test_bad_bundles(
    refused: Refused,
    bundle_copy: Path,
    picture: Path,
    tmp_path: Path,
    edit_manifest: Callable[[Path, Callable[[dict[str, Any]], Any]], None],
    command: str,
) -> None:
    arguments = [str(picture) if argument == "photo" else argument for argument in command.split()]
    (tmp_path / "empty").mkdir()
    assert refused(main, *arguments, "--model", "empty").startswith("empty is not a bundle: it has no manifest.json")
    assert refused(main, *arguments, "--model", "none") == "no bundle at none; make one with igpt-export"
    if command != "info":
        weights = (bundle_copy / "weights.safetensors").read_bytes()
        (bundle_copy / "weights.safetensors").write_bytes(weights[:-1])
        assert f"bytes instead of {len(weights)}" in refused(main, *arguments, "--model", bundle_copy)
    edit_manifest(bundle_copy, lambda record: record.update(format_version=99))
    assert "has format_version 99, this igpt-run reads 6" in refused(main, *arguments, "--model", bundle_copy)
    (bundle_copy / "manifest.json").write_text("{")
    assert "manifest.json is not valid JSON" in refused(main, *arguments, "--model", bundle_copy)
