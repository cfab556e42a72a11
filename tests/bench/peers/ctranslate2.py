"""CTranslate2. Its specification expresses ImageGPT exactly: RMS norms, sigmoid gelu, learnt positions.

Its generator has no public step: a decode step is timed between two tokens of its own loop, and a completion is one
call that forwards the given half once and lets CTranslate2 replicate the state to all hypotheses.
"""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec
from safetensors.numpy import load_file

from peers import workload
from peers.workload import Completion, Logits, Shape, Tokens

NEVER = np.float32(-1e9)  # bias of sos, which has no logit in ImageGPT and one in CTranslate2


def versions() -> dict[str, str]:
    """What was measured."""
    return {"ctranslate2": version("ctranslate2")}


def convert(checkpoint: Path, shape: Shape, target: Path) -> None:
    """Write a checkpoint in Hugging Face layout as a CTranslate2 model in float32."""
    tensors = load_file(checkpoint / "model.safetensors")
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        shape.n_layer, shape.n_head, activation=common_spec.Activation.GELUSigmoid, rms_norm=True
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = tensors["transformer.wte.weight"]
    decoder.position_encodings.encodings = tensors["transformer.wpe.weight"]
    decoder.layer_norm.gamma = tensors["transformer.ln_f.weight"]
    decoder.projection.weight = np.pad(tensors["lm_head.weight"], ((0, 1), (0, 0)))
    decoder.projection.bias = np.append(np.zeros(shape.n_clusters, np.float32), NEVER)
    for index, layer in enumerate(decoder.layer):
        block = f"transformer.h.{index}."
        layer.self_attention.layer_norm.gamma = tensors[block + "ln_1.weight"]
        layer.ffn.layer_norm.gamma = tensors[block + "ln_2.weight"]
        linears = {"attn.c_attn": layer.self_attention.linear[0], "attn.c_proj": layer.self_attention.linear[1]}
        linears |= {"mlp.c_fc": layer.ffn.linear_0, "mlp.c_proj": layer.ffn.linear_1}
        for name, linear in linears.items():
            linear.weight = np.ascontiguousarray(tensors[f"{block}{name}.weight"].T)
            linear.bias = tensors[f"{block}{name}.bias"]
    spec.register_vocabulary([str(token) for token in range(shape.vocab_size)])
    spec.config.layer_norm_epsilon = shape.layer_norm_epsilon
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = str(shape.sos)
    spec.validate()
    spec.optimize()
    target.mkdir(parents=True, exist_ok=True)
    spec.save(str(target))


class CTranslate2:
    """`workload.System` of CTranslate2."""

    proxy = False

    def __init__(self, model: Path, shape: Shape, compute_type: str, threads: int) -> None:
        self.shape = shape
        self.generator = ctranslate2.Generator(
            str(model), device="cpu", compute_type=compute_type, intra_threads=threads, inter_threads=1
        )
        self.settings = f"compute_type {self.generator.compute_type}, prompt forwarded once, num_hypotheses"

    def _generate(self, prompts: list[list[str]], length: int, **options: Any) -> Any:
        fixed = {"max_length": length, "min_length": length, "include_prompt_in_result": False}
        return self.generator.generate_batch(prompts, **fixed, **{"sampling_topk": 0, **options})

    def _prompt(self, length: int | None = None) -> list[str]:
        whole = np.resize(workload.prompt(self.shape), length or self.shape.half + 1)
        return [str(token) for token in whole]

    def prefill(self) -> float:
        """See `workload.System`: the time to the first token."""
        begin = time.perf_counter()
        self._generate([self._prompt()], 1)
        return time.perf_counter() - begin

    def decode(self, rows: int, steps: int) -> list[float]:
        """See `workload.System`."""
        return self._step_seconds(self._prompt(), rows, steps)

    def _step_seconds(self, start: list[str], rows: int, steps: int) -> list[float]:
        """Times between the tokens of the first row, each once a step."""
        ends: list[float] = []

        def note(result: Any) -> bool:
            if result.hypothesis_id == 0:
                ends.append(time.perf_counter())
            return False

        self._generate([start], steps + 1, num_hypotheses=rows, callback=note)
        return [float(x) for x in np.diff(ends)]

    def complete(self, rows: int, *, in_full: bool) -> Completion:
        """See `workload.System`."""
        if not in_full:
            return self._extrapolate(rows)
        begin = time.perf_counter()
        (result,) = self._generate([self._prompt()], self.shape.half, num_hypotheses=rows)
        tokens = np.array(result.sequences_ids, np.int64)
        return Completion(time.perf_counter() - begin, tokens, self.shape.half)

    def _extrapolate(self, rows: int) -> Completion:
        seconds = self.prefill()
        timed: list[float] = []
        for start in workload.stretch_starts(self.shape):
            timed += self._step_seconds(self._prompt(start), rows, workload.STRETCH_STEPS + 1)[1:]
        return Completion(seconds + (self.shape.half - 1) * float(np.mean(timed)), None, len(timed))

    def check(self) -> tuple[Logits | None, Tokens | None]:
        """See `workload.System`."""
        inputs = np.concatenate([workload.prompt(self.shape), workload.following(self.shape)])
        logits = np.array(self.generator.forward_batch([inputs.tolist()]), np.float32)[0]
        (result,) = self._generate([self._prompt()], workload.CHECKED, sampling_topk=1)
        return logits[self.shape.half :, : self.shape.n_clusters], np.array(result.sequences_ids[0], np.int64)


def load(checkpoint: Path, shape: Shape, precision: str, threads: int) -> CTranslate2:
    """Convert on first use, next to the checkpoint, then load."""
    target = checkpoint.parent / "ctranslate2"
    if not (target / "model.bin").exists():
        convert(checkpoint, shape, target)
    compute_type = {"fp32": "float32", "int8": "int8_float32"}[precision]
    return CTranslate2(target, shape, compute_type, threads)
