"""`igpt-run` as a process: pipes, signals, a full disk, and progress without a terminal."""

import contextlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from PIL import Image

from igpt_runtime import console
from igpt_runtime.web.site import ONNXRUNTIME_WEB

try:
    import pty
except ImportError:  # Windows
    pty = None

Run = Callable[..., Result]
Refused = Callable[..., str]
COMMAND = [sys.executable, "-m", "igpt_runtime"]


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def pipe(*arguments: object, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a process of its own."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, **options)


def test_pipes(picture: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    data = picture.read_bytes()
    done = pipe("complete", "-", "-n", 1, "-o", "-", "--model", tiny_bundle, stdin=data, cwd=tmp_path)
    assert (
        done.returncode == 0
        and done.stderr.startswith(b"kept 4 of 8 rows; 1 picture in ")
        and done.stderr.count(b"\n") == 1
    )
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


def test_a_graph_that_asks_for_too_much(
    picture: Path, bundle_copy: Path, replace_file: Callable[[Path, str, bytes], None], tmp_path: Path
) -> None:
    """ONNX Runtime's log of it, in colours, is not shown besides the error."""
    model = onnx.ModelProto.FromString((bundle_copy / "decode.onnx").read_bytes())
    model.graph.initializer.append(onnx.helper.make_tensor("huge", onnx.TensorProto.INT64, [1], [2**62]))
    model.graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["huge"], ["unused"]))
    replace_file(bundle_copy, "decode.onnx", model.SerializeToString())
    done = pipe("complete", picture, "-n", 1, "--model", bundle_copy, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"\x1b" not in done.stderr


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
import igpt_runtime.tasks.sample
module = sys.modules["igpt_runtime.tasks.sample"]
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


@pytest.mark.parametrize("mode", ["auto", "always", "never"])
def test_progress_without_a_terminal(tiny_bundle: Path, tmp_path: Path, mode: str) -> None:
    done = pipe("sample", "-n", 2, "--progress", mode, "--model", tiny_bundle, cwd=tmp_path)
    *lines, summary = done.stderr.decode().splitlines()
    assert done.returncode == 0 and summary.startswith("from nothing; 2 pictures in ")
    if mode == "always":
        assert lines[0].startswith("sampling: 0 of 128 tokens, ") and lines[-1].startswith(
            "sampling: 128 of 128 tokens"
        )
    else:
        assert lines == []  # it was over before a line was due


def test_long_work_is_never_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line every few seconds, also while the work itself says nothing."""
    monkeypatch.setattr(console, "_SHORTEST", 0.05)
    with console.counted("fitting", 7, "layers") as advance:
        time.sleep(0.4)
        advance(2)
        time.sleep(0.4)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("fitting: 0 of 7 layers") and lines[-1].startswith("fitting: 2 of 7 layers")
    with console.stages("exporting") as progress:
        progress.stage("writing weights")
        progress.count(1_000_000, 3_000_000, "bytes")
        time.sleep(0.4)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "exporting: writing weights ..."
    assert lines[-1] == "exporting: writing weights: 1 of 3 MB, 0 s ..."


@pytest.mark.skipif(pty is None, reason="no pseudo terminals")
def test_a_bar_on_a_terminal(tiny_bundle: Path, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [*COMMAND, "sample", "-n", "512", "--model", str(tiny_bundle), "--threads", "1"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(
        command, stderr=follower, stdout=subprocess.PIPE, cwd=tmp_path, env=environment
    ) as process:  # fmt: skip
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # how the end of the other side is told
            while part := os.read(leader, 4096):
                shown += part
        os.close(leader)
        assert process.stdout is not None and process.stdout.read() == b"samples.png\n"
    assert process.returncode == 0
    assert b"sampling" in shown and b"tokens/s" in shown


PRINTING = [
    "sample -n 1 -o -", "sample -n 1 -o out.png", "complete photo -n 1 -o -", "complete photo -n 1 --json",
    "classify photo -o -", "classify photo -o out.csv", "classify photo --json", "features photo -o -",
    "features photo -o out.npz", "score photo", "score photo -o -", "info", "info --json", "bench", "doctor",
    "web --no-open --port 0", "--help", "--version", "sample --help", "probe fit --help",
]  # fmt: skip


@pytest.mark.parametrize("command", PRINTING)
def test_closed_stdout(picture: Path, tmp_path: Path, command: str) -> None:
    """It is said at once, before anything is done or written."""
    arguments = [str(picture) if word == "photo" else word for word in command.split()]
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *arguments]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and files(tmp_path) == []
    assert done.stderr == "Error: standard output is closed; leave it open, or send it to a file or to /dev/null\n"


@pytest.mark.parametrize("command", [name for name in PRINTING if name != "bench"])
def test_nobody_reads(picture: Path, tmp_path: Path, command: str) -> None:
    """As after `| head -c0`: it ends quietly, as other tools do."""
    arguments = [str(picture) if word == "photo" else word for word in command.split()]
    if "web" in arguments:
        (tmp_path / "dist").mkdir()
        for name in ONNXRUNTIME_WEB:
            (tmp_path / "dist" / name).touch()
        arguments += ["--onnxruntime-web", "dist"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path
        )
    finally:
        os.close(writer)
    assert done.returncode == 1
    # What was drawn is told before where it is.
    assert re.fullmatch(r"((kept|from nothing)[^\n]*\n)?", done.stderr)


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
def test_progress_does_not_end_the_work(tiny_bundle: Path, picture: Path, tmp_path: Path, where: str) -> None:
    """Nor does it come among the results."""
    arguments = ["classify", str(picture), "--progress", "always", "--json", "--model", str(tiny_bundle)]
    shell = ["sh", "-c", f'exec "$@" {where}', "sh", *COMMAND, *arguments]
    done = subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0 and len(json.loads(done.stdout)["images"]) == 1


def test_stages_without_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with console.stages("exporting") as progress:
        progress.stage("writing weights")
    assert capsys.readouterr().out == ""


def test_a_pipe_named_as_a_file(tiny_bundle: Path, tmp_path: Path) -> None:
    done = pipe("sample", "-n", 1, "-o", "/dev/stdout", "--model", tiny_bundle, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith(b"\x89PNG")


def test_nothing_is_kept_that_cannot_be_found_again(tiny_bundle: Path, picture: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        arguments = [*COMMAND, "features", str(picture), "-o", "-", "--model", str(tiny_bundle)]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "kept" not in done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT"])
@pytest.mark.parametrize("output", ["a.png", "-"])
def test_signals_leave_nothing(tiny_bundle: Path, picture: Path, tmp_path: Path, name: str, output: str) -> None:
    """Neither beside the output, nor where features of standard output are kept."""
    code = f"""
import os, signal
from igpt_runtime import cli, files
import igpt_runtime.tasks.feature_files as feature_files
def stop(*_):
    os.kill(os.getpid(), signal.{name})
files._flush = stop
feature_files.check_stdout_open = stop
cli.main()
"""
    command = ["sample", "-n", "1"] if output == "a.png" else ["features", str(picture)]
    arguments = [sys.executable, "-c", code, *command, "-o", output, "--model", str(tiny_bundle)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 128 + getattr(signal, name) and done.stdout == "" and "Traceback" not in done.stderr
    assert files(tmp_path) == []


def test_a_library_that_makes_another_exception_of_a_signal(tiny_bundle: Path, tmp_path: Path) -> None:
    code = """
import os, signal
from igpt_runtime import cli, files
def stop(*_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException as error:
        raise RuntimeError("of a library") from error
files._flush = stop
cli.main()
"""
    command = [sys.executable, "-c", code, "sample", "-n", "1", "-o", "a.png", "--model", str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 128 + signal.SIGTERM and done.stderr == "" and files(tmp_path) == []


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal here")
def test_nohup_is_obeyed(tiny_bundle: Path, tmp_path: Path) -> None:
    code = """
import os, signal
from igpt_runtime import cli, files
flush = files._flush
files._flush = lambda path: (os.kill(os.getpid(), signal.SIGHUP), flush(path))
cli.main()
"""
    command = ["nohup", sys.executable, "-c", code, "sample", "-n", "1", "-o", "a.png", "--model", str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 0 and files(tmp_path) == ["a.png"]


def test_a_long_name(tiny_bundle: Path, picture: Path, tmp_path: Path) -> None:
    """The name of a picture may leave no room for that of its completion, which is said before the work."""
    name = "a" * 246 + ".png"
    (tmp_path / name).write_bytes(picture.read_bytes())
    done = pipe("complete", name, "-n", 1, "--model", tiny_bundle, cwd=tmp_path)
    assert done.returncode == 1 and b"File name too long; choose a shorter name with -o" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert pipe("complete", name, "-n", 1, "-o", "b.png", "--model", tiny_bundle, cwd=tmp_path).returncode == 0
    done = pipe("score", name, "--maps", "maps", "--model", tiny_bundle, cwd=tmp_path)
    assert done.returncode == 1 and b"or rename the picture" in done.stderr and done.stderr.count(b"\n") == 1
    done = pipe("features", name, "-o", "b" * 246 + ".npz", "--model", tiny_bundle, cwd=tmp_path)
    assert done.returncode == 1 and b"File name too long" in done.stderr and done.stderr.count(b"\n") == 1
