"""llama.cpp through its Python binding: GPT-2's architecture at the same shape, the nearest that it has.

A proxy: it normalises with mean and bias and has the tanh gelu, which costs what ImageGPT's norm and gelu cost. The
weight matrices are ImageGPT's own.
"""

import ctypes
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from safetensors.numpy import load_file

from peers.stepping import Stepper
from peers.workload import Logits, Shape, Tokens

QUANTIZED = {"fp32": None, "q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}
FILE_TYPES = {"fp32": 0, "q8_0": 7, "q4_0": 2}
MATRICES = {"attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}
NORMS = {"attn_norm": "ln_1", "ffn_norm": "ln_2"}


def versions() -> dict[str, str]:
    """What was measured."""
    return {"llama-cpp-python": version("llama-cpp-python")}


class _GGUF:
    """A GGUF file being written, its matrices in one quantisation."""

    def __init__(self, path: Path, shape: Shape, precision: str) -> None:
        self.writer = gguf.GGUFWriter(path, "gpt2")
        self.quantized = QUANTIZED[precision]
        self.writer.add_name("imagegpt")
        self.writer.add_context_length(shape.n_positions)
        self.writer.add_embedding_length(shape.n_embd)
        self.writer.add_block_count(shape.n_layer)
        self.writer.add_feed_forward_length(4 * shape.n_embd)
        self.writer.add_head_count(shape.n_head)
        self.writer.add_layer_norm_eps(shape.layer_norm_epsilon)
        self.writer.add_file_type(FILE_TYPES[precision])
        self.writer.add_tokenizer_model("gpt2")
        self.writer.add_tokenizer_pre("gpt-2")
        self.writer.add_token_list([f"t{token}" for token in range(shape.vocab_size)])
        self.writer.add_token_types([int(gguf.TokenType.NORMAL)] * shape.vocab_size)
        self.writer.add_token_merges(["t 0"])
        self.writer.add_bos_token_id(shape.sos)
        self.writer.add_eos_token_id(shape.sos)

    def plain(self, name: str, array: np.ndarray) -> None:
        """A tensor that stays float32."""
        self.writer.add_tensor(name, np.ascontiguousarray(array, np.float32))

    def matrix(self, name: str, array: np.ndarray) -> None:
        """A matrix [n_out, n_in] in the file's quantisation."""
        if self.quantized is None:
            self.plain(name, array)
        else:
            packed = gguf.quants.quantize(np.ascontiguousarray(array), self.quantized)
            self.writer.add_tensor(name, packed, raw_dtype=self.quantized)

    def norm(self, name: str, weight: np.ndarray) -> None:
        """A norm, with the bias that GPT-2's has."""
        self.plain(f"{name}.weight", weight)
        self.plain(f"{name}.bias", np.zeros_like(weight))

    def close(self) -> None:
        """Write it all."""
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def convert(checkpoint: Path, shape: Shape, precision: str, target: Path) -> None:
    """Write a checkpoint in Hugging Face layout as a GGUF file of GPT-2's architecture."""
    tensors = load_file(checkpoint / "model.safetensors")
    file = _GGUF(target, shape, precision)
    file.plain("token_embd.weight", tensors["transformer.wte.weight"])
    file.plain("position_embd.weight", tensors["transformer.wpe.weight"])
    for layer in range(shape.n_layer):
        theirs, ours = f"blk.{layer}.", f"transformer.h.{layer}."
        for name, source in NORMS.items():
            file.norm(theirs + name, tensors[f"{ours}{source}.weight"])
        for name, source in MATRICES.items():
            file.matrix(f"{theirs}{name}.weight", tensors[f"{ours}{source}.weight"].T)
            file.plain(f"{theirs}{name}.bias", tensors[f"{ours}{source}.bias"])
    file.norm("output_norm", tensors["transformer.ln_f.weight"])
    file.matrix("output.weight", np.pad(tensors["lm_head.weight"], ((0, 1), (0, 0))))
    file.close()


class LlamaCpp(Stepper):
    """Stepping of llama.cpp: one context whose sequences are the rows."""

    proxy = True

    def __init__(self, model: Path, shape: Shape, threads: int, *, unified: bool = False, cache: str = "F16") -> None:
        super().__init__(shape)
        llama_cpp.llama_log_set(_QUIET, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(model).encode(), llama_cpp.llama_model_default_params())
        assert self.model, f"llama.cpp cannot load {model}"
        self.threads, self.unified, self.cache_type = threads, unified, cache
        self.context, self.rows = None, 0
        where = "one cache for all rows" if unified else "a cache per row, the prefix copied by llama_memory_seq_cp"
        self.settings = f"flash attention, {cache.lower()} cache, {where}, native build"

    def _open(self, rows: int) -> None:
        """A context with room for `rows` sequences; contexts are kept between calls that need the same."""
        if self.rows == rows:
            return
        if self.context:
            llama_cpp.llama_free(self.context)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = self.shape.n_positions * rows
        options.n_batch = options.n_ubatch = self.shape.n_positions
        options.n_seq_max = rows
        options.n_threads = options.n_threads_batch = self.threads
        options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        options.kv_unified = self.unified
        options.type_k = options.type_v = int(gguf.GGMLQuantizationType[self.cache_type])
        self.context, self.rows = llama_cpp.llama_init_from_model(self.model, options), rows
        assert self.context, "llama.cpp cannot make a context"

    def _decode(self, tokens: Sequence[int], sequences: Sequence[int], position: int, stride: int) -> None:
        """Run one batch: token i belongs to sequence i and lies at position + i * stride; wants the last logits."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, (token, sequence) in enumerate(zip(tokens, sequences, strict=True)):
            batch.token[i], batch.pos[i] = int(token), position + i * stride
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = stride == 0 or i + 1 == len(tokens)
        code = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_batch_free(batch)
        assert code == 0, f"llama_decode failed with {code}"

    def _logits(self, rows: int) -> Logits:
        pointer = llama_cpp.llama_get_logits(self.context)
        whole = np.ctypeslib.as_array(pointer, (rows, self.shape.vocab_size))
        return whole[:, : self.shape.n_clusters].copy()

    def begin(self, tokens: Tokens, rows: int) -> Logits:
        """See `Stepper`."""
        self._open(rows)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self._decode(tokens.tolist(), [0] * len(tokens), 0, 1)
        self.length = len(tokens)
        return self._logits(1)[0]

    def fork(self, rows: int) -> None:
        """See `Stepper`."""
        for row in range(1, rows):
            llama_cpp.llama_memory_seq_cp(llama_cpp.llama_get_memory(self.context), 0, row, -1, -1)

    def step(self, tokens: Tokens) -> Logits:
        """See `Stepper`."""
        self._decode(tokens.tolist(), range(len(tokens)), self.length, 0)
        self.length += 1
        return self._logits(len(tokens))

    def seek(self, length: int) -> None:
        """See `Stepper`."""
        raise NotImplementedError("llama.cpp is fast enough to complete in full")


@llama_cpp.llama_log_callback
def _QUIET(level: int, text: bytes, data: object) -> None:
    """llama.cpp's log goes nowhere: failures show in return codes."""


def load(checkpoint: Path, shape: Shape, precision: str, threads: int) -> LlamaCpp:
    """Convert on first use, next to the checkpoint, then load."""
    target = checkpoint.parent / f"llama_cpp-{precision}.gguf"
    if not target.exists():
        convert(checkpoint, shape, precision, target)
    return LlamaCpp(target, shape, threads)
