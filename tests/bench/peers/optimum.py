"""optimum: its ONNX export with a cache, run by its `ORTModelForCausalLM` on ONNX Runtime.

Its graphs know GPT-2 and not ImageGPT's generation, so they are given ImageGPT as GPT-2's code. The cache is returned
anew by every step; nothing in its interface keeps it in place.
"""

from importlib.metadata import version
from pathlib import Path

import onnxruntime
import torch
from optimum.onnxruntime import ORTModelForCausalLM

from peers.stepping import Stepper
from peers.workload import Logits, Shape, Tokens


def versions() -> dict[str, str]:
    """What was measured."""
    return {name: version(name) for name in ("optimum", "optimum-onnx", "onnxruntime", "transformers")}


def convert(checkpoint: Path, shape: Shape, target: Path) -> None:
    """Export with a cache; the exporter's own check compares the graph with torch."""
    from optimum.exporters.onnx import onnx_export_from_model

    from peers.as_gpt2 import load_as_gpt2

    model = load_as_gpt2(checkpoint, shape)
    onnx_export_from_model(model, target, task="text-generation-with-past", device="cpu")


class Optimum(Stepper):
    """Stepping of `ORTModelForCausalLM`."""

    proxy = False

    def __init__(self, model: Path, shape: Shape, threads: int, *, bind: bool = False) -> None:
        """bind: use optimum's IoBinding, which is off by default on a CPU."""
        super().__init__(shape)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.model = ORTModelForCausalLM.from_pretrained(model, session_options=options, use_io_binding=bind)
        self.settings = "with-past graph, prefix repeated with torch" + (", IoBinding" if bind else "")

    def _run(self, tokens: torch.Tensor) -> Logits:
        length = self.past[0][0].shape[2] if self.past else 0
        mask = torch.ones((len(tokens), length + tokens.shape[1]), dtype=torch.int64)
        outputs = self.model(tokens, attention_mask=mask, past_key_values=self.past, use_cache=True)
        self.past = outputs.past_key_values
        logits: Logits = outputs.logits[:, -1].numpy()
        return logits

    def _on_cache(self, change: object) -> None:
        self.past = tuple(tuple(change(part) for part in layer) for layer in self.past)

    def begin(self, tokens: Tokens, rows: int) -> Logits:
        """See `Stepper`."""
        self.past = None
        return self._run(torch.from_numpy(tokens)[None])[0]

    def fork(self, rows: int) -> None:
        """See `Stepper`."""
        if rows > 1:
            self._on_cache(lambda part: part.repeat_interleave(rows, dim=0))

    def step(self, tokens: Tokens) -> Logits:
        """See `Stepper`."""
        return self._run(torch.from_numpy(tokens)[:, None])

    def seek(self, length: int) -> None:
        """See `Stepper`: the cache continued with repetitions of itself."""
        self._on_cache(lambda part: part.repeat(1, 1, -(-length // part.shape[2]), 1)[:, :, :length].contiguous())


def load(checkpoint: Path, shape: Shape, variant: str, threads: int) -> Optimum:
    """Export on first use, next to the checkpoint, then load."""
    torch.set_num_threads(threads)
    target = checkpoint.parent / "optimum"
    if not (target / "model.onnx").exists():
        convert(checkpoint, shape, target)
    return Optimum(target, shape, threads)
