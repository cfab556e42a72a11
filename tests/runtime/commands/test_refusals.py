"""The one line with which `igpt-run` refuses what it cannot do."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from igpt_runtime.cli import main

Run = Callable[..., Result]
Refused = Callable[..., str]
COMMAND = [sys.executable, "-m", "igpt_runtime"]


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
        pytest.param(
            ["--keep", keep], f"keep {keep!r} was read as {read}; whole numbers are rows, 0 to 7, and", id=keep
        )
        for keep, read in (
            ("2.0", "the fraction 2.0 of 8 rows, which leaves nothing to draw"),
            ("1.0", "the fraction 1.0 of 8 rows, which leaves nothing to draw"),
            ("0.99", "the fraction 0.99 of 8 rows, which leaves nothing to draw"),
            ("8", "8 rows, which leaves nothing to draw"),
            ("-1", "-1 rows, which is less than nothing"),
            ("100%", "100% of 8 rows, which leaves nothing to draw"),
            ("-5%", "-5% of 8 rows, which is less than nothing"),
            ("200%", "200% of 8 rows, which leaves nothing to draw"),
        )
    ),
    *(
        pytest.param(
            ["--keep", keep],
            f"keep {keep!r} is not understood; give rows (8), a fraction (0.25, 25%) or top-half",
            id=f"keep {keep}",
        )
        for keep in ("abc", "", "%", "nan%", "inf%", "1e400%", "0.x", "bottom-half")
    ),
    pytest.param(["-o", "a.xyz"], "cannot write a picture as '.xyz'; use one of .png", id="suffix"),
    pytest.param(["-o", "-", "--gif"], "--separate, --size and --gif need a file name", id="animation on stdout"),
    pytest.param(["-o", "-", "--separate"], "--separate, --size and --gif need a file name", id="singles on stdout"),
    pytest.param(["-o", "a.gif", "--gif"], "the contact sheet and the animation would both be a.gif", id="one name"),
    pytest.param(["-o", "file.txt/a.png"], "cannot write 'file.txt/a.png': ", id="below a file"),
    pytest.param(["-o", "a.png", "--output-dir", "b"], "-o and --output-dir both say where", id="both"),
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
    "empty": (b"", "is empty; get the file again"),
    "cut short": (None, "is damaged or cut short ("),
    "bomb": (huge_png(), "has more than 89478485 pixels; make it smaller first"),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("command", ["complete", "classify", "features -o a.npz", "score"])
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


@pytest.mark.parametrize("command", ["complete", "classify", "features -o a.npz", "score"])
def test_no_picture(refused: Refused, tiny_bundle: Path, command: str) -> None:
    assert refused(main, *command.split(), "no.png", "--model", tiny_bundle) == "'no.png': no such file; check the path"
    assert refused(main, *command.split(), ".", "--model", tiny_bundle).startswith("'.' holds no pictures")
    twice = refused(main, *command.split(), "-", "-", "--model", tiny_bundle)
    assert twice.startswith("- was given more than once")
    assert refused(main, *command.split(), "--model", tiny_bundle).startswith("Missing argument 'IMAGE")


def test_process_shows_one_line_of_a_bomb(tiny_bundle: Path) -> None:
    """Pillow's own warning is not shown; in a process, as the test runner changes what warnings do."""
    command = [*COMMAND, "classify", "-", "--model", str(tiny_bundle)]
    done = subprocess.run(command, input=huge_png(), capture_output=True, check=False)
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
    assert "has format_version 99, this igpt-run reads 7" in refused(main, *arguments, "--model", bundle_copy)
    (bundle_copy / "manifest.json").write_text("{")
    assert "manifest.json is not valid JSON" in refused(main, *arguments, "--model", bundle_copy)


def test_one_sheet_is_of_one_picture(refused: Refused, tiny_bundle: Path, picture: Path) -> None:
    line = refused(main, "complete", picture, picture, "-o", "a.png", "--model", tiny_bundle)
    assert line == "-o names one contact sheet, but there are 2 pictures; use --output-dir"


def test_names_of_no_file(refused: Refused, tiny_bundle: Path, picture: Path, tmp_path: Path) -> None:
    model = ("--model", tiny_bundle)
    assert "names no file" in refused(main, "sample", "-o", "new/", *model)
    assert "names no file" in refused(main, "classify", picture, "-o", "new.csv/", *model)
    assert "--output-dir names no directory" in refused(main, "complete", picture, "--output-dir", "", *model)
    assert "--maps names no directory" in refused(main, "score", picture, "--maps", "", *model)


@pytest.mark.parametrize("content", ["[]", "{}", '{"a": 1}'])
def test_a_foreign_directory_is_not_taken_for_features(
    refused: Refused, tiny_bundle: Path, picture: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "a.npz.partial").mkdir()
    (tmp_path / "a.npz.partial" / "request.json").write_text(content)
    for force in ([], ["--force"]):
        line = refused(main, "features", picture, "-o", "a.npz", "--model", tiny_bundle, *force)
        assert line.startswith("a.npz.partial exists and holds no features")
