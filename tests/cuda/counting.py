"""Draws pictures with the CUDA provider of a stand-in and prints as JSON what it was asked to do meanwhile.

`python counting.py BUNDLE ROWS...`: one completion of half a picture after another, in one session.
"""

import ctypes
import json
import sys

import numpy as np

import igpt_runtime.engine.session
from igpt_runtime import GenerationOptions, generate_all, open_session
from igpt_runtime.engine import generate

NAMES = ("captures", "launches", "uploads", "downloads", "captured_copies")


# The stand-in computes nothing, so what it leaves may be no numbers.
setattr(generate, "check_numbers", lambda *_: None)  # noqa: B010


def main(path: str, *requests: str) -> None:
    """Print the counters after every step."""
    igpt_runtime.engine.session.is_installed = lambda _: False  # both packages are, each in its place
    session = open_session(path, device="cuda")
    library = ctypes.CDLL("libcudart.so.13")
    half = np.zeros(session.manifest.config.n_positions // 2, np.int64)
    counted = []
    for rows in map(int, requests):
        steps: list[dict[str, int]] = []

        def note(_: int, steps: list[dict[str, int]] = steps) -> None:
            steps.append({name: ctypes.c_int.in_dll(library, f"stand_in_{name}").value for name in NAMES})

        generate_all(session, half, GenerationOptions(n=rows), note)
        counted.append(steps)
    assert session.provider == "CUDAExecutionProvider"
    print(json.dumps(counted))


if __name__ == "__main__":
    main(*sys.argv[1:])
