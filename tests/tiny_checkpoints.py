"""Tiny checkpoints of random weights, written by transformers itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np

TINY = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 16, "vocab_size": 9}
BUNDLED = {"n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 64, "vocab_size": 17}


def write_preprocessor(directory: Path, n_positions: int, n_clusters: int) -> None:
    """The image processor file of a square ImageGPT with random colours, with what transformers writes in it."""
    side = round(n_positions**0.5)
    clusters = np.random.default_rng(0).uniform(-1, 1, (n_clusters, 3)).astype(np.float32).tolist()
    fields: dict[str, Any] = {
        "clusters": clusters,
        "do_color_quantize": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "ImageGPTImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(fields))


def save_checkpoint(
    directory: Path,
    model_class: str = "ImageGPTForCausalImageModeling",
    fields: dict[str, Any] | None = None,
    max_shard_size: str = "1GB",
) -> Path:
    """Write a checkpoint of a transformers class and configuration, with weights large enough to matter."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ImageGPTConfig(**{**TINY, **(fields or {})})
    model = getattr(transformers, model_class)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    write_preprocessor(directory, config.n_positions, config.vocab_size - 1)
    return directory


def add_probe(directory: Path, layer: int, n_labels: int = 3) -> None:
    """Give a checkpoint a probe head on features of a layer, the paper's protocol, labels a, b, c ..."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    n_embd = tensors["transformer.ln_f.weight"].shape[0]
    tensors["probe.weight"] = torch.randn(n_labels, n_embd, generator=generator)
    tensors["probe.bias"] = torch.randn(n_labels, generator=generator)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    labels = {str(i): chr(ord("a") + i) for i in range(n_labels)}
    config |= {"probe_layers": [layer], "probe_protocol": "paper", "id2label": labels}
    config["label2id"] = {label: int(i) for i, label in labels.items()}
    (directory / "config.json").write_text(json.dumps(config))
