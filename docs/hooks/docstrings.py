"""An extension of griffe, which reads Python for the reference: tables of parameters and of fields.

Docstrings describe parameters in lines `name: description`, and dataclasses describe fields in comments beside them.
"""

import ast
import re
import tokenize
from pathlib import Path
from typing import Any

from griffe import (
    Attribute,
    Class,
    DocstringAttribute,
    DocstringParameter,
    DocstringSection,
    DocstringSectionAttributes,
    DocstringSectionParameters,
    DocstringSectionText,
    Extension,
    Function,
)


class Docstrings(Extension):
    """Adds the tables to what the docstrings say."""

    def on_function_instance(self, *, func: Function, **kwargs: Any) -> None:
        """Called when a function has been read."""
        if func.docstring is not None:
            func.docstring.parsed = [
                part for section in func.docstring.parse("google") for part in _with_parameters(section, func)
            ]

    def on_class_members(self, *, node: Any, cls: Class, **kwargs: Any) -> None:
        """Called when a class and its members have been read."""
        if not isinstance(node, ast.ClassDef) or cls.docstring is None or "dataclass" not in cls.labels:
            return
        comments = _comments(cls.filepath) if isinstance(cls.filepath, Path) else {}
        rows = []
        for field in cls.members.values():
            if isinstance(field, Attribute) and field.annotation is not None and "property" not in field.labels:
                lines = range(field.lineno or 0, (field.endlineno or 0) + 1)
                text = " ".join(comments[line] for line in lines if line in comments)
                rows.append(DocstringAttribute(field.name, description=text, annotation=field.annotation))
        cls.docstring.parsed = [*cls.docstring.parse("google"), DocstringSectionAttributes(rows, "Fields:")]


def _with_parameters(section: DocstringSection, func: Function) -> list[DocstringSection]:
    """A section of text as its prose and a table of parameters; any other section as it is."""
    if not isinstance(section, DocstringSectionText):
        return [section]
    names = "|".join(parameter.name for parameter in func.parameters)
    start = re.compile(rf"(?:^|; |\n)({names}): ")
    prose, rows = [], []
    for paragraph in section.value.split("\n\n"):
        before, *found = start.split(paragraph)  # text, then names and descriptions by turns
        if before:
            prose.append(before)
        for name, description in zip(found[::2], found[1::2], strict=True):
            given = func.parameters[name]
            rows.append(
                DocstringParameter(name, description=description, annotation=given.annotation, value=given.default)
            )
    tables = [DocstringSectionParameters(rows)] if rows else []
    return [DocstringSectionText("\n\n".join(prose)), *tables]


def _comments(path: Path) -> dict[int, str]:
    """The comments of a file by their lines."""
    with path.open(encoding="utf-8") as file:
        tokens = list(tokenize.generate_tokens(file.readline))
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
