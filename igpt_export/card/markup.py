"""Text for a model card: strings of unknown origin made harmless in YAML and Markdown, paragraphs and tables."""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence

_WIDTH = 100  # characters of a line of prose
_LONGEST = 200  # characters kept of a string of unknown origin
# What Markdown, its tables, HTML and the Hub's formulas would take for theirs: some characters everywhere, underscores
# at the ends of words, and what could begin an item of a list where a line is broken.
_SPECIAL = re.compile(r"[\\`*\[\]<>#|~&!${}:=]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<!\S)[-+]|(?<=[0-9])[.)](?!\S)")


def clean(text: object) -> str:
    """`text` on one line, what is not printable blanked, cut to a readable length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."


def plain(text: object) -> str:
    """`text` as Markdown that shows it letter by letter, in a paragraph, a heading or a cell of a table."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", clean(text))


def quoted(text: object) -> str:
    """`text` as a YAML scalar in double quotes, which is a string whatever it looks like."""
    return json.dumps(clean(text), ensure_ascii=False)


def header(fields: Mapping[str, str | Sequence[str]]) -> str:
    """The YAML header of a card; its values are strings and lists of strings."""
    lines = ["---"]
    for name, value in fields.items():
        if isinstance(value, str):
            lines.append(f"{name}: {quoted(value)}")
        else:
            lines += [f"{name}:", *(f"- {quoted(item)}" for item in value)]
    return "\n".join([*lines, "---"])


def paragraph(*sentences: str) -> str:
    """Sentences as a paragraph of lines that people can read, too."""
    return textwrap.fill(" ".join(sentences), _WIDTH, break_long_words=False, break_on_hyphens=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its cells are Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(language: str, lines: str) -> str:
    """A block of code that was written for this card: it holds nothing of unknown origin."""
    return f"```{language}\n{lines.strip()}\n```"
