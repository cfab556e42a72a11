"""The code samples of a Markdown page, and how each is tried.

A page's samples run in order, in one directory that has the repository's files beside what the samples write:

* `sh`: every line is a command. Lines of `pip` and `make` are only checked, since they change the environment.
* `python`: a whole program. With a title it is only written to that file, and a later line runs it. So is `js`, where
  a block that begins with `// continues` goes on in the last file.
* Above a fence, `<!-- not run: REASON -->` means that nothing of it is run, but its options must exist, and
  `<!-- slow -->` that the whole page is one of the slow tests.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

import igpt_export.cli
import igpt_runtime.cli

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "models/demo/README.md",
        ROOT / "runtime/SPEC.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    if path.is_file()
)
FINE_TUNING = ROOT / "docs/how-to/fine-tune.md"  # which a test of its own runs
_FENCE = re.compile(
    r"(?:<!-- (?P<mark>not run: [^>]+|slow) -->\s*\n)?^(?P<indent> *)```(?P<language>sh|python|js|html)"
    r"(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)
_TITLE = re.compile(r'title="([^"]+)"')
_CHECKED = {"pip", "uv", "make", "hf", "git", "cd", "export", "eval", "source", "conda", "docker", "python3"}
_PROGRAMS = {"igpt-run": igpt_runtime.cli.main, "igpt-export": igpt_export.cli.main}


@dataclass(frozen=True)
class Sample:
    """One block of a page."""

    language: str
    text: str
    title: str | None
    mark: str  # "", "slow", or "not run: REASON"

    @property
    def runs(self) -> bool:
        """Whether it is run, and not only checked."""
        return not self.mark.startswith("not run")

    def lines(self) -> list[str]:
        """The commands of a block of them: continued lines are joined, comments and blank lines are gone."""
        joined = self.text.replace("\\\n", " ")
        return [line for line in map(str.strip, joined.splitlines()) if line and not line.startswith("#")]


def samples_of(page: Path) -> list[Sample]:
    """The samples of a page, in order."""
    return list(_samples(page.read_text(encoding="utf-8")))


def _samples(text: str) -> Iterator[Sample]:
    for found in _FENCE.finditer(text):
        indent = len(found["indent"])
        block = "".join(line[indent:] if line.strip() else line for line in found["text"].splitlines(keepends=True))
        title = _TITLE.search(found["info"])
        yield Sample(found["language"], block, title and title[1], found["mark"] or "")


def programs_of(line: str) -> list[list[str]]:
    """The simple commands of a line of shell: its words without redirections, for each part of a pipe or a list."""
    words = shlex.split(line, comments=True)
    parts: list[list[str]] = [[]]
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("|", "&&", "||", ";", "&"):
            parts.append([])
        elif re.fullmatch(r"[0-9]?>>?|<", word):
            skip = True
        elif parts[-1] or not re.fullmatch(r"\w+=.*", word):  # a variable for one command
            parts[-1].append(word)
    return [part for part in parts if part]


def check_options(words: list[str]) -> None:
    """Have click parse a command of ours, without running it. Raises click.UsageError for an option there is not."""
    command: click.Command = _PROGRAMS[words[0]]
    arguments, context = words[1:], None
    while isinstance(command, click.Group):
        if not arguments or arguments[0] in ("--version", "--help", "-h"):
            return  # the program itself
        context = command.make_context(words[0], arguments[:1], parent=context)
        found = command.get_command(context, arguments[0])
        if found is None:
            raise click.UsageError(f"no command {arguments[0]}")
        command, arguments = found, arguments[1:]
    command.make_context(words[0], arguments, parent=context)


def is_checked(line: str) -> bool:
    """Whether a line of shell is only looked at when its block runs."""
    return any(words[0] in _CHECKED for words in programs_of(line))


class Place:
    """A directory in which samples run: the repository's files, and room for what they write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._last: Path | None = None  # file that a block with a title was written to
        for name in ("models", "runtime", "tests", "constraints.txt"):
            (directory / name).symlink_to(ROOT / name)

    def run(self, sample: Sample) -> str:
        """What a sample prints. Raises AssertionError with what it said if it fails."""
        if sample.title is not None:
            self._last = self.directory / sample.title
            self._last.write_text(sample.text)
            return ""
        if sample.language == "js":
            assert self._last is not None and sample.text.startswith("// continues"), "which file is it of?"
            self._last.write_text(self._last.read_text() + sample.text)
            return ""
        if sample.language == "python":
            return self._run([sys.executable, "-c", sample.text], sample.text)
        lines = [line for line in sample.lines() if not is_checked(line)]
        return "".join(self._run(["bash", "-o", "pipefail", "-euc", line], line) for line in lines)

    def _run(self, command: list[str], shown: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "BROWSER": "true"}
        done = subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False, timeout=1200
        )
        assert done.returncode == 0, f"{shown}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout
