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

GRAPH = "openvino_model.xml"
PRODUCTS_PER_LAYER = 4
# Activations that share a scale in products with 8-bit weights. OpenVINO's own 32 prefills a quarter slower.
QUANTIZED_TOGETHER = 512


def versions() -> dict[str, str]:
    """What was measured."""
    return {name: version(name) for name in ("openvino", "optimum-intel", "nncf")}


def convert(checkpoint: Path, shape: Shape, target: Path) -> None:
    """Export as a stateful graph in float32."""
    from optimum.exporters.openvino import export_from_model
    from optimum.intel import OVConfig

    from peers.as_gpt2 import load_as_gpt2

    model = load_as_gpt2(checkpoint, shape)
    config = OVConfig(dtype="fp32")
    export_from_model(model, target, task="text-generation-with-past", ov_config=config, stateful=True)


def compress(source: Path, target: Path) -> None:
    """Write an exported graph with its weights in 8 bits, a scale a row: every matrix, table and head.

    optimum-intel's exporter leaves this to its command line's next step, which calls the same function.
    """
    import nncf

    graph = openvino.Core().read_model(source / GRAPH)
    # Symmetric is as fast as NNCF's default, asymmetric, and its logits are as near.
    compressed = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(compressed, target / GRAPH, compress_to_fp16=False)


def products(compiled: openvino.CompiledModel) -> list[str]:
    """In what precision a compiled graph computes each of its products with weights."""
    infos = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ordered_ops()]
    return [info["runtimePrecision"].value for info in infos if info["layerType"].value == "FullyConnected"]


class OpenVINO(Stepper):
    """Stepping of OpenVINO: one infer request."""

    proxy = False

    def __init__(self, model: Path, shape: Shape, threads: int, variant: str) -> None:
        super().__init__(shape)
        options = {
            properties.inference_num_threads: threads,
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.kv_cache_precision: openvino.Type.u8,  # faster than f16 with every kind of weights
        }
        if variant == "fp32":
            options[hint.inference_precision] = openvino.Type.f32
        if variant == "int8":
            options[hint.dynamic_quantization_group_size] = QUANTIZED_TOGETHER
        compiled = openvino.Core().compile_model(model / GRAPH, "CPU", options)
        self.request = compiled.create_infer_request()
        self.inputs = {port.any_name for port in compiled.inputs}
        used = compiled.get_property(hint.inference_precision).get_type_name()
        cache = compiled.get_property(hint.kv_cache_precision).get_type_name()
        self.settings = f"stateful graph, arithmetic {used}, cache {cache}, latency hint"
        if variant == "int8":  # otherwise the row would be of other weights, or other arithmetic, under its name
            precisions = products(compiled)
            other = sum(precision != "i8" for precision in precisions)
            if other or len(precisions) < PRODUCTS_PER_LAYER * shape.n_layer:
                raise RuntimeError(f"{other} of {len(precisions)} products are not of 8-bit weights")
            self.settings += f", symmetric weights, activations quantized by {QUANTIZED_TOGETHER}"

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
    """variant: fp32; bf16, fp32 weights and OpenVINO's own choice of arithmetic; int8, the same with 8-bit weights."""
    exported = checkpoint.parent / "openvino-32"
    if not (exported / GRAPH).exists():
        convert(checkpoint, shape, exported)
    if variant != "int8":
        return OpenVINO(exported, shape, threads, variant)
    compressed = checkpoint.parent / "openvino-8"
    if not (compressed / GRAPH).exists():
        compressed.mkdir(exist_ok=True)
        compress(exported, compressed)
    return OpenVINO(compressed, shape, threads, variant)
