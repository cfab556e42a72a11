"""Every command and code sample of the README and the documentation works as it is written."""

import re
import tomllib
from pathlib import Path

import click
import pytest
from docs.samples import FINE_TUNING, PAGES, ROOT, Place, Sample, check_options, is_checked, programs_of, samples_of

_MAKEFILE = (ROOT / "Makefile").read_text()
_TARGETS = set(re.findall(r"^([a-z-]+):", _MAKEFILE, re.MULTILINE))
_EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
_PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line and line[0] != "#"
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def marked(path: Path) -> object:
    """A page, as a slow test if one of its samples is slow."""
    slow = any(sample.mark == "slow" for sample in samples_of(path))
    return pytest.param(path, id=name_of(path), marks=[pytest.mark.slow] if slow else [])


WITH_SAMPLES = [path for path in PAGES if path != FINE_TUNING and any(sample.runs for sample in samples_of(path))]
COMMANDS = [
    pytest.param(words, id=f"{name_of(path)}: {' '.join(words)}")
    for path in PAGES
    for sample in samples_of(path)
    if sample.language == "sh"
    for line in sample.lines()
    for words in programs_of(line)
]


def test_samples_are_found() -> None:
    assert {name_of(path) for path in WITH_SAMPLES} >= {"README.md", "docs/tutorial.md"}
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("path", [marked(path) for path in WITH_SAMPLES])
def test_a_page_runs(path: Path, tmp_path: Path) -> None:
    place = Place(tmp_path)
    for sample in samples_of(path):
        if sample.runs and sample.language != "html":
            place.run(sample)


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_exists(words: list[str]) -> None:
    """Its program and its options, also where it is not run."""
    if words[0] in ("igpt-run", "igpt-export"):
        check_options(words)
    elif words[:2] in (["python", "-m"], ["python3", "-m"]) and words[2] in ("igpt_runtime", "igpt_export"):
        check_options([{"igpt_runtime": "igpt-run", "igpt_export": "igpt-export"}[words[2]], *words[3:]])
    elif words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= _TARGETS
        variables = {word.partition("=")[0] for word in words[1:] if "=" in word}
        assert all(f"$({name})" in _MAKEFILE for name in variables)
    elif words[0] in ("pip", "uv"):
        extras = re.findall(r"\[([a-z,]+)\]", " ".join(words))
        assert {extra for found in extras for extra in found.split(",")} <= _EXTRAS
        for package, version in re.findall(r"\b([\w-]+)==([\w.]+)", " ".join(words)):
            assert _PINS[package] == version


def test_wrong_options_are_noticed() -> None:
    for words in (["igpt-run", "complete", "a.png", "--no-such"], ["igpt-run", "no-such"], ["igpt-export", "--what"]):
        with pytest.raises(click.UsageError):
            check_options(words)
    check_options(["igpt-run", "complete", "a.png"])


def test_lines_of_shell_are_understood() -> None:
    sample = Sample(
        "sh", "# a comment\nA=1 igpt-run info \\\n  --json > out.json  # why\ncat x | igpt-run complete -\n", None, ""
    )
    assert [programs_of(line) for line in sample.lines()] == [
        [["igpt-run", "info", "--json"]],
        [["cat", "x"], ["igpt-run", "complete", "-"]],
    ]
    assert is_checked("pip install x") and not is_checked("igpt-run info")


def test_a_failing_sample_is_noticed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(AssertionError, match="no bundle at nowhere"):
        place.run(Sample("sh", "igpt-run info --model nowhere\n", None, ""))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        place.run(Sample("python", "1 / 0\n", None, ""))


def test_reasons_are_given() -> None:
    for path in PAGES:
        for sample in samples_of(path):
            assert sample.runs or len(sample.mark.removeprefix("not run:").strip()) > 5
