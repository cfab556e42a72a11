"""What `complete.onnx` is asked for."""

import numpy as np


def complete_request(image: np.ndarray, keep_rows: int, n: int, seed: int, **options: float) -> dict[str, np.ndarray]:
    """Its inputs. options: `temperature`, `top_k` and `top_p`, all off by default."""
    return {
        "image": image,
        "keep_rows": np.array(keep_rows, np.int64),
        "n": np.array(n, np.int64),
        "seed": np.array(seed % 2**64, np.uint64).view(np.int64),
        "temperature": np.array(options.get("temperature", 1.0), np.float32),
        "top_k": np.array(options.get("top_k", 0), np.int64),
        "top_p": np.array(options.get("top_p", 1.0), np.float32),
    }
