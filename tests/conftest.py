"""A tiny checkpoint, a tiny bundle exported from it, and commands that are refused."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import terminal_signals
from filelock import FileLock
from tiny_checkpoints import BUNDLED, add_probe, save_checkpoint

terminal_signals.heed()


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """`save_checkpoint` into a directory of this test, called `name`."""

    def write(*args: Any, name: str = "tiny", **fields: Any) -> Path:
        return save_checkpoint(tmp_path / name, *args, **fields)

    return write


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """A function from a name and what makes a directory to that directory, which all workers have in common."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "made-once"
    (shared / "partial").mkdir(parents=True, exist_ok=True)

    def get(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).exists():
                make(shared / "partial" / name)
                (shared / "partial" / name).rename(shared / name)
        return shared / name

    return get


@pytest.fixture(scope="session")
def tiny_checkpoint(made_once: MadeOnce) -> Path:
    """A causal checkpoint of 8x8 pictures in 16 colours with a probe on layer 1. Read only."""

    def make(directory: Path) -> None:
        save_checkpoint(directory, fields=BUNDLED)
        add_probe(directory, layer=1)

    return made_once("tiny", make)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, made_once: MadeOnce) -> Path:
    """The bundle of `tiny_checkpoint`, with every graph. Read only: copy it to change it."""
    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.export import ExportOptions, export_bundle

    checkpoint = load_checkpoint(tiny_checkpoint)
    return made_once("tiny-fp32", lambda directory: export_bundle(checkpoint, directory, ExportOptions(embed=True)))


@pytest.fixture(scope="session")
def digits_bundle(made_once: MadeOnce) -> Path:
    """The model of digits as an fp32 bundle, with every graph and its examples. Read only."""
    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.export import ExportOptions, export_bundle

    checkpoint = Path(__file__).parent.parent / "models" / "digits"
    options = ExportOptions(embed=True, examples=checkpoint / "examples")
    return made_once("digits", lambda directory: export_bundle(load_checkpoint(checkpoint), directory, options))


@pytest.fixture(scope="session")
def bundle_of(tiny_checkpoint: Path, tiny_bundle: Path, made_once: MadeOnce) -> Callable[[str, str], Path]:
    """A function from precisions of weights and cache to the bundle of `tiny_checkpoint` in them, with every graph.

    Read only.
    """
    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.export import ExportOptions, export_bundle
    from igpt_export.precision.precision import Precision

    def make(weights: str, kv_cache: str) -> Path:
        if (weights, kv_cache) == ("fp32", "fp32"):
            return tiny_bundle
        # Random weights feel rounding more than trained ones do: no limit to the loss.
        options = ExportOptions(Precision(weights, kv_cache), embed=True, max_loss_increase=float("inf"))
        checkpoint = load_checkpoint(tiny_checkpoint)
        return made_once(f"{weights}-{kv_cache}", lambda directory: export_bundle(checkpoint, directory, options))

    return make


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bundle` to damage."""
    return copytree(tiny_bundle, tmp_path / "bundle")


@pytest.fixture(scope="session")
def edit_manifest() -> Callable[[Path, Callable[[dict[str, Any]], Any]], None]:
    """A function that loads the manifest of a bundle directory, lets a function change it, and writes it back."""

    def edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
        record = json.loads((bundle / "manifest.json").read_text())
        change(record)
        (bundle / "manifest.json").write_text(json.dumps(record))

    return edit


@pytest.fixture(scope="session")
def replace_file(
    edit_manifest: Callable[[Path, Callable[[dict[str, Any]], Any]], None],
) -> Callable[[Path, str, bytes], None]:
    """A function that gives a file of a bundle other content, and its size and hash to the manifest."""

    def replace(bundle: Path, name: str, data: bytes) -> None:
        (bundle / name).write_bytes(data)
        described = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        edit_manifest(bundle, lambda record: record["files"].update({name: described}))

    return replace


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A colour photograph as a PNG file, 64x48. Read only."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    Image.fromarray(load_sample_image("china.jpg")).resize((64, 48)).save(path)
    return path


@pytest.fixture(scope="session")
def transformers_greedy() -> Callable[[Path, np.ndarray], np.ndarray]:
    """A function that gives the picture transformers' own greedy `generate` draws after a primer."""
    import torch
    import transformers

    def greedy(checkpoint: Path, primer: np.ndarray) -> np.ndarray:
        model = transformers.ImageGPTForCausalImageModeling.from_pretrained(checkpoint)
        config = model.config
        start = torch.from_numpy(np.concatenate([[config.vocab_size - 1], primer])[None])
        length = config.n_positions + 1
        mask = torch.ones_like(start)
        drawn = model.generate(start, attention_mask=mask, max_length=length, do_sample=False, pad_token_id=0)
        picture: np.ndarray = drawn[0, 1:].numpy()
        return picture

    return greedy


def _contents(directory: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that runs a command in this test's directory and returns the one line with which it is refused.

    It checks the exit code (1, or 2 and click's usage), that stdout is empty and that no file came or changed.
    """
    from click.testing import CliRunner

    monkeypatch.chdir(tmp_path)

    def run(main: Any, *arguments: object, stdin: bytes | None = None) -> str:
        before = _contents(tmp_path)
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
        assert isinstance(result.exception, SystemExit), result.exception
        *others, line = result.stderr.splitlines()
        if result.exit_code == 1:
            # The stages of an export, and what was passed over in a directory.
            assert all(other.endswith(" ...") or other.startswith("passed over: ") for other in others)
        else:
            assert result.exit_code == 2 and others[0].startswith("Usage: ")
        assert line.startswith("Error: ") and result.stdout == ""
        assert _contents(tmp_path) == before
        return line.removeprefix("Error: ")

    return run
