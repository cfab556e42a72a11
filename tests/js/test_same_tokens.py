"""The same seed draws the same tokens in Python, in Node and in WebAssembly, by the host loop and in one call."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from igpt_runtime import GenerationOptions, generate_all, open_session, tokens_of
from igpt_runtime.pictures.palette import tokens_to_image

ROOT = Path(__file__).parents[2]
JS = ROOT / "runtime" / "js"
PICTURE = ROOT / "models" / "digits" / "examples" / "seven.png"
SAMPLING = {"temperature": "temperature", "top_k": "topK", "top_p": "topP"}
SEEDS = [*range(17), 2**32, 2**53 + 1, 2**64 - 1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("node") or not (JS / "node_modules").is_dir(), reason="needs Node and `make js` before"
    ),
]

Drawn = list[dict[str, Any]]


def drawn(host: str, bundle: Path, requests: list[dict[str, Any]]) -> Drawn:
    """What JavaScript draws."""
    pixels = np.asarray(Image.open(PICTURE).convert("RGB"))
    image = {"height": len(pixels), "width": len(pixels[0]), "data": base64.b64encode(pixels.tobytes()).decode()}
    command = ["node", str(JS / "test" / "drawn.mjs"), host, str(bundle)]
    text = json.dumps({"image": image, "requests": requests})
    result: Drawn = json.loads(subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout)
    return result


def requests(seeds: list[int], ns: tuple[int, ...], keeps: tuple[int, ...]) -> list[dict[str, Any]]:
    sampling: list[dict[str, Any]] = [{}, {"temperature": 1, "topK": 0, "topP": 1}, {"temperature": 1.2, "topK": 30}]
    return [
        {"seed": str(seed), "n": ns[i % len(ns)], "keepRows": keeps[i % len(keeps)], **sampling[i % len(sampling)]}
        for i, seed in enumerate(seeds)
    ]


def options_of(request: dict[str, Any]) -> GenerationOptions:
    """The same request in Python: what it leaves out is the model's here and there."""
    sampling = {ours: request.get(theirs) for ours, theirs in SAMPLING.items()}
    return GenerationOptions(request["n"], int(request["seed"]), **sampling)


@pytest.mark.parametrize("host", ["node", "wasm"])
def test_fp32_on_all_routes(digits_bundle: Path, host: str) -> None:
    session = open_session(digits_bundle, device="cpu")
    assert not session.manifest.sampling.is_plain
    primer = tokens_of(session, Image.open(PICTURE).convert("RGB"))
    asked = requests(SEEDS, (1, 8, 3), (8, 0, 15, 1))
    for request, result in zip(asked, drawn(host, session.bundle.path, asked), strict=True):
        expected = generate_all(session, primer[: request["keepRows"] * 16], options_of(request)).tolist()
        assert result["loop"] == expected, request
        assert result["once"] == expected, request


@pytest.mark.parametrize("host", ["node", "wasm"])
def test_int8_whatever_the_number(host: str, tmp_path: Path) -> None:
    """Within a runtime and a route; between them, roundings may differ."""
    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.export import ExportOptions, export_bundle
    from igpt_export.precision.precision import Precision

    bundle = tmp_path / "digits-int8"
    export_bundle(
        load_checkpoint(ROOT / "models" / "digits"), bundle, ExportOptions(Precision("int8", "int8"), embed=True)
    )
    asked = [{"seed": "5", "n": n, "keepRows": keep} for keep in (8, 0) for n in (20, 1, 7)]
    results = drawn(host, bundle, asked)
    for first in (0, 3):
        many, *fewer = results[first : first + 3]
        for result in fewer:
            for route in ("loop", "once"):
                assert result[route] == many[route][: len(result[route])]


def test_example(digits_bundle: Path, tmp_path: Path) -> None:
    """15 lines of code at most, and it draws what `igpt-run` draws."""
    example = JS / "examples" / "complete.mjs"
    assert len([line for line in example.read_text().splitlines() if line and not line.startswith("//")]) <= 15
    Image.open(PICTURE).convert("RGB").save(tmp_path / "seven.ppm")
    command = ["node", str(example), "seven.ppm", str(digits_bundle)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    session = open_session(digits_bundle, device="cpu")
    primer = tokens_of(session, Image.open(PICTURE).convert("RGB"))[:128]
    expected = generate_all(session, primer, GenerationOptions(n=4, seed=1))
    lines = [[int(number) for number in line.split()] for line in done.stdout.splitlines()]
    assert lines == [[position, *expected[:, position].tolist()] for position in range(128, 256)]
    form = session.manifest.image_format
    for i, row in enumerate(expected):
        drawn = np.asarray(Image.open(tmp_path / f"completed-{i + 1}.ppm"))
        assert np.array_equal(drawn, np.asarray(tokens_to_image(row, form.clusters, 16, 16)))
