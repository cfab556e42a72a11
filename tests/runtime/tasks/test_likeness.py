"""Telling pictures of another kind, in the library and in each command, by an edited manifest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from igpt_runtime import complete, open_session, score
from igpt_runtime.bundle.manifest import manifest_from_json
from igpt_runtime.cli import main
from igpt_runtime.engine.generate import GenerationOptions
from igpt_runtime.errors import BundleError
from igpt_runtime.tasks.classify import class_results
from igpt_runtime.tasks.likeness import Likeness, likeness

ROWS = 8
Edit = Callable[[Path, Callable[[dict[str, Any]], Any]], None]


@pytest.fixture
def knowing(bundle_copy: Path, edit_manifest: Edit) -> Callable[[float, float, float], Path]:
    """A function that makes the bundle one that knows what its own pictures cost, whatever their rows."""

    def make(low: float, median: float, high: float) -> Path:
        known = {"pictures": "3 held-out pictures of x", "by_rows": [[low, median, high]] * ROWS}
        edit_manifest(bundle_copy, lambda record: record.update(likelihood=known))
        return bundle_copy

    return make


def test_the_rule(knowing: Callable[..., Path]) -> None:
    manifest = open_session(knowing(1.0, 2.0, 2.5)).manifest
    for cost, unlike in ((0.0, False), (3.49, False), (3.51, True)):
        found = likeness(manifest, np.full((2, 8), cost, np.float32))
        assert found is not None and found.unlike is unlike and found.usual == (1.0, 2.5)
        assert (found.notice is not None) is unlike
    assert likeness(manifest, np.zeros(0, np.float32)) is None


def test_a_bundle_that_does_not_know(tiny_bundle: Path, picture: Path) -> None:
    session = open_session(tiny_bundle)
    assert session.manifest.likelihood is None
    assert complete(session, picture, GenerationOptions(n=1)).likeness is None


@pytest.mark.parametrize("keep", [0, 1, 5])
def test_completing_compares_the_given_rows(
    knowing: Callable[..., Path], tiny_bundle: Path, picture: Path, keep: int
) -> None:
    plain, session = open_session(tiny_bundle), open_session(knowing(0, 0, 0))
    found = complete(session, picture, GenerationOptions(n=2, seed=3), keep=keep)
    assert (found.tokens == complete(plain, picture, GenerationOptions(n=2, seed=3), keep=keep).tokens).all()
    if keep == 0:
        assert found.likeness is None
        return
    (scored,) = score(session, picture)
    assert found.likeness is not None and found.likeness.unlike
    assert found.likeness.nats_per_token == pytest.approx(scored.nats[:keep].mean(), rel=1e-5)


@pytest.mark.parametrize("protocol", ["hf", "paper"])
def test_classifying_compares_the_picture(
    knowing: Callable[..., Path], edit_manifest: Edit, picture: Path, protocol: str
) -> None:
    bundle = knowing(0, 0, 0)
    edit_manifest(bundle, lambda record: record["classifier"].update(protocol=protocol))
    session = open_session(bundle)
    seen: dict[int, Likeness] = {}
    ((_, results),) = class_results(session, [picture, picture], compared=seen.__setitem__)
    ((_, expected),) = class_results(session, [picture, picture])
    assert (results == expected).all()
    (scored,) = score(session, picture, protocol=protocol)
    assert {index: one.nats_per_token for index, one in seen.items()} == {
        0: pytest.approx(scored.nats_per_token, rel=1e-5), 1: pytest.approx(scored.nats_per_token, rel=1e-5),
    }  # fmt: skip


COMMANDS = {
    "complete": ["--keep", "4", "-n", "1", "--output-dir", "out", "--force"],
    "classify": [],
    "score": [],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_say_so(
    command: str, knowing: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        Image.new("RGB", (8, 8), (30 * number, 0, 0)).save(f"{number}.png")
    names = [f"{number}.png" for number in range(7)]

    def run(*arguments: object) -> Any:
        result = CliRunner().invoke(main, [command, *names, *COMMANDS[command], *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result

    result = run("--model", knowing(0, 0, 0), "--json")
    told = [line for line in result.stderr.splitlines() if "unlike" in line]
    assert [line.split(":")[0] for line in told[:5]] == names[:5]
    assert all("nats a pixel, its own pictures cost 0.0 to 0.0" in line for line in told[:5])
    assert told[5:] == ["2 more pictures are unlike what this model was trained on"]
    found = [image["likeness"] for image in json.loads(result.stdout)["images"]]
    assert all(one["unlike"] and one["usual"] == [0, 0] and one["nats_per_token"] > 0 for one in found)

    result = run("--model", knowing(0, 50, 100), "--json")
    assert "unlike" not in result.stderr
    assert not any(image["likeness"]["unlike"] for image in json.loads(result.stdout)["images"])
    if command == "classify":
        result = run("--model", knowing(0, 0, 0), "--json", "--no-compare")
        assert "unlike" not in result.stderr
        assert [image["likeness"] for image in json.loads(result.stdout)["images"]] == [None] * 7


@pytest.mark.parametrize(
    "damaged",
    [
        {"pictures": 3, "by_rows": [[0, 1, 2]] * ROWS},
        {"pictures": "x", "by_rows": [[0, 1, 2]] * (ROWS - 1)},
        {"pictures": "x", "by_rows": [[0, 2, 1]] * ROWS},
        {"pictures": "x", "by_rows": [[0, 1]] * ROWS},
        {"pictures": "x", "by_rows": [["0", 1, 2]] * ROWS},
        {"pictures": "x"},
        [],
    ],
)
def test_damaged_figures_are_refused(tiny_bundle: Path, damaged: object) -> None:
    record = json.loads((tiny_bundle / "manifest.json").read_text()) | {"likelihood": damaged}
    with pytest.raises(BundleError, match=r"x (lacks the field|has a malformed field) .*export the bundle again"):
        manifest_from_json(json.dumps(record), "x")


@pytest.mark.parametrize(
    "damaged", [{"file": "other.png", "names": ["a"]}, {"file": "decode.onnx", "names": []}, {"names": ["a"]}, "a"]
)
def test_damaged_examples_are_refused(tiny_bundle: Path, damaged: object) -> None:
    record = json.loads((tiny_bundle / "manifest.json").read_text()) | {"examples": damaged}
    with pytest.raises(BundleError, match="export the bundle again"):
        manifest_from_json(json.dumps(record), "x")
