"""OpenVINO, through optimum-intel's export: a stateful graph whose attention and cache are one operation.

The cache is OpenVINO's own state, 8 bits a number. The given half runs once; the next step's `beam_idx`,
made for beam search, tells every row to continue that one.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

from peers.stepping import Stepper
from peers.workload import Logits, Shape, Tokens


def versions() -> dict[str, str]:
    """What was measured."""
    return {name: version(name) for name in ("openvino", "optimum-intel", "nncf")}


def convert(checkpoint: Path, shape: Shape, target: Path, bits: int | None) -> None:
    """Export as a stateful graph; bits: compress the weights to so many."""
    from optimum.exporters.openvino import export_from_model
    from optimum.intel import OVConfig, OVWeightQuantizationConfig

    from peers.as_gpt2 import load_as_gpt2

    config = OVConfig(quantization_config=OVWeightQuantizationConfig(bits=bits)) if bits else OVConfig(dtype="fp32")
    model = load_as_gpt2(checkpoint, shape)
    export_from_model(model, target, task="text-generation-with-past", ov_config=config, stateful=True)


class OpenVINO(Stepper):
    """Stepping of OpenVINO: one infer request."""

    proxy = False

    def __init__(self, model: Path, shape: Shape, threads: int, precision: str | None) -> None:
        """precision: of the arithmetic, f32 or bf16; None leaves OpenVINO's choice."""
        super().__init__(shape)
        options = {
            properties.inference_num_threads: threads,
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.kv_cache_precision: openvino.Type.u8,  # faster than f16 with every kind of weights
        }
        if precision:
            options[hint.inference_precision] = precision
        compiled = openvino.Core().compile_model(model / "openvino_model.xml", "CPU", options)
        self.request = compiled.create_infer_request()
        self.inputs = {port.any_name for port in compiled.inputs}
        used = compiled.get_property(hint.inference_precision).get_type_name()
        cache = compiled.get_property(properties.hint.kv_cache_precision).get_type_name()
        self.settings = f"stateful graph, arithmetic {used}, cache {cache}, latency hint"

    def _run(self, tokens: Tokens) -> Logits:
        rows, sequence = tokens.shape
        feed = {
            "input_ids": tokens,
            "attention_mask": np.ones((rows, self.length + sequence), np.int64),
            "position_ids": np.broadcast_to(np.arange(self.length, self.length + sequence), tokens.shape),
            "beam_idx": np.arange(rows, dtype=np.int32) % self.rows,
        }
        self.request.infer({name: value for name, value in feed.items() if name in self.inputs}, share_inputs=True)
        self.length, self.rows = self.length + sequence, rows
        logits: Logits = self.request.get_output_tensor(0).data[:, -1].copy()
        return logits

    def begin(self, tokens: Tokens, rows: int) -> Logits:
        """See `Stepper`."""
        self.request.reset_state()
        self.length, self.rows = 0, 1
        return self._run(tokens[None])[0]

    def fork(self, rows: int) -> None:
        """See `Stepper`: `beam_idx` of the next step says that every row continues the one row."""

    def step(self, tokens: Tokens) -> Logits:
        """See `Stepper`."""
        return self._run(tokens[:, None])

    def seek(self, length: int) -> None:
        """See `Stepper`."""
        raise NotImplementedError("OpenVINO is fast enough to complete in full")


def load(checkpoint: Path, shape: Shape, variant: str, threads: int) -> OpenVINO:
    """variant: fp32; bf16, fp32 weights and OpenVINO's own choice of arithmetic; int8 or int4, compressed weights."""
    bits = {"int8": 8, "int4": 4}.get(variant)
    target = checkpoint.parent / f"openvino-{bits or 32}"
    if not (target / "openvino_model.bin").exists():
        convert(checkpoint, shape, target, bits)
    stored, original = (
        (target / "openvino_model.bin").stat().st_size,
        (checkpoint / "model.safetensors").stat().st_size,
    )
    if bits and stored > original / 2:  # the row would be of fp32 weights under another name
        raise RuntimeError("its export left the weights uncompressed")
    return OpenVINO(target, shape, threads, "f32" if variant == "fp32" else None)
