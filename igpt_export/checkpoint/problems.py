"""How the checkpoint loader reports: every problem of a file in one line, and JSON files read with such a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from igpt_runtime.bundle.hub import one_line
from igpt_runtime.errors import CheckpointError
from igpt_runtime.regular import placeholder, read_regular

__all__ = ["listed", "one_line", "read_json", "refuse"]

_MOST = 64 << 20  # bytes of a JSON file
_LISTED = 20  # names in one list before the rest becomes a count


def listed(items: Sequence[str]) -> str:
    """`a, b, c`, after 20 items a count of the rest."""
    shown = ", ".join(one_line(item) for item in items[:_LISTED])
    return shown if len(items) <= _LISTED else f"{shown} and {len(items) - _LISTED} more"


def refuse(where: str, problems: Sequence[str], remedy: str) -> NoReturn:
    """Raise one CheckpointError that lists every problem: `where: problem; problem - remedy`."""
    raise CheckpointError(f"{where}: {'; '.join(problems)} - {remedy}")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises CheckpointError if the file is missing or unreadable, or holds anything but one JSON object in UTF-8.
    """
    try:
        content = read_regular(path, _MOST)
        if stands_for := placeholder(content):
            refuse(str(path), [stands_for.split(";")[0]], f"copy {path.name} from the original checkpoint")
        raw = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        refuse(str(path), ["no such file"], f"copy {path.name} from the original checkpoint")
    except OSError as error:
        refuse(str(path), [f"cannot be read: {error.strerror}"], "check the file and its permissions")
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, a number or nesting beyond any use
        refuse(
            str(path), [f"not valid JSON: {one_line(error)}"], f"copy {path.name} from the original checkpoint again"
        )
    if not isinstance(raw, dict):
        refuse(str(path), [f"holds a JSON {type(raw).__name__}, not an object"], "copy it from the original checkpoint")
    return raw
