"""A checkpoint directory: three files in Hugging Face's layout."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import save_file

from igpt_export.model.model import ImageGPT
from igpt_runtime.bundle.config import ImageGPTConfig

Floats = npt.NDArray[np.float32]


def save(directory: Path, model: ImageGPT, clusters: Floats) -> None:
    """Write the checkpoint of a model of square pictures; clusters: [n, 3] in [-1, 1]."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name if name.startswith("lm_head.") else f"transformer.{name}": tensor.detach().float().contiguous()
        for name, tensor in model.state_dict().items()
    }
    side = round(model.config.n_positions**0.5)
    _write_json(directory / "config.json", _config(model.config))
    _write_json(directory / "preprocessor_config.json", _preprocessor(clusters, side))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _config(config: ImageGPTConfig) -> dict[str, object]:
    return {
        "architectures": ["ImageGPTForCausalImageModeling"],
        "model_type": "imagegpt",
        **dataclasses.asdict(config),
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_cache": True,
        "dtype": "float32",
    }


def _preprocessor(clusters: Floats, side: int) -> dict[str, object]:
    return {
        "image_processor_type": "ImageGPTImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 2,
        "do_normalize": True,
        "do_color_quantize": True,
        "clusters": [[float(value) for value in colour] for colour in clusters],
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
