"""Writes the reference of the commands, from the commands themselves.

The line `<!-- commands: PROGRAM -->` of a page becomes a section for each of the program's commands, which says what
`PROGRAM COMMAND --help` says. A remark that this takes `make docs` is left out of the built page.
"""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import click

_PLACE = re.compile(r"^<!-- commands: ([\w-]+) -->$", re.MULTILINE)
_SPECIAL = re.compile(r"[&<>*_`|\[\]]")  # what means something in Markdown
# What a page says to those who read it without having built the site.
_UNBUILT = re.compile(r"^`make docs` fills this page in.*\n+", re.MULTILINE)
_LEVEL = 2  # of a program's heading; those of all commands are one deeper


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Fill the places in a page."""
    return _PLACE.sub(lambda place: "\n".join(_program(place[1])), _UNBUILT.sub("", markdown))


def _program(name: str) -> Iterator[str]:
    """The sections of an installed program."""
    (script,) = entry_points(group="console_scripts", name=name)
    command: click.Command = import_module(f"{script.module.partition('.')[0]}.cli").main
    return _sections(command, name, None, _LEVEL)


def _sections(command: click.Command, name: str, parent: click.Context | None, level: int) -> Iterator[str]:
    """The section of a command, and those of its own commands."""
    context = command.context_class(command, info_name=name, parent=parent, **command.context_settings)
    yield f"{'#' * level} {context.command_path}\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        # click's mark for lines that are to stay as they are.
        yield f"```text\n{paragraph[2:]}\n```\n" if paragraph.startswith("\b\n") else f"{_escaped(paragraph)}\n"
    yield f"```text\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```\n"
    yield "| option | meaning |\n|---|---|"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:  # an argument has no help
            yield f"| `{record[0]}` | {_escaped(record[1])} |"
    yield ""
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            if child is not None and not child.hidden:
                yield from _sections(child, child_name, context, _LEVEL + 1)


def _escaped(text: str) -> str:
    """Plain text as Markdown that shows it, also in a cell of a table."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", text)
