"""A graph that fails while it runs is told by one line: the log of ONNX Runtime has names that others chose."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from igpt_runtime import complete, open_session
from igpt_runtime.engine.generate import GenerationOptions
from igpt_runtime.errors import BundleError

ROOT = Path(__file__).parents[2]
OPEN = ROOT / "tests/hostile/fuzz/open.mjs"
needs_node = pytest.mark.skipif(
    not shutil.which("node") or not (ROOT / "runtime/js/node_modules").is_dir(), reason="needs Node and `make js`"
)


@pytest.fixture
def failing(bundle_copy: Path, replace_file: Callable[[Path, str, bytes], None]) -> Path:
    """A bundle whose decode graph reads beyond a tensor, with a right hash, and a name that a terminal would obey."""
    path = bundle_copy / "decode.onnx"
    graph = onnx.load_model(path, load_external_data=False)
    (gather,) = (node for node in graph.graph.node if node.name.endswith("node_select"))
    gather.name = "\x1b]0;owned\x07"
    (index,) = (tensor for tensor in graph.graph.initializer if tensor.name == gather.input[1])
    index.CopyFrom(numpy_helper.from_array(np.array(1 << 60, np.int64), index.name))
    replace_file(bundle_copy, "decode.onnx", graph.SerializeToString())
    return bundle_copy


def run(*command: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*map(str, command)], capture_output=True, check=False)


def controls(text: bytes) -> set[int]:
    return {byte for byte in text if (byte < 32 and byte != 10) or byte == 127}


def test_in_python(failing: Path, picture: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "igpt_runtime", "complete", picture, "-n", 1, "--output-dir", tmp_path / "out"]
    done = run(*command, "--model", failing)
    assert done.returncode == 1 and controls(done.stderr) == set()
    assert len(done.stderr.splitlines()) == 1 and b"decode" in done.stderr


@needs_node
def test_in_node(failing: Path) -> None:
    done = run("node", OPEN, failing)
    assert done.stderr == b""
    found = json.loads(done.stdout)
    assert found["ours"] and "in the decode graph" in found["error"]
    assert controls(found["error"].encode()) == set()


@pytest.fixture
def nameless(bundle_copy: Path, replace_file: Callable[[Path, str, bytes], None]) -> Path:
    """A bundle whose decode graph calls an input by what is no UTF-8, with a right hash."""
    content = (bundle_copy / "decode.onnx").read_bytes()
    replace_file(bundle_copy, "decode.onnx", content.replace(b"past_length", b"past_leng\xffh"))
    return bundle_copy


def test_names_that_are_no_text(nameless: Path, picture: Path) -> None:
    with pytest.raises(BundleError, match="decode.onnx has names that are no text; export the bundle again"):
        complete(open_session(nameless), picture, GenerationOptions(n=1))


@needs_node
def test_a_name_of_two_lines_in_node(
    bundle_copy: Path, edit_manifest: Callable[[Path, Callable[[dict[str, Any]], Any]], None]
) -> None:
    edit_manifest(bundle_copy, lambda record: record.update(sampling_version="a\nb\u2028c"))
    found = json.loads(run("node", OPEN, bundle_copy).stdout)
    assert found["ours"] and "has sampling_version 'a b c', this" in found["error"]
