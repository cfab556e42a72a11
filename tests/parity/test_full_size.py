"""The real shapes with random weights: parity with transformers at every position, and the memory an export takes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from igpt_export.checkpoint.checkpoint import random_checkpoint
from igpt_export.checkpoint.config import config_of
from igpt_runtime import GenerationOptions, generate_all, open_session
from igpt_runtime.bundle import graph_io
from igpt_runtime.engine.generate import DecodeStep
from igpt_runtime.engine.kv_cache import new_cache

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
SEED = 7


# Linux counts the peak of a process from its parent's, so the parent is this small one and not the tests' process.
MEASURED = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def export(variant: str, output: Path, precision: str = "fp32") -> tuple[dict[str, Any], int]:
    """Run `igpt-export` as a user would; returns its JSON report and its peak memory in bytes."""
    command = [sys.executable, "-m", "igpt_export", "--variant", variant, "--random-weights", "--seed", str(SEED)]
    command += ["--precision", precision]
    command = [sys.executable, "-c", MEASURED, *command, "--output", str(output), "--json"]
    report, peak = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip().rsplit("\n", 1)
    return json.loads(report), int(peak) * 1024


def check_peak(variant: str, peak: int) -> None:
    """What an export may take: 1.5 GB and the weights of the largest layer."""
    config = config_of(variant)
    layer = 4 * config.n_embd * (4 * config.n_embd + 2 * config.inner_dim)
    assert peak < 1.5e9 + layer, f"{peak / 1e9:.2f} GB"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("small") / "bundle"
    _, peak = export("small", output)
    check_peak("small", peak)
    return output


@pytest.fixture(scope="module")
def theirs() -> transformers.ImageGPTForCausalImageModeling:
    """transformers' model with the weights the export makes up."""
    model = transformers.ImageGPTForCausalImageModeling(transformers.ImageGPTConfig()).eval()
    tensors = random_checkpoint("small", SEED).tensors
    model.load_state_dict({k if k.startswith("lm_head.") else f"transformer.{k}": v for k, v in tensors.items()})
    return model


@pytest.fixture(scope="module")
def input_ids() -> np.ndarray:
    return np.concatenate([[512], np.random.default_rng(0).integers(0, 512, 1023)])[None]


@pytest.fixture(scope="module")
def expected(theirs: transformers.ImageGPTForCausalImageModeling, input_ids: np.ndarray) -> dict[str, np.ndarray]:
    with torch.no_grad():
        outputs = theirs(torch.from_numpy(input_ids), output_hidden_states=True)
    hidden = {graph_io.hidden_state(i): h.numpy() for i, h in enumerate(outputs.hidden_states)}
    return {graph_io.LOGITS: outputs.logits.numpy(), **hidden}


def test_prefill_equals_transformers(small: Path, expected: dict[str, np.ndarray], input_ids: np.ndarray) -> None:
    graph = open_session(small, device="cpu").graph(graph_io.PREFILL)
    actual = graph.run(list(expected), {graph_io.INPUT_IDS: input_ids})
    for name, value in zip(expected, actual, strict=True):
        assert np.abs(expected[name] - value).max() <= TOLERANCE, name


def test_cached_decode_equals_transformers_at_every_position(
    small: Path, expected: dict[str, np.ndarray], input_ids: np.ndarray
) -> None:
    session = open_session(small, device="cpu")
    step = DecodeStep(session, new_cache(session.manifest, 1), GenerationOptions(), with_logits=True)
    for position in range(input_ids.shape[1]):
        step(input_ids[:, position : position + 1], position, np.zeros(1, np.float32))
        difference = np.abs(step.logits() - expected[graph_io.LOGITS][:, position]).max()
        assert difference <= TOLERANCE, position


def test_greedy_half_image_is_token_identical(
    small: Path, theirs: transformers.ImageGPTForCausalImageModeling, input_ids: np.ndarray
) -> None:
    start = torch.from_numpy(input_ids[:, :513])
    drawn = theirs.generate(
        start, attention_mask=torch.ones_like(start), max_length=1025, do_sample=False, pad_token_id=0
    )
    options = GenerationOptions(n=1, temperature=0.0)
    ours = generate_all(open_session(small, device="cpu"), input_ids[0, 1:513], options)
    assert (ours[0] == drawn[0, 1:].numpy()).all()


def test_a_row_does_not_depend_on_its_batch(small: Path, input_ids: np.ndarray) -> None:
    session = open_session(small, device="cpu")
    primer = input_ids[0, 1:993]
    one, five, nine = (generate_all(session, primer, GenerationOptions(n=n, seed=3)) for n in (1, 5, 9))
    assert (one == five[:1]).all() and (five == nine[:5]).all()  # nine share the primer's cache


@pytest.mark.parametrize("precision", ["int8", "int4", "fp16"])
def test_small_in_less_than_fp32(tmp_path: Path, input_ids: np.ndarray, precision: str) -> None:
    report, peak = export("small", tmp_path / "bundle", precision)
    check_peak("small", peak)
    for graph in ("prefill", "decode"):
        loss = report["certificate"][graph]["held_out"]
        assert loss["increase"] < 0.04
        assert 0 < loss["kl_divergence"] < {"int8": 0.001, "int4": 0.02, "fp16": 0.00001}[precision]
    session = open_session(tmp_path / "bundle", device="cpu")
    primer = input_ids[0, 1:993]
    drawn = generate_all(session, primer, GenerationOptions(n=7, seed=3))
    assert len(np.unique(drawn, axis=0)) == 7 and drawn.max() < 512


def test_medium_exports_verifies_and_completes(tmp_path: Path) -> None:
    report, peak = export("medium", tmp_path / "bundle")
    assert report["verification"]["decode_max_abs_diff"] <= TOLERANCE
    check_peak("medium", peak)  # less than the 1.8 GB of its weights
    session = open_session(tmp_path / "bundle", device="cpu")
    drawn = generate_all(session, np.arange(1000) % 512, GenerationOptions(n=2))
    assert drawn.shape == (2, 1024) and (drawn >= 0).all() and (drawn < 512).all()
