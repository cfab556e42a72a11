"""The fp16 graphs on ONNX Runtime's CUDA provider, as far as that can be seen without a GPU.

The provider is the real one, on a stand-in for CUDA that computes nothing. It has a kernel for every node, and it
captures a decode step as a CUDA graph.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from igpt_export.checkpoint.checkpoint import random_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.precision.precision import Precision
from igpt_runtime.bundle import graph_io

pytestmark = pytest.mark.slow

OnStandIn = Callable[[Sequence[object]], subprocess.CompletedProcess[str]]
HERE = Path(__file__).parent
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SHAPES = {"Concat", "Squeeze", "Unsqueeze", "Gather", "Cast"}  # what massaging shapes takes


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("small") / "bundle"
    export_bundle(random_checkpoint("small", 0), output, ExportOptions(Precision("fp16", "fp16")))
    return output


def placed(run: OnStandIn, graph: Path, *, capture: bool) -> tuple[dict[str, list[tuple[str, str]]], str]:
    """Operator and name of a graph's nodes by provider, and what ONNX Runtime says."""
    done = run([HERE / "placement.py", int(capture), graph])
    return json.loads(done.stdout)[str(graph)], done.stderr


@pytest.mark.parametrize("name", [graph_io.PREFILL, graph_io.DECODE])
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_every_node_that_computes_has_a_cuda_kernel(
    request: pytest.FixtureRequest, on_stand_in: OnStandIn, bundle_of: Callable[[str, str], Path], size: str, name: str
) -> None:
    bundle = bundle_of("fp16", "fp16") if size == "tiny" else request.getfixturevalue("small")
    decodes = name == graph_io.DECODE
    nodes, said = placed(on_stand_in, bundle / f"{name}.onnx", capture=decodes)
    layers = 3 if size == "tiny" else 24
    counts = Counter(operator for operator, _ in nodes[CUDA])
    fused = ("GroupQueryAttention", "QuickGelu", "SkipSimplifiedLayerNormalization", "MatMul")
    assert [counts[operator] for operator in fused[:3]] == [layers, layers, 2 * layers + 1]
    assert counts["MatMul"] + counts["Gemm"] >= 4 * layers + 1
    # Only ONNX Runtime's own rule for shapes puts nodes on the CPU.
    ruled = set(re.findall(r"Force fallback to CPU execution for node: (\S+) because the CPU execution path is", said))
    assert nodes.keys() == {CPU, CUDA} and {name for _, name in nodes[CPU]} <= ruled
    assert {operator for operator, _ in nodes[CPU]} <= SHAPES and len(nodes[CPU]) < 6
    assert decodes == ("This session will use the graph capture feature as requested by the user" in said)


def test_attention_in_fp32_has_none(on_stand_in: OnStandIn, tiny_bundle: Path) -> None:
    nodes, _ = placed(on_stand_in, tiny_bundle / "decode.onnx", capture=False)
    assert Counter(operator for operator, _ in nodes[CPU])["GroupQueryAttention"] == 3
    assert "GroupQueryAttention" not in {operator for operator, _ in nodes[CUDA]}


def test_a_step_is_one_launch_and_three_small_copies(
    on_stand_in: OnStandIn, bundle_of: Callable[[str, str], Path]
) -> None:
    done = on_stand_in([HERE / "counting.py", bundle_of("fp16", "fp16"), 3, 3, 2])
    loops = json.loads(done.stdout)
    assert [len(steps) for steps in loops] == [32] * 3
    for steps in loops:
        for before, after in pairwise(steps):
            difference = {name: after[name] - before[name] for name in after}
            # The position and the uniforms go up, the drawn tokens come down; once more the last logits, to be checked.
            downloads = 2 if after is steps[-1] else 1
            expected = {"captures": 0, "launches": 1, "uploads": 2, "downloads": downloads, "captured_copies": 0}
            assert difference == expected
    # One capture for each number of rows: the second loop replays the first one's.
    assert [steps[0]["captures"] for steps in loops] == [1, 1, 2]
    assert loops[-1][-1]["captured_copies"] == 0
