"""Features of folders: files, labels, broken pictures, and runs that are interrupted at any point."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from pyarrow import parquet

from igpt_runtime.cli import main
from igpt_runtime.engine.session import open_session
from igpt_runtime.errors import OutputError
from igpt_runtime.pictures.reading import as_image
from igpt_runtime.tasks.features import features

NAMES = [f"{label}/{i}.png" for label in ("cat", "dog") for i in range(11)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """22 pictures of two classes, below the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    for name in NAMES:
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 14, 3), np.uint8)).save(path)
    return tmp_path / "pets"


def paths() -> list[str]:
    return sorted(f"pets/{name}" for name in NAMES)


@pytest.fixture
def run(tiny_bundle: Path) -> Callable[..., Result]:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["features", *map(str, arguments), "--model", str(tiny_bundle)])

    return invoke


def test_npz_of_a_folder(folder: Path, run: Callable[..., Result], tiny_bundle: Path) -> None:
    result = run("pets", "-o", "a.npz", "--layers", "2,0", "--protocol", "paper", "--json")
    record = json.loads(result.stdout)
    assert (len(record["images"]), record["layers"], record["protocol"]) == (22, [2, 0], "paper")
    with np.load("a.npz") as saved:
        assert saved["images"].tolist() == paths()
        assert saved["labels"].tolist() == [path.split("/")[1] for path in paths()]
        assert str(saved["protocol"]) == "paper" and saved["layers"].tolist() == [2, 0]
        expected = features(open_session(tiny_bundle), paths(), layers=[2, 0], protocol="paper")
        assert np.array_equal(saved["features"], expected)
    assert sorted(os.listdir(".")) == ["a.npz", "pets"]


def test_parquet(folder: Path, run: Callable[..., Result], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from igpt_runtime.tasks import feature_files

    monkeypatch.setattr(feature_files, "_ROWS", 5)
    assert run("pets", "-o", "a.parquet", "--layers", "1,3").exit_code == 0
    table = parquet.read_table("a.parquet")
    assert table.column_names == ["image", "label", "layer_1", "layer_3"]
    assert table["image"].to_pylist() == paths()
    expected = features(open_session(tiny_bundle), paths(), layers=[1, 3])
    for i, layer in enumerate((1, 3)):
        assert np.array_equal(np.array(table[f"layer_{layer}"].to_pylist(), np.float32), expected[:, i])
    assert table.schema.metadata[b"protocol"] == b"hf" and table.schema.metadata[b"model"] == b"tiny"


def test_parquet_needs_pyarrow(folder: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("pets", "-o", "a.parquet")
    assert result.exit_code == 1 and "pip install pyarrow, or write .npz" in result.stderr


def count_embedded(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[str]:
    """Pictures as they are read; the run is interrupted at one of them."""
    read: list[str] = []
    original = as_image

    def read_one(picture: Any) -> Image.Image:
        if stop_after is not None and len(read) == stop_after:
            raise KeyboardInterrupt
        read.append(str(picture))
        return original(picture)

    monkeypatch.setattr(sys.modules["igpt_runtime.tasks.features"], "as_image", read_one)
    return read


@pytest.mark.parametrize("stop_after", [3, 8, 17])
def test_an_interrupted_run_goes_on(
    folder: Path, run: Callable[..., Result], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    done = stop_after // 8 * 8
    with monkeypatch.context() as patched:
        count_embedded(patched, stop_after)
        result = run("pets", "-o", "a.npz")
        assert result.exit_code == 1 and "Traceback" not in result.output
    assert Path("a.npz.partial").exists() == (done > 0) and not Path("a.npz").exists()
    read = count_embedded(monkeypatch)
    result = run("pets", "-o", "a.npz")
    assert result.exit_code == 0 and read == paths()[done:]
    if done:
        assert f"going on after {done} of 22 pictures" in result.stderr
    with np.load("a.npz") as saved:
        expected = features(open_session(tiny_bundle), paths())
        assert np.abs(saved["features"] - expected).max() <= 1e-6
    assert not Path("a.npz.partial").exists()


def test_a_killed_process_loses_nothing_it_had_written(folder: Path, tiny_bundle: Path) -> None:
    code = """
import os, signal
from igpt_runtime.tasks import feature_store
from igpt_runtime.cli import main
feature_store._BETWEEN = 0  # else the last second is lost
original = feature_store.feature_batches
def feature_batches(*args, **options):
    for i, batch in enumerate(original(*args, **options)):
        if i == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch
feature_store.feature_batches = feature_batches
main()
"""
    command = ["features", "pets", "-o", "a.npz", "--model", str(tiny_bundle)]
    killed = subprocess.run([sys.executable, "-c", code, *command], check=False)
    assert killed.returncode == -signal.SIGKILL
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0 and "going on after 16 of 22 pictures" in result.stderr


def test_another_request_does_not_go_on(
    folder: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        count_embedded(patched, 9)
        run("pets", "-o", "a.npz")
    result = run("pets", "-o", "a.npz", "--layers", "1")
    assert (
        result.exit_code == 1
        and "a.npz.partial holds features of a run with other layers; add --force" in result.stderr
    )
    os.utime(folder / "cat" / "0.png", (1, 1))
    assert "with other pictures; add --force" in run("pets", "-o", "a.npz").stderr
    assert run("pets", "-o", "a.npz", "--force").exit_code == 0
    Path("b.npz.partial").mkdir()
    Path("b.npz.partial/mine").touch()
    assert "exists and holds no features; remove it" in run("pets", "-o", "b.npz", "--force").stderr


def test_broken_pictures(folder: Path, run: Callable[..., Result]) -> None:
    (folder / "cat" / "5.png").write_text("not a picture")
    result = run("pets", "-o", "a.npz")
    assert result.exit_code == 1 and "Error: 'pets/cat/5.png' is not a PNG" in result.stderr.splitlines()[-1]
    assert not Path("a.npz").exists()
    result = run("pets", "-o", "a.npz", "--skip-broken", "--json")
    assert result.exit_code == 3 and "skipped: 'pets/cat/5.png' is not a PNG" in result.stderr
    assert len(json.loads(result.stdout)["images"]) == 21 and len(json.loads(result.stdout)["skipped"]) == 1
    with np.load("a.npz") as saved:
        assert saved["images"].tolist() == [path for path in paths() if path != "pets/cat/5.png"]
        assert saved["features"].shape == (21, 4, 32) and np.abs(saved["features"]).max(axis=(1, 2)).all()


def test_a_run_with_a_dangling_link_goes_on(
    folder: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "dog" / "zz.png").symlink_to("nowhere.png")
    with monkeypatch.context() as patched:
        count_embedded(patched, 9)
        assert run("pets", "-o", "a.npz", "--skip-broken").exit_code == 1
    result = run("pets", "-o", "a.npz", "--skip-broken")
    assert result.exit_code == 3 and "going on after 8 of 23 pictures" in result.stderr


def test_features_without_the_broken_ones_stay_on_the_disk(
    folder: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from igpt_runtime.tasks import feature_store

    monkeypatch.setattr(feature_store, "_AT_ONCE", 4)
    session = open_session(tiny_bundle)
    for broken in ([], [5], [0, 21]):
        pictures = [b"none" if i in broken else path for i, path in enumerate(paths())]
        request = feature_store.feature_request(session, [[i, broken] for i in range(22)], layers=None, protocol="hf")
        store = feature_store.FeatureStore(Path("store"), request, restart=True)
        store.fill(session, pictures, broken=lambda _: None)
        values = store.values()
        kept = [path for i, path in enumerate(paths()) if i not in broken]
        assert isinstance(values, np.memmap) and np.abs(values - features(session, kept)).max() <= 1e-6
        with pytest.raises(OutputError, match="another run writes to store; wait for its end"):
            feature_store.FeatureStore(Path("store"), request, restart=True)
        store.release()


@pytest.mark.parametrize("left", [["lock"], ["rows", "done"], ["request.json"], ["lock", "rows", "request.json"]])
def test_what_a_kill_at_the_beginning_leaves_is_no_hindrance(
    folder: Path, run: Callable[..., Result], left: list[str]
) -> None:
    Path("a.npz.partial").mkdir()
    for name in left:
        Path("a.npz.partial", name).touch()
    assert run("pets", "-o", "a.npz").exit_code == 0
    assert not Path("a.npz.partial").exists()


def test_marks_without_their_features_do_not_count(
    folder: Path, tiny_bundle: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may leave them."""
    run("pets", "-o", "whole.npz")
    with monkeypatch.context() as patched:
        count_embedded(patched, 9)
        run("pets", "-o", "a.npz")
    rows = Path("a.npz.partial/rows")
    size = rows.stat().st_size // 8
    with rows.open("r+b") as file:
        file.truncate(3 * size + 5)
    assert run("pets", "-o", "a.npz").exit_code == 0
    with np.load("a.npz") as found, np.load("whole.npz") as whole:
        assert (found["features"] == whole["features"]).all()


def test_names_that_are_no_text(folder: Path, run: Callable[..., Result]) -> None:
    os.rename(folder / "cat" / "5.png", os.fsencode(folder / "cat") + b"/caf\xe9.png")
    assert run("pets", "-o", "a.parquet", "--layers", "1").exit_code == 0
    names = parquet.read_table("a.parquet")["image"].to_pylist()
    assert len(names) == 22 and "pets/cat/caf\N{REPLACEMENT CHARACTER}.png" in names


@pytest.mark.parametrize(("limit", "kept"), [(2000, False), (6000, True)])
def test_full_disk(folder: Path, tiny_bundle: Path, limit: int, kept: bool) -> None:
    command = [sys.executable, "-m", "igpt_runtime", "features", "pets", "-o", "a.npz", "--model", str(tiny_bundle)]
    limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    done = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot write a.npz.partial: File too large; make room" in done.stderr
    assert not Path("a.npz").exists() and Path("a.npz.partial").exists() == kept
    assert subprocess.run(command, check=False).returncode == 0


def test_a_run_with_nothing_left_but_broken_pictures_ends(
    folder: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "dog" / "9.png").write_text("not a picture")  # the last one
    with monkeypatch.context() as patched:
        patched.setattr("igpt_runtime.tasks.feature_files._write_npz", interrupted)
        assert run("pets", "-o", "a.npz", "--skip-broken").exit_code == 1
    result = run("pets", "-o", "a.npz", "--skip-broken", "--json")
    assert result.exit_code == 3 and len(json.loads(result.stdout)["images"]) == 21
    for path in folder.rglob("*.png"):
        path.write_text("not a picture")
    assert "none of 22 pictures can be read" in run("pets", "-o", "b.npz", "--skip-broken").stderr


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
