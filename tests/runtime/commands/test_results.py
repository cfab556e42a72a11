"""What the commands of `igpt-run` write and print, the same way in all of them."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from igpt_runtime.cli import main
from igpt_runtime.engine.generate import GenerationOptions
from igpt_runtime.engine.session import open_session
from igpt_runtime.tasks.classify import classify
from igpt_runtime.tasks.complete import complete
from igpt_runtime.tasks.features import features
from igpt_runtime.tasks.sample import sample

Run = Callable[..., Result]
Refused = Callable[..., str]
COMMAND = [sys.executable, "-m", "igpt_runtime"]


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_complete(run: Run, tmp_path: Path, picture: Path) -> None:
    result = run("complete", picture, "-n", 3, "--seed", 5)
    assert result.stdout == "photo-completed.png\n"
    assert result.stderr.startswith("kept 4 of 8 rows; 3 pictures in ")
    assert result.stderr.endswith("seed 5, temperature 1, top-k 0, top-p 1; CPUExecutionProvider\n")
    assert files(tmp_path) == ["photo-completed.png"]
    with Image.open("photo-completed.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 5 * 128 > sheet.height


def test_complete_as_json(run: Run, picture: Path, tiny_bundle: Path) -> None:
    record = json.loads(run("complete", picture, "-n", 2, "--seed", 5, "-o", "out.jpg", "--json").stdout)
    expected = complete(open_session(tiny_bundle), picture, GenerationOptions(2, seed=5))
    (of_picture,) = record["images"]
    assert of_picture == {
        "image": str(picture), "files": ["out.jpg"], "likeness": None, "tokens": expected.tokens.tolist()
    }  # fmt: skip
    assert (record["n"], record["seed"], record["kept_rows"], record["skipped"]) == (2, 5, 4, [])
    assert (record["temperature"], record["top_k"], record["top_p"]) == (1, 0, 1)
    assert record["provider"] == "CPUExecutionProvider" and record["tokens_per_second"] > 0
    with Image.open("out.jpg") as sheet:
        assert sheet.format == "JPEG"


def test_sample(run: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    record = json.loads(run("sample", "-n", 2, "--temperature", 0.5, "--top-k", 4, "--top-p", 0.8, "--json").stdout)
    expected = sample(open_session(tiny_bundle), GenerationOptions(2, temperature=0.5, top_k=4, top_p=0.8))
    assert record["tokens"] == expected.tokens.tolist() and record["kept_rows"] == 0
    assert files(tmp_path) == ["samples.png"]


@pytest.mark.parametrize(
    ("keep", "rows"),
    [("top-half", 4), ("0.25", 2), ("25%", 2), ("1", 1), ("0", 0), ("7", 7), ("0.0", 0), ("0%", 0), ("87.5%", 7)],
)
def test_keep(run: Run, picture: Path, keep: str, rows: int) -> None:
    record = json.loads(run("complete", picture, "-n", 2, "--keep", keep, "--json").stdout)
    tokens = np.array(record["images"][0]["tokens"])
    assert record["kept_rows"] == rows
    assert (tokens[0, : rows * 8] == tokens[1, : rows * 8]).all()
    assert (tokens[0, rows * 8 :] != tokens[1, rows * 8 :]).any()


@pytest.mark.parametrize("scale", [None, 3])
def test_separate_and_animation(run: Run, tmp_path: Path, picture: Path, tiny_bundle: Path, scale: int | None) -> None:
    """Pictures by themselves are the model's own pixels, unless a scale is asked for."""
    options = [] if scale is None else ["--scale", scale]
    result = run("complete", picture, "-n", 2, "-o", "a.webp", "--separate", "--gif", *options)
    assert result.stdout.split() == ["a.webp", "a-1.webp", "a-2.webp", "a.gif"]
    assert files(tmp_path) == sorted(result.stdout.split())
    completions = complete(open_session(tiny_bundle), picture, GenerationOptions(2)).images
    step = scale or 1
    for i, completion in enumerate(completions, 1):
        with Image.open(f"a-{i}.webp") as single:
            assert single.format == "WEBP" and single.size == (8 * step, 8 * step)
            assert np.array_equal(np.asarray(single)[::step, ::step], np.asarray(completion))
    with Image.open("a.gif") as animation, Image.open("a.webp") as sheet:
        assert animation.n_frames == 17 and animation.size == sheet.size  # 32 tokens, 2 a frame, and the start


@pytest.fixture
def folder(tmp_path: Path, picture: Path) -> Path:
    """A directory with two pictures of one name and another one."""
    for name in ("a.png", "below/a.png", "below/b.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(picture) as image:
            image.rotate(90 * (name == "below/b.png")).save(path)
    return tmp_path / "pictures"


def test_several_pictures(run: Run, folder: Path, tiny_bundle: Path) -> None:
    record = json.loads(run("complete", folder, "-n", 2, "--output-dir", "new/out", "--separate", "--json").stdout)
    assert files(Path("new/out")) == sorted(
        f"{stem}-completed{i}.png" for stem in ["a-2", "a", "b"] for i in ("", "-1", "-2")
    )
    session = open_session(tiny_bundle)
    assert [row["image"] for row in record["images"]] == [
        str(folder / name) for name in ("a.png", "below/a.png", "below/b.png")
    ]
    for row in record["images"]:
        expected = complete(session, row["image"], GenerationOptions(2))
        assert row["tokens"] == expected.tokens.tolist()
        with Image.open(row["files"][1]) as single:
            assert np.array_equal(np.asarray(single), np.asarray(expected.images[0]))


def test_a_directory_of_one_picture_may_be_named(run: Run, folder: Path) -> None:
    (folder / "a.png").rename(folder / "one.png")
    assert run("complete", folder / "one.png", "-n", 1, "-o", "deep/er/x.png").stdout == "deep/er/x.png\n"


@pytest.mark.parametrize(
    "command", ["complete -n 1 --output-dir", "classify -o", "features -o", "score --maps maps -o"]
)
def test_pictures_are_given_and_left_out_in_one_way(
    run: Run, refused: Refused, folder: Path, tiny_bundle: Path, command: str
) -> None:
    """Files, directories, missing output directories, --skip-broken, --json: the same in the four commands."""
    name, *options = command.split()
    target = "new/out" if name == "complete" else "new/out.npz" if name == "features" else "new/out.csv"
    (folder / "below" / "broken.png").write_text("no picture")
    asked = [name, folder, folder / "a.png", *options, target]
    assert "broken.png' is not a PNG" in refused(main, *asked, "--model", tiny_bundle)
    result = run(*asked, "--skip-broken", "--json", status=3)
    record = json.loads(result.stdout)
    found = [str(folder / path) for path in ("a.png", "below/a.png", "below/b.png", "a.png")]
    assert [row["image"] for row in record["images"]] == found
    assert len(record["skipped"]) == 1 and "broken.png" in record["skipped"][0]
    assert result.stderr.count("skipped: ") == 1 and Path(target).exists()
    again = refused(main, *asked, "--skip-broken", "--model", tiny_bundle)
    assert again.endswith("exists; add --force to overwrite it, or choose another output")
    run(*asked, "--skip-broken", "--force", status=3)


@pytest.mark.parametrize(
    "command", ["complete -n 1 -o old.png", "classify -o old.csv", "features -o old.npz", "score -o old.csv"]
)
@pytest.mark.parametrize("wrong", ["--model nowhere", "--threads 0"])
def test_bad_options_are_told_before_outputs(
    refused: Refused, picture: Path, tmp_path: Path, command: str, wrong: str, tiny_bundle: Path
) -> None:
    name, *options = command.split()
    (tmp_path / options[-1]).write_text("mine")
    model = [] if "--model" in wrong else ["--model", tiny_bundle]
    line = refused(main, name, picture, *options, *wrong.split(), *model)
    assert line.startswith(("no bundle at nowhere", "Invalid value for '--threads': 0"))


def test_bad_values_are_told_before_outputs(refused: Refused, picture: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "old.png").write_text("mine")
    (tmp_path / "old.npz").write_text("mine")
    model = ["--model", tiny_bundle]
    for option in (["--keep", "9"], ["--scale", "0"], ["--top-p", "2"]):
        assert "exists" not in refused(main, "complete", picture, "-o", "old.png", *option, *model)
    assert refused(main, "features", picture, "-o", "old.npz", "--layers", "9", *model).startswith("layers must be")


def test_model_from_the_environment(
    picture: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IGPT_MODEL", str(tiny_bundle))
    for command in (["info"], ["sample", "-n", "1"], ["classify", str(picture)], ["bench", "-n", "1", "--rounds", "1"]):
        result = CliRunner().invoke(main, [*command, "--json"])
        assert result.exit_code == 0, result.output
        record = json.loads(result.stdout)
        if command[0] in ("info", "bench"):
            assert record["name"] == "tiny"
    monkeypatch.setenv("IGPT_MODEL", "nowhere")
    result = CliRunner().invoke(main, ["info"])
    assert result.exit_code == 1 and "no bundle at nowhere" in result.stderr


def test_threads(run: Run, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    asked = []
    original = onnxruntime.InferenceSession

    def opened(model: Any, options: Any, **others: Any) -> Any:
        asked.append(options.intra_op_num_threads)
        return original(model, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    run("classify", picture, "--threads", 3)
    assert asked == [3]


def test_force_overwrites(run: Run, refused: Refused, picture: Path, tiny_bundle: Path) -> None:
    run("complete", picture, "-n", 1, "-o", "a.png", "--gif")
    first = Path("a.png").read_bytes()
    for name in ("a.png", "a.gif"):
        line = refused(main, "complete", picture, "-n", 1, "--seed", 1, "-o", "a.png", "--gif", "--model", tiny_bundle)
        assert line == f"{name} exists; add --force to overwrite it, or choose another output"
        Path(name).rename(f"old-{name}")
    Path("old-a.png").rename("a.png")
    run("complete", picture, "-n", 1, "--seed", 1, "-o", "a.png", "--force")
    assert Path("a.png").read_bytes() != first


def test_classify(run: Run, picture: Path, tiny_bundle: Path) -> None:
    probabilities = classify(open_session(tiny_bundle), [picture])[0]
    first, *others = sorted(zip(probabilities, "abc", strict=True), reverse=True)
    expected = ", ".join(f"{label} {value:.1%}" for value, label in [first, *others])
    assert run("classify", picture, picture).stdout == f"{picture}: {expected}\n" * 2
    (record,) = json.loads(run("classify", picture, "--json").stdout)["images"]
    assert record["image"] == str(picture) and record["label"] == first[1]
    assert [row["label"] for row in record["probabilities"]] == [label for _, label in [first, *others]]
    assert np.allclose(
        [row["probability"] for row in record["probabilities"]], [value for value, _ in [first, *others]], atol=1e-6
    )


def test_classes_as_tables(run: Run, picture: Path, tiny_bundle: Path) -> None:
    probabilities = classify(open_session(tiny_bundle), [picture])[0]
    run("classify", picture, "-o", "classes.csv")
    with Path("classes.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["image"], row["label"]) == (str(picture), "abc"[probabilities.argmax()])
    assert np.allclose([float(row[f"{i} {label}"]) for i, label in enumerate("abc")], probabilities, atol=1e-6)
    record = json.loads(run("classify", picture, "-o", "classes.json", "--json").stdout)
    assert json.loads(Path("classes.json").read_text()) == record
    result = run("classify", picture, "-o", "-")
    assert result.stdout_bytes == Path("classes.csv").read_bytes()


def test_features(run: Run, picture: Path, tiny_bundle: Path) -> None:
    expected = features(open_session(tiny_bundle), [picture, picture])
    assert run("features", picture, picture, "-o", "all.npz").stdout == "all.npz\n"
    with np.load("all.npz") as saved:
        assert np.array_equal(saved["features"], expected)
        assert saved["layers"].tolist() == [0, 1, 2, 3] and saved["images"].tolist() == [str(picture)] * 2
    record = json.loads(run("features", picture, "-o", "two.npz", "--layers", "3,0", "--json").stdout)
    assert record == {
        "output": "two.npz", "images": [{"image": str(picture)}], "layers": [3, 0], "n_embd": 32, "protocol": "hf",
        "skipped": [],
    }  # fmt: skip
    with np.load("two.npz") as saved:
        assert np.abs(saved["features"] - expected[:1, [3, 0]]).max() <= 1e-6


def test_crop(run: Run, picture: Path, tiny_bundle: Path) -> None:
    session = open_session(tiny_bundle)
    record = json.loads(run("complete", picture, "-n", 1, "--crop", "--json").stdout)
    expected = complete(session, picture, GenerationOptions(1), crop=True)
    assert record["images"][0]["tokens"] == expected.tokens.tolist()
    (record,) = json.loads(run("classify", picture, "--crop", "--json").stdout)["images"]
    found = {row["label"]: row["probability"] for row in record["probabilities"]}
    probabilities = classify(session, [picture], crop=True)[0]
    assert np.allclose([found[label] for label in "abc"], probabilities, atol=1e-6)


def test_info(run: Run, tiny_bundle: Path) -> None:
    lines = dict(line.split(": ", 1) for line in run("info").stdout.splitlines())
    assert lines["path"].strip() == str(tiny_bundle)
    assert lines["model"].strip() == "3 layers x 32 wide, 4 heads, quick_gelu"
    assert lines["pictures"].strip() == "8x8, 16 colours"
    assert lines["classifier"].strip() == "3 labels on layer 1 (paper)"
    record = json.loads(run("info", "--json").stdout)
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert record == {**manifest, "provider": "CPUExecutionProvider"}


def test_info_shows_the_certificate(run: Run, bundle_of: Callable[[str, str], Path]) -> None:
    assert "drawing" not in run("info").stdout
    result = CliRunner().invoke(main, ["info", "--model", str(bundle_of("int8", "int8"))])
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert lines["precision"].strip() == "int8, cache int8"
    for graph, name in (("prefill", "prefilling"), ("decode", "drawing")):
        loss = open_session(bundle_of("int8", "int8")).manifest.certificate[graph]["held_out"]
        assert lines[name].strip().startswith(f"{loss['increase']:+.4f} nats per token, KL ")
