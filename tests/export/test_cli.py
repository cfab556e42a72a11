"""The command `igpt-export`: a verified bundle, or one line and nothing changed, whatever stops it."""

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from igpt_export import export
from igpt_export.checkpoint.checkpoint import Checkpoint
from igpt_export.cli import main
from igpt_runtime.engine.generate import GenerationOptions
from igpt_runtime.engine.session import open_session
from igpt_runtime.tasks.sample import sample

Refused = Callable[..., str]


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def run(*arguments: object) -> tuple[str, str]:
    """Run the command well; returns stdout and stderr."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_export_to_the_default_output(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stdout, stderr = run("--checkpoint", tiny_checkpoint)
    prefill, decode, shared, output = stdout.splitlines()
    assert prefill.startswith("verified prefill: largest difference ") and " over 64 positions" in prefill
    assert decode.startswith("verified decode: largest difference ") and " over 64 positions" in decode
    assert shared.startswith("verified decode_shared: largest difference ") and " over 64 positions" in shared
    assert output == "models/tiny-fp32"
    stages = ["writing weights", "tracing graphs", "verifying against torch"]
    begun = [line for line in stderr.splitlines() if " s ..." not in line]  # but how far a long stage is
    assert begun == ["starting: loading torch ...", *(f"exporting: {stage} ..." for stage in stages)]
    bundle = Path(output)
    assert {path.name for path in bundle.iterdir()} == {
        "manifest.json", "prefill.onnx", "decode.onnx", "decode_shared.onnx", "preprocess.onnx", "postprocess.onnx",
        "weights.safetensors", "README.md",
    }  # fmt: skip
    assert [path.name for path in Path("models").iterdir()] == ["tiny-fp32"]  # no staging directory
    (tmp_path / "file").touch()
    mode = stat.S_IMODE((tmp_path / "file").stat().st_mode)
    assert {stat.S_IMODE(path.stat().st_mode) for path in bundle.iterdir()} == {mode}
    assert len(sample(open_session(bundle), GenerationOptions(2)).images) == 2


def test_force_replaces_a_bundle(tiny_checkpoint: Path, bundle_copy: Path) -> None:
    before = (bundle_copy / "weights.safetensors").read_bytes()
    (bundle_copy / "weights.safetensors").write_bytes(b"damaged")
    stdout, _ = run("--checkpoint", tiny_checkpoint, "--output", bundle_copy, "--force", "--json")
    record = json.loads(stdout)
    assert record["output"] == str(bundle_copy) and record["name"] == "tiny"
    assert 0 < record["verification"]["prefill_max_abs_diff"] < record["verification"]["tolerance"]
    assert 0 < record["verification"]["decode_max_abs_diff"] < 1e-4
    assert (bundle_copy / "weights.safetensors").read_bytes() == before
    assert [path.name for path in bundle_copy.parent.iterdir()] == [bundle_copy.name]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param([], "give exactly one of --variant and --checkpoint", id="nothing"),
        pytest.param(["--variant", "small", "--checkpoint", "x"], "give exactly one of --variant", id="both"),
        pytest.param(["--checkpoint", "x", "--random-weights"], "--random-weights needs --variant", id="no variant"),
        pytest.param(["--variant", "demo", "--random-weights"], "--random-weights needs --variant", id="demo"),
        pytest.param(["--variant", "huge"], "Invalid value for '--variant': 'huge' is not one of", id="variant"),
        pytest.param(["--variant", "small", "--seed", "x"], "Invalid value for '--seed': 'x' is not", id="seed"),
        pytest.param(
            ["--variant", "small", "--random-weights", "--seed", "-1"], "seed -1 is out of range", id="seed -1"
        ),
        pytest.param(["--checkpoint", "x", "more"], "Got unexpected extra argument (more)", id="argument"),
    ],
)
def test_usage(refused: Refused, arguments: list[str], expected: str) -> None:
    assert refused(main, *arguments).startswith(expected)


def test_existing_output(refused: Refused, tiny_checkpoint: Path, tmp_path: Path, bundle_copy: Path) -> None:
    arguments = ["--checkpoint", tiny_checkpoint, "--output"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("all of it")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(bundle_copy)
    for name in ("bundle", "mine", "file", "link"):
        line = refused(main, *arguments, name)
        assert line == f"{name} exists; add --force to replace it, or choose another --output"
    for name in ("mine", "file", "link"):
        line = refused(main, *arguments, name, "--force")
        assert line == f"{name} exists and is not a bundle; --force does not replace it, choose another --output"


def test_force_spares_what_others_call_a_manifest(refused: Refused, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "my app", "manifest_version": 3}')
    line = refused(main, "--checkpoint", tiny_checkpoint, "--output", "app", "--force")
    assert line.startswith("app exists and is not a bundle")


def test_unwritable_output(refused: Refused, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    line = refused(main, "--checkpoint", tiny_checkpoint, "--output", "file/bundle")
    assert line.startswith("cannot write file") and line.endswith("; choose another --output")


def test_no_space_for_the_graphs(
    refused: Refused, tiny_checkpoint: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "decode.onnx")

    monkeypatch.setattr(export, "trace_graphs", full)
    line = refused(main, "--checkpoint", tiny_checkpoint, "--output", bundle_copy, "--force")
    assert line == f"no space left on the disk of {bundle_copy}; free some or choose another --output"


@pytest.mark.parametrize("existing", [False, True], ids=["new", "replaced"])
def test_full_disk(tiny_checkpoint: Path, bundle_copy: Path, tmp_path: Path, existing: bool) -> None:
    before = snapshot(tmp_path)
    output = bundle_copy if existing else tmp_path / "new"
    command = [sys.executable, "-m", "igpt_export", "--checkpoint", str(tiny_checkpoint), "--output", str(output)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    done = subprocess.run([*command, "--force"], capture_output=True, text=True, check=False, preexec_fn=limit)
    *others, line = done.stderr.splitlines()
    assert done.returncode == 1 and done.stdout == ""
    assert line.startswith(f"Error: cannot write {output}") and "choose another --output" in line
    assert all(other.endswith(" ...") for other in others)
    assert snapshot(tmp_path) == before and list(tmp_path.iterdir()) == [bundle_copy]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGKILL"])
def test_signal_in_the_middle(tiny_checkpoint: Path, bundle_copy: Path, tmp_path: Path, name: str) -> None:
    code = f"""
import os, signal
from igpt_export import cli, export
original = export.trace_graphs
def trace_graphs(*args, **kwargs):
    os.kill(os.getpid(), signal.{name})
    return original(*args, **kwargs)
export.trace_graphs = trace_graphs
cli.main()
"""
    before = snapshot(bundle_copy)
    arguments = ["--checkpoint", str(tiny_checkpoint), "--output", str(bundle_copy), "--force"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    number = getattr(signal, name)
    assert done.returncode == {"SIGINT": 1, "SIGKILL": -number}.get(name, 128 + number)
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert snapshot(bundle_copy) == before
    if name == "SIGKILL":  # which leaves nobody to clean up but the next run
        assert len(list(tmp_path.iterdir())) == 2
        done = subprocess.run(
            [sys.executable, "-c", "from igpt_export.cli import main; main()", *arguments], check=False
        )
        assert done.returncode == 0
    assert list(tmp_path.iterdir()) == [bundle_copy]


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_signal_while_torch_traces(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    """Torch would log an exception there, or end the process at it."""
    code = f"""
import os, signal
from igpt_export import cli
from igpt_export.graphs import trace
original = trace._Pieces.forward
def forward(*tensors):
    os.kill(os.getpid(), signal.{name})
    return original(*tensors)
trace._Pieces.forward = forward
cli.main()
"""
    arguments = ["--checkpoint", str(tiny_checkpoint), "--output", "bundle", "--progress", "never"]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == (1 if name == "SIGINT" else 128 + getattr(signal, name))
    assert done.stderr.strip() == ("Aborted!" if name == "SIGINT" else "") and done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"layer_norm_epsilon": 0.5}, id="epsilon"),
        pytest.param({"activation_function": "relu"}, id="activation", marks=pytest.mark.slow),
    ],
)
def test_graphs_that_disagree_with_torch(
    refused: Refused,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
) -> None:
    original = export.trace_graphs

    def wrong(checkpoint: Checkpoint, *args: Any, **kwargs: Any) -> dict[str, ir.Model]:
        return original(replace(checkpoint, config=replace(checkpoint.config, **change)), *args, **kwargs)

    monkeypatch.setattr(export, "trace_graphs", wrong)
    line = refused(main, "--checkpoint", tiny_checkpoint, "--output", tmp_path / "bundle")
    assert line.startswith("the exported graphs disagree with torch: logits differ by ")
    assert line.endswith("; nothing was kept - please report this checkpoint")


def test_without_the_exporters_packages(tiny_checkpoint: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from igpt_export.cli import main; main()"
    command = [sys.executable, "-c", code, "--checkpoint", str(tiny_checkpoint), "--output", str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and line.startswith("Error: exporting needs more packages (")
    assert (
        line.endswith("; in the source tree of igpt-onnx, run: pip install -c constraints.txt '.[export]'")
        and list(tmp_path.iterdir()) == []
    )


def damage(directory: Path, kind: str) -> None:
    """Damage a checkpoint directory."""
    weights = directory / "model.safetensors"
    if kind == "missing":
        directory.rename(directory.with_name("elsewhere"))
    elif kind == "empty":
        for path in directory.iterdir():
            path.unlink()
    elif kind == "corrupt weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "no weights":
        weights.unlink()
    elif kind == "bad config":
        (directory / "config.json").write_text("{")
    else:
        tensors = load_file(weights)
        tensors["transformer.h.1.mlp.c_fc.weight"][3, 4] = np.nan
        save_file(tensors, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("missing", "no such directory"),
        ("empty", "config.json: no such file"),
        ("corrupt weights", "model.safetensors"),
        ("no weights", "model.safetensors"),
        ("bad config", "config.json: not valid JSON"),
        ("not a number", "transformer.h.1.mlp.c_fc.weight"),
    ],
)
def test_bad_checkpoint(refused: Refused, tiny_checkpoint: Path, tmp_path: Path, kind: str, expected: str) -> None:
    checkpoint = copytree(tiny_checkpoint, tmp_path / "tiny")
    damage(checkpoint, kind)
    line = refused(main, "--checkpoint", checkpoint, "--output", tmp_path / "bundle")
    assert str(checkpoint) in line and expected in line


@pytest.mark.parametrize("arguments", ["--variant demo -o bundle", "--help", "--version"])
def test_closed_stdout(tmp_path: Path, arguments: str) -> None:
    """It is said at once, and not after an export."""
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "igpt_export", *arguments.split()]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and list(tmp_path.iterdir()) == []
    assert done.stderr == "Error: standard output is closed; leave it open, or send it to a file or to /dev/null\n"
