"""A finding, and how checks give them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

OK, WARNING, BROKEN, UNKNOWN = "ok", "warning", "broken", "unknown"
_LONGEST = 400  # characters kept of the message of an error


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str  # the group it belongs to
    name: str  # what was looked at
    status: str  # one of these four
    found: str  # in one line
    remedy: str | None = None  # what to do, in one line; None where the status is ok


def checked(topic: str, name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings of a check; one that raises gives what it has found so far, and a finding that says so."""
    found = []
    try:
        for finding in check():
            found.append(finding)
    except Exception as error:
        reason = f"this check failed itself ({type(error).__name__}: {one_line(str(error))})"
        found.append(Finding(topic, name, UNKNOWN, reason, "report this line to the makers of igpt-onnx"))
    return found


def fault(topic: str, name: str, status: str, message: str) -> Finding:
    """A finding from the message of one of this project's errors: a fact, a semicolon, and what to do about it."""
    fact, _, remedy = message.rpartition("; ")
    return Finding(topic, name, status, one_line(fact or remedy), one_line(remedy) if fact else "correct that")


def one_line(text: str) -> str:
    """A message without line breaks, cut where it is too long to be read."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + " ..."
