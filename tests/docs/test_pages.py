"""The documentation's pages: links lead somewhere, lines are short, versions are those of the code."""

import re
from pathlib import Path

import pytest
from docs.samples import ROOT

from igpt_runtime.bundle.manifest import FORMAT_VERSION, SAMPLING_VERSION

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        ROOT / "runtime/SPEC.md",
        ROOT / "models/demo/README.md",
        ROOT / "models/digits/README.md",
        *(ROOT / "runtime").glob("*/README.md"),
        ROOT / "runtime/README.md",
        ROOT / "tests/README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
README = ROOT / "README.md"
WIDTH = 100  # of prose
LONGEST_README, LONGEST_DECISION = 150, 60  # lines


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=name_of)
def test_prose_is_wrapped(path: Path) -> None:
    """Tables, code, links and markers may be longer."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!-- (\w+):begin -->.*<!-- \1:end -->", "", text, flags=re.DOTALL)  # made by a program
    long = [
        line
        for line in text.splitlines()
        if len(line) > WIDTH and not line.lstrip().startswith(("|", "![", "<!--")) and " " in line.strip()[:WIDTH]
    ]
    assert long == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LONGEST_README


def test_decisions_are_short_and_complete() -> None:
    decisions = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    index = (ROOT / "docs/decisions/index.md").read_text()
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text()
        assert len(text.splitlines()) < LONGEST_DECISION, path.name
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Evidence", "Consequence"], path
        assert path.name in index


def test_versions_in_the_specification() -> None:
    text = (ROOT / "runtime/SPEC.md").read_text()
    stated = re.findall(r"[Ff]ormat version (\d+), sampling version (\d+)", text)
    assert stated == [(str(FORMAT_VERSION), str(SAMPLING_VERSION))]


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = {target for path in DOCUMENTS for target in re.findall(r"`make ([a-z-]+)", path.read_text())}
    assert mentioned and mentioned <= targets
