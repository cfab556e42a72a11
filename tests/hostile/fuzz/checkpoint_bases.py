"""Small sound checkpoints in every format that is read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_SIZES = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 16, "vocab_size": 9}


def make_checkpoints(directory: Path) -> None:
    """Write them, each in a directory called like its sort."""
    import torch
    from safetensors.torch import load_file
    from tiny_checkpoints import add_probe, save_checkpoint

    directory.mkdir(parents=True)
    causal = save_checkpoint(directory / "safetensors")
    (causal / "generation_config.json").write_text(json.dumps({"temperature": 0.9, "top_k": 5, "do_sample": True}))
    (causal / "README.md").write_text("---\nlicense: mit\n---\n\n# A model\n")
    save_checkpoint(directory / "classifier", "ImageGPTForImageClassification", {"num_labels": 3})
    shutil.copytree(causal, directory / "probe")
    add_probe(directory / "probe", layer=1)
    save_checkpoint(directory / "shards", max_shard_size="10KB")
    state = load_file(causal / "model.safetensors")
    _as_bin(causal, directory / "bin", lambda path: torch.save(state, path))
    _as_bin(causal, directory / "old-bin", lambda path: torch.save(state, path, _use_new_zipfile_serialization=False))
    _sharded_bin(causal, directory / "bin-shards", state)


def _as_bin(source: Path, target: Path, save: Callable[[Path], object]) -> None:
    shutil.copytree(source, target)
    (target / "model.safetensors").unlink()
    save(target / "pytorch_model.bin")


def _sharded_bin(source: Path, target: Path, state: dict[str, Any]) -> None:
    import torch

    shutil.copytree(source, target)
    (target / "model.safetensors").unlink()
    names = sorted(state)
    placed = {name: f"pytorch_model-0000{1 + (i >= len(names) // 2)}-of-00002.bin" for i, name in enumerate(names)}
    for file in sorted(set(placed.values())):
        torch.save({name: state[name] for name in names if placed[name] == file}, target / file)
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (target / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def make_openai_checkpoint(directory: Path) -> None:
    """Write one of OpenAI's format, in two data files."""
    from igpt_export.checkpoint.openai import import_tensorflow

    tensorflow = import_tensorflow()
    directory.mkdir(parents=True)
    width, heads, layers, colours, positions = 16, 2, 2, 8, 16
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    found = {"wpe": normal(positions, width), "wte": normal(colours, width), "wtet": normal(colours, width)}
    found |= {"sos": normal(width), "ln_f/g": 1 + normal(width), "clf/wclf": normal(3, width)}
    for layer in range(layers):
        found |= {f"h{layer}/attn/{kind}_proj": normal(heads, width // heads, width) for kind in "kqvc"}
        found |= {f"h{layer}/{norm}/g": 1 + normal(width) for norm in ("ln_1", "ln_2")}
        found |= {f"h{layer}/mlp/c_fc/w": normal(width, 4 * width), f"h{layer}/mlp/c_proj/w": normal(4 * width, width)}
    names = sorted(found)
    parts = []
    for number in range(2):
        kept = names[number::2]
        parts.append(f"{directory}/part-{number:05d}-of-00002")
        tensorflow.raw_ops.SaveV2(
            prefix=parts[-1], tensor_names=[f"model/{name}" for name in kept], shape_and_slices=[""] * len(kept),
            tensors=[tensorflow.constant(found[name]) for name in kept],
        )  # fmt: skip
    tensorflow.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=f"{directory}/model.ckpt-7")
    np.save(directory / "kmeans_centers.npy", rng.uniform(-1, 1, (colours, 3)).astype(np.float32))
