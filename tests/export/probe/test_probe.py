"""Probes: data in, classifier out, and the classifier in a bundle, in Python and in one graph."""

import contextlib
import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from igpt_export.probe.bake import bake_probe
from igpt_export.probe.data import TEST, TRAIN, VALIDATION, load_data, split_off
from igpt_export.probe.fit import STRENGTHS, Labelled, best_of, fit_layers, fit_linear, load_probe
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.cli import main
from igpt_runtime.engine.session import open_session
from igpt_runtime.errors import OptionError
from igpt_runtime.pictures.reading import read_image
from igpt_runtime.tasks.classify import classify
from igpt_runtime.tasks.features import features

RED, GREEN, BLUE = (220, 40, 40), (40, 220, 40), (40, 40, 220)
COLOURS = {"blue": BLUE, "green": GREEN, "red": RED}


def colourful(colour: tuple[int, int, int], rng: np.random.Generator, size: tuple[int, int] = (10, 16)) -> Image.Image:
    """A noisy picture of one colour."""
    return Image.fromarray(np.clip(rng.normal(colour, 40, (*size, 3)), 0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of three colours, 12 to fit and 6 to test."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for name, colour in COLOURS.items():
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                colourful(colour, rng).save(tmp_path / "data" / split / name / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def run(tiny_bundle: Path) -> Callable[..., Result]:
    def invoke(*arguments: object, model: Path = tiny_bundle) -> Result:
        return CliRunner().invoke(main, ["probe", *map(str, arguments), "--model", str(model)])

    return invoke


def test_fit_evaluate_export_classify(folder: Path, run: Callable[..., Result], tiny_bundle: Path) -> None:
    result = run("fit", "data", "--concat", "2", "-o", "out", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["labels"] == ["blue", "green", "red"] and len(record["layers"]) == 5
    assert record["pictures"] == {"test": 18, "train": 29, "validation": 7}
    assert record["test_accuracy"] >= 0.9 and record["best"]["validation_accuracy"] >= 0.8
    with open("out/curve.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["layers"] for row in rows][:4] == ["0", "1", "2", "3"] and len(rows[4]["layers"].split()) == 2
    assert read_image("out/curve.png").width > 500
    result = run("eval", "data", "--split", "test", "--probe", "out", "-o", "confusion.csv", "--json")
    measured = json.loads(result.stdout)
    assert measured["accuracy"] == record["test_accuracy"] and np.sum(measured["confusion"]) == 18
    with open("confusion.csv") as file:
        assert [list(map(int, row[1:])) for row in list(csv.reader(file))[1:]] == measured["confusion"]
    assert run("eval", "data", "--probe", "out/probe.npz", "-o", "confusion.png").exit_code == 0
    assert read_image("confusion.png").width > 200
    assert run("export", "out", "-o", "bundle").stdout == "bundle\n"
    session = open_session("bundle", device="cpu")
    assert session.manifest.classifier is not None and session.manifest.classifier.labels == ("blue", "green", "red")
    by_bundle = json.loads(run("eval", "data", "--split", "test", "--json", model=Path("bundle")).stdout)
    assert by_bundle["confusion"] == measured["confusion"]
    graph = onnxruntime.InferenceSession("bundle/classify.onnx")
    probe = load_probe(Path("out/probe.npz"))
    pictures = sorted(map(str, (folder / "test").rglob("*.png")))
    values = features(session, pictures, layers=probe.layers, protocol="hf").reshape(len(pictures), -1)
    logits = probe.linear.logits(values)
    expected = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    assert np.abs(classify(session, pictures) - expected).max() < 1e-4
    for picture, probabilities in zip(pictures[::5], expected[::5], strict=True):
        pixels = np.asarray(read_image(picture))
        assert np.abs(graph.run(None, {"image": pixels})[0] - probabilities).max() < 1e-4
    assert (
        "data/test/red/0.png: red "
        in CliRunner().invoke(main, ["classify", "--model", "bundle", "data/test/red/0.png"]).stdout
    )
    # What the other graphs compute has not changed.
    assert np.abs(features(session, pictures) - features(open_session(tiny_bundle), pictures)).max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "kv_cache"), [("int8", "int8"), ("fp16", "fp16")])
def test_a_probe_goes_into_another_precision(
    folder: Path, run: Callable[..., Result], bundle_of: Callable[[str, str], Path], weights: str, kv_cache: str
) -> None:
    assert run("fit", "data", "--layers", "1,2", "-o", "out").exit_code == 0
    bundle = bundle_of(weights, kv_cache)
    made = bake_probe(open_bundle(bundle), load_probe(Path("out/probe.npz")), Path("baked"))
    assert made.certificate is not None and made.certificate["features"]["held_out"]["top1_agreement"] is None
    session = open_session("baked", device="cpu")
    assert session.manifest == session.bundle.manifest and session.manifest.precision == weights
    accuracy = json.loads(run("eval", "data", "--split", "test", "--json", model=Path("baked")).stdout)["accuracy"]
    assert accuracy >= 0.9
    lines = CliRunner().invoke(main, ["info", "--model", "baked"]).stdout
    assert "3 labels on layer" in lines


def test_a_probe_of_another_checkpoint_is_refused(folder: Path, run: Callable[..., Result]) -> None:
    assert run("fit", "data", "--layers", "1", "-o", "out").exit_code == 0
    result = CliRunner().invoke(main, ["probe", "export", "out", "-o", "bundle"])  # into the demo
    assert result.exit_code == 1 and "the probe was fitted on tiny" in result.stderr and not Path("bundle").exists()


def test_a_probe_of_another_bundle_is_not_evaluated(folder: Path, run: Callable[..., Result]) -> None:
    assert run("fit", "data", "--layers", "1", "-o", "out").exit_code == 0
    result = CliRunner().invoke(main, ["probe", "eval", "data", "--probe", "out"])  # of the demo, which is wider
    assert result.exit_code == 1 and "the probe was fitted on tiny" in result.stderr


def test_one_class_to_fit_on_is_refused(folder: Path, run: Callable[..., Result]) -> None:
    for name in ("green", "red"):
        shutil.move(folder / "train" / name, folder / name)
    result = run("fit", "data", "-o", "out")
    assert result.exit_code == 1 and "no class" not in result.stderr
    assert "the part to fit on has one class, 'blue'; at least two" in result.stderr and not Path("out").exists()
    shutil.move(folder / "red", folder / "train" / "red")
    for picture in (folder / "train" / "red").iterdir():
        picture.write_text("no picture")
    result = run("fit", "data", "-o", "out", "--skip-broken")
    assert result.exit_code == 1 and "the part to fit on has one class, 'blue'" in result.stderr.splitlines()[-1]
    numbers = {"labels": np.zeros(8, np.int64), "label_names": np.array(["a", "b"])}
    write_npz(Path("a.npz"), **numbers)
    assert "has one class, 'a'" in run("fit", "a.npz", "-o", "out2").stderr
    write_npz(Path("b.npz"), split=np.array(["val"] * 8))
    assert "no part to fit on, only validation; add one called train" in run("fit", "b.npz", "-o", "out2").stderr


def test_a_damaged_archive_at_any_byte(folder: Path, run: Callable[..., Result]) -> None:
    write_npz(Path("a.npz"))
    with np.load("a.npz") as stored:
        np.savez_compressed("b.npz", **stored)
    data = bytearray(Path("b.npz").read_bytes())
    for place in range(40, len(data), len(data) // 40):
        Path("c.npz").write_bytes(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :])
        with contextlib.suppress(OptionError):  # and nothing else
            load_data("c.npz")


def test_directories_of_parts(folder: Path, run: Callable[..., Result]) -> None:
    """Which need no train to be measured on; pictures that lie beside the classes are told of."""
    assert run("fit", "data", "--layers", "1", "-o", "out").exit_code == 0
    shutil.rmtree(folder / "train")
    result = run("eval", "data", "--split", "test", "--probe", "out", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["pictures"] == 18
    assert "no part to fit on, only test" in run("fit", "data", "-o", "out2").stderr
    colourful(RED, np.random.default_rng(0)).save(folder / "test" / "loose.png")
    assert "test has no labels: loose.png is in no class" in run("eval", "data", "--probe", "out").stderr


def test_an_interrupted_fit_goes_on(folder: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    from igpt_runtime.tasks import feature_store

    original, seen = feature_store.feature_batches, []

    def feature_batches(*args: Any, **options: Any) -> Any:
        for batch in original(*args, **options):
            if len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(batch)
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(feature_store, "feature_batches", feature_batches)
        assert run("fit", "data", "-o", "out").exit_code == 1
    result = run("fit", "data", "-o", "out")
    assert result.exit_code == 0 and "going on after 16 of" in result.stderr
    assert "probe.npz exists; add --force" in run("fit", "data", "-o", "out").stderr
    assert run("fit", "data", "-o", "out", "--force").exit_code == 0


@pytest.mark.parametrize("again", [[], ["--force"]])
def test_a_fit_that_ends_between_its_files(
    folder: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, again: list[str]
) -> None:
    """Its files are no results: the same command makes them anew, and an old report is not left beside a new probe."""
    from igpt_export.probe import plot

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    if again:
        assert run("fit", "data", "-o", "out", "--layers", "1").exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr(plot, "plot_curve", stop)
        assert run("fit", "data", "-o", "out", *again).exit_code == 1
    assert (folder.parent / "out" / "probe.npz").exists() and not (folder.parent / "out" / "report.json").exists()
    assert run("fit", "data", "-o", "out").exit_code == 0
    assert "exists; add --force" in run("fit", "data", "-o", "out").stderr


def test_broken_pictures(folder: Path, run: Callable[..., Result]) -> None:
    (folder / "train" / "red" / "3.png").write_text("no picture")
    result = run("fit", "data", "--layers", "1", "-o", "out")
    assert result.exit_code == 1 and "red/3.png' is not a PNG" in result.stderr and not Path("out/probe.npz").exists()
    result = run("fit", "data", "--layers", "1", "-o", "out", "--skip-broken", "--json")
    record = json.loads(result.stdout)
    assert result.exit_code == 3 and len(record["skipped"]) == 1 and sum(record["pictures"].values()) == 53
    result = run("eval", "data", "--probe", "out", "--skip-broken", "--json")
    assert result.exit_code == 3 and json.loads(result.stdout)["pictures"] == 53


def write_npz(path: Path, **arrays: Any) -> Path:
    rng = np.random.default_rng(0)
    stored = {"images": rng.integers(0, 256, (8, 5, 4, 3), np.uint8), "labels": np.array(["b", "a"] * 4), **arrays}
    np.savez(path, **{name: array for name, array in stored.items() if array is not None})
    return path


def test_arrays(tmp_path: Path) -> None:
    data = load_data(str(write_npz(tmp_path / "a.npz")))
    assert data.label_names == ("a", "b") and data.parts[TRAIN].labels.tolist() == [1, 0] * 4
    numbers = {"labels": np.array([2, 0] * 4), "label_names": np.array(["x", "y", "z"])}
    split = np.array(["train", "val", "test", "train"] * 2)
    data = load_data(str(write_npz(tmp_path / "b.npz", split=split, images=np.zeros((8, 3, 3), np.uint8), **numbers)))
    assert data.label_names == ("x", "y", "z")
    assert {name: part.labels.tolist() for name, part in data.parts.items()} == {
        TRAIN: [2, 0, 2, 0], VALIDATION: [0, 0], TEST: [2, 2],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"labels": None}, "has no array 'labels'; put each class into a directory"),
        ({"images": None}, "has no array 'images'"),
        ({"images": np.zeros((8, 4, 4, 3))}, "images are float64 [8, 4, 4, 3], not uint8"),
        ({"images": np.zeros((8, 4, 4, 4), np.uint8)}, "images are uint8 [8, 4, 4, 4], not"),
        ({"labels": np.zeros(7, np.int64)}, "labels are [7], not one for each of 8 images"),
        ({"labels": np.zeros(8)}, "labels are float64, neither numbers nor texts"),
        ({"labels": np.array(["a"] * 8)}, "has 1 class; at least two are needed"),
        ({"labels": np.arange(8), "label_names": np.array(["x"])}, "labels are not indices of label_names, 0 .. 0"),
        ({"split": np.array(["dev"] * 8)}, "split is not one of train, val"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError) as caught:
        load_data(str(write_npz(tmp_path / "a.npz", **arrays)))
    assert expected in str(caught.value)


def test_bad_data(folder: Path, run: Callable[..., Result]) -> None:
    Path("text.npz").write_text("text")
    Path("flat").mkdir()
    Path("one/cat").mkdir(parents=True)
    colourful(RED, np.random.default_rng(0)).save("one/cat/a.png")
    expected = {
        "none": "none is neither a directory nor a file",
        "text.npz": "text.npz is no .npz file of arrays",
        "flat": "flat has no labels: there are no directories in it; put each class into a directory of its own",
        "one": "one has one class, 'cat'; at least two are needed",
    }
    for data, line in expected.items():
        result = run("fit", data, "-o", "out")
        assert result.exit_code == 1 and result.stderr.startswith(f"Error: {line}"), result.output
        assert result.stderr.count("\n") == 1 and not Path("out").exists()
    Path("one/dog").mkdir()
    colourful(BLUE, np.random.default_rng(0)).save("one/dog/a.png")
    assert "class 'cat' has one picture" in run("fit", "one").stderr
    assert "--validation must be a share" in run("fit", "data", "--validation", "1.5").stderr
    assert "--concat 9 needs that many consecutive layers" in run("fit", "data", "--concat", "9", "-o", "out").stderr
    assert "it has test, train" in run("eval", "data", "--split", "validation").stderr
    assert "does not know the class 'blue'" in run("eval", "data").stderr  # the tiny model knows a, b, c
    assert "written as .csv or .png" in run("eval", "data", "-o", "a.txt").stderr
    assert "--seed" in run("fit", "data", "--seed", "-1").stderr
    Path("probe.npz").write_text("text")
    assert "probe.npz is no probe, or damaged" in run("export", "probe.npz").stderr
    assert "nothing.npz cannot be read (No such file" in run("eval", "data", "--probe", "nothing.npz").stderr


@pytest.mark.parametrize("missing", ["sklearn.linear_model", "matplotlib.figure"])
def test_missing_packages(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith(("igpt_export.probe.fit", "igpt_export.probe.plot"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    result = run("fit", "data")
    assert result.exit_code == 1 and "pip install -c constraints.txt '.[probe]'" in result.stderr


def blobs(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy points around a centre for each class, float32 [n, 5], of very different scales, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.random.default_rng(9).normal(size=(classes, 5))
    return ((centres[labels] + rng.normal(0, 1.5, (n, 5))) * [1, 10, 0.1, 1, 100] + 7).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_a_fit_is_scikit_learns_best(classes: int) -> None:
    (train, labels), (held, held_labels) = blobs(200, classes, 1), blobs(99, classes, 2)
    fit = fit_linear(Labelled(train, labels), Labelled(held, held_labels), classes)
    accuracies = {}
    for strength in STRENGTHS:
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        pipeline.fit(train, labels)
        accuracies[strength] = pipeline.score(held, held_labels)
        if strength == fit.strength:
            logits = fit.linear.logits(held)
            ours = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
            assert np.abs(ours - pipeline.predict_proba(held)).max() < 0.01
    assert fit.validation_accuracy == pytest.approx(max(accuracies.values()), abs=0.02)


def test_a_class_without_training_pictures_is_never_named() -> None:
    (train, labels), (held, held_labels) = blobs(100, 3, 1), blobs(40, 3, 2)
    fit = fit_linear(Labelled(train[labels != 1], labels[labels != 1]), Labelled(held, held_labels), 3)
    assert set(fit.linear.logits(held).argmax(1)) == {0, 2} and np.isfinite(fit.validation_nats)


def test_joined_layers_are_those_around_the_best() -> None:
    rng = np.random.default_rng(0)
    signal, labels = blobs(120, 3, 1)
    layers = rng.normal(size=(120, 6, 5)).astype(np.float32)
    layers[:, 4] = signal
    train, held = Labelled(layers[:80], labels[:80]), Labelled(layers[80:], labels[80:])
    fits = fit_layers(train, held, 3, range(6), concat=3)
    assert best_of(fits[:6]).layers == (4,) and fits[6].layers == (3, 4, 5)
    with pytest.raises(OptionError, match="--concat 2 needs that many consecutive layers"):
        fit_layers(*(Labelled(part.features[:, :2], part.labels) for part in (train, held)), 3, [1, 5], concat=2)


def test_a_split_has_every_class(folder: Path) -> None:
    data = split_off(load_data("data"), 0.1, seed=3)
    for part in data.parts.values():
        assert set(part.labels.tolist()) == {0, 1, 2}
    assert {len(part.labels) for part in data.parts.values()} == {32, 4, 18}
    again = split_off(load_data("data"), 0.1, seed=3)
    assert list(again.parts[VALIDATION].pictures) == list(data.parts[VALIDATION].pictures)
