"""Several labels at once, a single one, and regression: results are those of transformers' pipeline, on every route."""

import json
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.precision.precision import Precision
from igpt_runtime import classify, open_session
from igpt_runtime.cli import main
from igpt_runtime.errors import CheckpointError, OptionError

ROOT = Path(__file__).parents[2]
JS = ROOT / "runtime/js"
PICTURE = ROOT / "models/digits/examples/seven.png"
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "single-label": ({"num_labels": 4, "problem_type": "single_label_classification"}, "softmax"),
    "unnamed": ({"num_labels": 4}, "softmax"),
    "multi-label": ({"num_labels": 4, "problem_type": "multi_label_classification"}, "sigmoid"),
    "one-label": ({"num_labels": 1}, "sigmoid"),
    "regression": ({"num_labels": 1, "problem_type": "regression"}, "none"),
    "regressions": ({"num_labels": 3, "problem_type": "regression"}, "none"),
}
Bundles = dict[str, tuple[Path, Path]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """The checkpoint and the bundle of each kind."""
    from tiny_checkpoints import save_checkpoint

    directory = tmp_path_factory.mktemp("kinds")
    made = {}
    for name, (fields, _) in KINDS.items():
        checkpoint = save_checkpoint(directory / name, "ImageGPTForImageClassification", fields)
        bundle = directory / f"{name}-bundle"
        export_bundle(load_checkpoint(checkpoint), bundle, ExportOptions(embed=True))
        made[name] = checkpoint, bundle
    return made


def reference(checkpoint: Path) -> dict[str, float]:
    """What transformers' pipeline says of the picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import ImageGPTForImageClassification, ImageGPTImageProcessorPil, pipeline

    model = ImageGPTForImageClassification.from_pretrained(checkpoint)
    processor = ImageGPTImageProcessorPil.from_pretrained(checkpoint)
    ask = pipeline("image-classification", model=model, image_processor=processor)
    found = ask(Image.open(PICTURE).convert("RGB"), top_k=99)
    return {row["label"]: row["score"] for row in found}


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_the_pipeline(kind: str, bundles: Bundles) -> None:
    checkpoint, bundle = bundles[kind]
    session = open_session(bundle, device="cpu")
    classifier = session.manifest.classifier
    assert classifier is not None and classifier.function_to_apply == KINDS[kind][1]
    expected = [reference(checkpoint)[label] for label in classifier.labels]
    assert np.allclose(classify(session, PICTURE)[0], expected, rtol=1e-4, atol=1e-5)

    graph = onnxruntime.InferenceSession(bundle / "classify.onnx", providers=["CPUExecutionProvider"])
    (result,) = graph.run(None, {"image": np.asarray(Image.open(PICTURE).convert("RGB"))})
    assert np.allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert graph.get_outputs()[0].name == ("values" if kind.startswith("regression") else "probabilities")


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_says_what_it_gives(kind: str, bundles: Bundles) -> None:
    checkpoint, bundle = bundles[kind]
    expected = reference(checkpoint)
    arguments = ["classify", str(PICTURE), "--model", str(bundle)]
    record = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    several, single = ("values", "value") if kind.startswith("regression") else ("probabilities", "probability")
    found = record["images"][0][several]
    assert record["function_to_apply"] == KINDS[kind][1]
    assert [row[single] for row in found] == sorted((row[single] for row in found), reverse=True)
    assert {row["label"]: pytest.approx(row[single], rel=1e-3, abs=1e-5) for row in found} == expected
    text = CliRunner().invoke(main, arguments).stdout
    assert ("%" in text) != kind.startswith("regression")


@pytest.mark.skipif(not shutil.which("node") or not (JS / "node_modules").is_dir(), reason="needs Node and `make js`")
@pytest.mark.parametrize("kind", ["multi-label", "one-label", "regressions"])
def test_javascript(kind: str, bundles: Bundles, tmp_path: Path) -> None:
    """With classify.onnx and without."""
    checkpoint, bundle = bundles[kind]
    bare = tmp_path / "bare"
    export_bundle(load_checkpoint(checkpoint), bare)
    pixels = np.asarray(Image.open(PICTURE).convert("RGB"))
    height, width, _ = pixels.shape
    program = f"""
        import {{ openBundle }} from '{JS}/node.mjs';
        const data = Uint8Array.from({pixels.ravel().tolist()});
        const image = {{ height: {height}, width: {width}, data }};
        const found = [];
        for (const path of process.argv.slice(2)) found.push(await (await openBundle(path)).classify(image));
        console.log(JSON.stringify(found));
    """
    script = tmp_path / "classify.mjs"
    script.write_text(program)
    done = subprocess.run(["node", script, bundle, bare], capture_output=True, text=True, check=True)
    expected = reference(checkpoint)
    single = "value" if kind.startswith("regression") else "probability"
    for found in json.loads(done.stdout):
        assert {row["label"]: pytest.approx(row[single], rel=1e-3, abs=1e-5) for row in found} == expected


@pytest.mark.parametrize("kind", ["multi-label", "regressions"])
def test_certificates(kind: str, bundles: Bundles, tmp_path: Path) -> None:
    """A regression has no classes to agree on, so nothing is claimed of them."""
    checkpoint = load_checkpoint(bundles[kind][0])
    options = ExportOptions(
        Precision("int8", "int8"), max_loss_increase=None if kind == "regressions" else float("inf")
    )
    certificate = export_bundle(checkpoint, tmp_path / "bundle", options).certificate
    assert certificate is not None
    shift = certificate["features"]["held_out"]
    if kind == "regressions":
        assert (shift["kl_divergence"], shift["top1_agreement"]) == (None, None)
        with pytest.raises(OptionError, match="predicts neither tokens nor classes"):
            export_bundle(checkpoint, tmp_path / "other", ExportOptions(Precision("int8", "int8"), max_loss_increase=1))
    else:
        assert 0 < shift["kl_divergence"] < 1 and 0.5 < shift["top1_agreement"] <= 1


def test_a_regression_has_no_confusion(bundles: Bundles, refused: Callable[..., str], tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.array([0, 1, 0, 1]))
    line = refused(main, "probe", "eval", tmp_path / "data.npz", "--model", bundles["regression"][1])
    assert "is a regression, which names no class; give a --probe" in line


def test_an_unknown_problem_type_is_refused(write_checkpoint: Callable[..., Path]) -> None:
    checkpoint = write_checkpoint("ImageGPTForImageClassification", fields={"num_labels": 3})
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "problem_type": "ranking"}))
    with pytest.raises(
        CheckpointError, match="problem_type is 'ranking', none of regression, multi_label_classification"
    ):
        load_checkpoint(checkpoint)
