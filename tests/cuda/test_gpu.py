"""fp16 on a GPU against fp32 on the CPU, and CUDA graphs against runs without them; skipped where there is no GPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from igpt_runtime.bundle import graph_io
from igpt_runtime.engine import device
from igpt_runtime.engine.device import CUDA
from igpt_runtime.engine.generate import DecodeStep, GenerationOptions, generate_all, prefill, start_cache
from igpt_runtime.engine.session import Session, open_session

PRIMER = np.random.default_rng(2).integers(0, 16, 20)


@pytest.fixture
def gpu(bundle_of: Callable[[str, str], Path]) -> Session:
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider: install onnxruntime-gpu on a machine with a GPU")
    fp32 = onnxruntime.InferenceSession(bundle_of("fp32", "fp32") / "prefill.onnx", providers=[CUDA])
    if fp32.get_providers()[0] != CUDA:
        pytest.skip("ONNX Runtime's CUDA provider does not start here: no GPU, driver or CUDA libraries")
    return open_session(bundle_of("fp16", "fp16"), device="cuda")


def test_logits_are_those_of_fp32_on_the_cpu(gpu: Session, tiny_bundle: Path) -> None:
    tokens = np.random.default_rng(3).integers(0, 16, 64)
    inputs = np.concatenate([[16], tokens[:-1]])[None]
    exact = (
        open_session(tiny_bundle, device="cpu")
        .graph(graph_io.PREFILL)
        .run([graph_io.LOGITS], {graph_io.INPUT_IDS: inputs})[0]
    )
    whole = gpu.graph(graph_io.PREFILL).run([graph_io.LOGITS], {graph_io.INPUT_IDS: inputs})[0]
    slots = prefill(gpu, tokens[:32])
    step = DecodeStep(gpu, start_cache(gpu, slots, 3), GenerationOptions(), with_logits=True)
    stepped = []
    for position in range(32, 64):
        step(np.full((3, 1), inputs[0, position]), position, np.zeros(3, np.float32))
        stepped.append(step.logits())
    for found, expected in ((whole, exact), (np.stack(stepped, axis=1), exact[:, 32:])):
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.02 * np.sqrt(np.mean(expected**2))


def test_a_cuda_graph_draws_what_runs_without_it_draw(gpu: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [GenerationOptions(n, seed=n) for n in (1, 8, 8, 3)]
    captured = [generate_all(gpu, PRIMER, options) for options in requests]

    def run(self: device.CudaTensors, tokens: np.ndarray | None = None) -> None:
        self._graph.run_with_iobinding(self._binding, self._eager)

    monkeypatch.setattr(device.CudaTensors, "run", run)
    for options, tokens in zip(requests, captured, strict=True):
        assert np.array_equal(generate_all(gpu, PRIMER, options), tokens)
