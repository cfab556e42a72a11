"""Tiny checkpoints, written by transformers itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

TINY = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 16, "vocab_size": 9}


def write_preprocessor(directory: Path) -> None:
    """The image processor file of an ImageGPT with 4x4 pixels and 8 colours, with what transformers writes in it."""
    clusters = np.random.default_rng(0).uniform(-1, 1, (8, 3)).tolist()
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
        "size": {"height": 4, "width": 4},
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(fields))


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a checkpoint of a transformers class and configuration and returns its directory."""
    import transformers

    def write(
        model_class: str = "ImageGPTForCausalImageModeling",
        fields: dict[str, Any] | None = None,
        max_shard_size: str = "1GB",
        name: str = "tiny",
    ) -> Path:
        torch.manual_seed(0)
        config = transformers.ImageGPTConfig(**{**TINY, **(fields or {})})
        model = getattr(transformers, model_class)(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.3)
        model.save_pretrained(tmp_path / name, max_shard_size=max_shard_size)
        write_preprocessor(tmp_path / name)
        return tmp_path / name

    return write
