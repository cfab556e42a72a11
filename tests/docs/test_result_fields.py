"""docs/reference/results.md lists the fields that commands print, and no others."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from igpt_export.cli import main as export
from igpt_runtime.cli import main as run

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reference/results.md"
EXAMPLES = ROOT / "models/digits/examples"
SEVEN = str(EXAMPLES / "seven.png")


def fields_of(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all that is neither an object nor an array of objects."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from fields_of(part, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        for part in value:
            yield from fields_of(part, f"{path}[]")
    else:
        yield path


def listed(command: str) -> set[str]:
    """The fields in the first table of a command's section."""
    section = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    table = re.search(r"\| field .*?(?=\n\n|\Z)", section[1], re.DOTALL)
    assert table is not None
    first = [line.split(" | ")[0] for line in table[0].splitlines()[2:]]
    return {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with data.npz and a probe fitted on it."""
    directory = tmp_path_factory.mktemp("probe")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (24, 16, 16, 3)).astype(np.uint8)
    images[1::2] //= 3
    np.savez(directory / "data.npz", images=images, labels=np.array(["light", "dark"] * 12))
    arguments = ["probe", "fit", str(directory / "data.npz"), "-o", str(directory / "probe"), "--layers", "0,1"]
    assert CliRunner().invoke(run, arguments).exit_code == 0
    return directory


COMMANDS = {
    "complete": [SEVEN, "-n", "1", "-o", "TMP/sheet.png"],
    "sample": ["-n", "1", "-o", "TMP/sheet.png"],
    "classify": [SEVEN],
    "features": [SEVEN, "-o", "TMP/features.npz"],
    "score": [SEVEN, "--maps", "TMP"],
    "doctor": [],
    "bench": ["-n", "2", "--rounds", "1"],
    "probe fit": ["PROBE/data.npz", "-o", "TMP/fit", "--layers", "0,1"],
    "probe eval": ["PROBE/data.npz", "--probe", "PROBE/probe"],
    "probe export": ["PROBE/probe", "-o", "TMP/bundle"],
}


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=[pytest.mark.slow] if name == "bench" else []) for name in COMMANDS]
)
def test_fields_of_igpt_run(command: str, probe: Path, tmp_path: Path) -> None:
    places = {"TMP": str(tmp_path), "PROBE": str(probe)}
    arguments = [re.sub("^(TMP|PROBE)", lambda name: places[name[0]], part) for part in COMMANDS[command]]
    result = CliRunner().invoke(run, [*command.split(), *arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert set(fields_of(json.loads(result.stdout))) == listed(f"igpt-run {command}")


def test_fields_of_igpt_export(tmp_path: Path) -> None:
    result = CliRunner().invoke(export, ["--variant", "digits", "--no-embed", "-o", str(tmp_path / "bundle"), "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert set(record) == listed("igpt-export")


def test_every_command_has_a_section() -> None:
    sections = set(re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE))
    context = run.make_context("igpt-run", [], resilient_parsing=True)
    names = set(run.list_commands(context)) - {"web", "probe"}
    probes = run.get_command(context, "probe")
    names |= {f"probe {name}" for name in probes.list_commands(context)}  # type: ignore[union-attr]
    assert sections == {*(f"igpt-run {name}" for name in names), "igpt-export"}


def test_files_of_features(tmp_path: Path) -> None:
    """The arrays and columns that the page lists."""
    for name in ("features.npz", "features.parquet"):
        arguments = ["features", SEVEN, "-o", str(tmp_path / name), "--layers", "3"]
        assert CliRunner().invoke(run, arguments).exit_code == 0
    text = re.search(r"^## igpt-run features\n(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert text is not None
    table = text[1].split("| array |")[1].split("\n\n")[0]
    with np.load(tmp_path / "features.npz") as arrays:
        assert set(arrays) == {name for line in table.splitlines()[2:] for name in re.findall("`(.*?)`", line)}
        assert arrays["features"].shape == (1, 1, 128)
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_schema(tmp_path / "features.parquet").names == ["image", "label", "layer_3"]
