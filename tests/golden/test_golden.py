"""The pack is what the references make, and the Python runtime and the graphs replay it."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from igpt_runtime import GenerationOptions, generate_all, open_session
from igpt_runtime.bundle import graph_io
from igpt_runtime.engine.random import threefry2x32, uniforms
from igpt_runtime.pictures.palette import image_to_tokens, tokens_to_image

GOLDEN = Path(__file__).parent
CASES = json.loads((GOLDEN / "cases.json").read_text())
BUNDLE = GOLDEN / "bundle"
FORM = open_session(BUNDLE).manifest.image_format
PICTURES = {case["name"]: case for case in CASES["pictures"]}


def pixels(name: str) -> np.ndarray:
    case = PICTURES[name]
    return decoded(case["rgb"], case["height"], case["width"])


def decoded(text: str, height: int, width: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 3)


@pytest.fixture(scope="module")
def run() -> Callable[..., list[np.ndarray]]:
    """A function that runs a graph of the bundle."""
    opened: dict[str, Any] = {}

    def call(graph: str, **inputs: object) -> list[np.ndarray]:
        if graph not in opened:
            opened[graph] = onnxruntime.InferenceSession(BUNDLE / f"{graph}.onnx", providers=["CPUExecutionProvider"])
        arrays: list[np.ndarray] = opened[graph].run(None, {k: np.asarray(v) for k, v in inputs.items()})
        return arrays

    return call


def test_pack_is_what_the_references_make(tmp_path: Path) -> None:
    import sys

    sys.path.insert(0, str(GOLDEN))
    try:
        import make
    finally:
        sys.path.remove(str(GOLDEN))
    made = json.loads(json.dumps(make.cases(make.make_checkpoint(tmp_path / "golden"))))
    assert made.keys() == CASES.keys()
    for key in made.keys() - {"model"}:
        assert made[key] == CASES[key], f"{key}: run tests/golden/make.py"
    for one, other in zip(made["model"], CASES["model"], strict=True):
        for key in one.keys() - {"picture"}:
            assert np.allclose(one[key], other[key], rtol=1e-4, atol=1e-5), f"{key}: run tests/golden/make.py"


def test_random_numbers() -> None:
    for case in CASES["threefry"]:
        key, counter = ([int(word, 16) for word in case[name]] for name in ("key", "counter"))
        words = threefry2x32((key[0], key[1]), (np.array([counter[0]], np.uint32), np.array([counter[1]], np.uint32)))
        assert [f"{int(word[0]):08x}" for word in words] == case["result"]
    for case in CASES["uniforms"]:
        assert uniforms(int(case["seed"]), [case["sample"]], [case["position"]])[0, 0] == case["uniform"]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_to_tokens(run: Callable[..., list[np.ndarray]], name: str) -> None:
    expected = PICTURES[name]["tokens"]
    assert image_to_tokens(Image.fromarray(pixels(name)), FORM.clusters, 8, 8).ravel().tolist() == expected
    assert run("preprocess", image=pixels(name))[0].tolist() == expected


def test_tokens_to_pictures(run: Callable[..., list[np.ndarray]]) -> None:
    for case in CASES["images"]:
        expected = decoded(case["rgb"], 8, 8)
        assert np.array_equal(np.asarray(tokens_to_image(np.array(case["tokens"]), FORM.clusters, 8, 8)), expected)
        assert np.array_equal(run("postprocess", tokens=[case["tokens"]])[0][0], expected)


@pytest.mark.parametrize("case", CASES["model"], ids=lambda case: case["picture"])
def test_model(run: Callable[..., list[np.ndarray]], case: dict[str, Any]) -> None:
    image = pixels(case["picture"])
    logits = run("prefill", input_ids=[[16, *case["tokens"][:-1]]])[0][0]
    assert np.abs(logits - case["logits"]).max() < 1e-3
    nats, mean = run("score", image=image)
    assert np.abs(nats.ravel() - case["nats"]).max() < 1e-3 and abs(mean - case["nats_per_token"]) < 1e-4
    assert np.abs(run("features", image=image)[0] - case["features"]).max() < 1e-4
    assert np.abs(run("classify", image=image)[0] - case["probabilities"]).max() < 1e-4


@pytest.mark.parametrize("case", CASES["completions"], ids=lambda case: f"{case['keep']}-{case['n']}-{case['seed']}")
def test_completions(run: Callable[..., list[np.ndarray]], case: dict[str, Any]) -> None:
    options = {key: case[key] for key in ("n", "temperature", "top_k", "top_p")}
    primer = np.array(PICTURES[case["picture"]]["tokens"][: case["keep"]], np.int64)
    session = open_session(BUNDLE, device="cpu")
    drawn = generate_all(session, primer, GenerationOptions(seed=int(case["seed"]), **options))
    assert drawn.tolist() == case["tokens"]
    if case["keep"] % 8 == 0:
        floats = {key: np.float32(options[key]) for key in (graph_io.TEMPERATURE, graph_io.TOP_P)}
        seed = np.uint64(int(case["seed"])).view(np.int64)
        request = {"n": case["n"], "top_k": case["top_k"], "keep_rows": case["keep"] // 8, "seed": seed, **floats}
        assert run("complete", image=pixels(case["picture"]), **request)[1].tolist() == case["tokens"]
