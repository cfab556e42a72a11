"""Keeps shapes like [n][64] as they are written: mkdocs-autorefs takes them for links."""

import re
from typing import Any

from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from mkdocs.config.defaults import MkDocsConfig

_PRIORITY = 175  # above that of links, which are looked for later


class _Shape(InlineProcessor):
    """The bracket before a size: where it is taken out first, there is no link."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str | None, int | None, int | None]:  # type: ignore[override]
        if m[1] in self.md.references:
            return None, None, None
        return "]", m.start(0), m.end(0)


class _Shapes(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(_Shape(r"\](?=\[(\d+)\])", md), "shapes", _PRIORITY)


def on_config(config: MkDocsConfig, **kwargs: Any) -> None:
    """Add this to what reads Markdown."""
    config.markdown_extensions.append(_Shapes())  # type: ignore[arg-type]  # it holds not only names
