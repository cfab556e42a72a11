"""What both command lines share: errors as one line, progress on stderr, results on stdout."""

import errno
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from igpt_runtime.errors import IgptError

_LINE_SECONDS = 3  # between lines about one stage, where there is no terminal


class _OneLineErrors(click.Command):
    """Turns the project's errors, and the system's, into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except IgptError as error:
            raise _failure(str(error)) from error
        except MemoryError as error:
            raise _failure("out of memory; ask for fewer pictures at once, or use a smaller model") from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly when the reader of our output has gone
            where = f" ({error.filename})" if error.filename else ""
            raise _failure(f"{error.strerror or error}{where}") from error
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise  # a bug of ours deserves its traceback
            advice = "ask for fewer pictures at once if memory ran out, or export the bundle again"
            raise _failure(f"ONNX Runtime failed ({error}); {advice}") from error


class Command(_OneLineErrors):
    """A command with one-line errors."""


class Group(_OneLineErrors, click.Group):
    """A group whose commands have one-line errors."""


def _failure(message: str) -> click.ClickException:
    return click.ClickException(" ".join(message.split()))


def print_result(text: str, record: Any, as_json: bool) -> None:
    """Print a result on stdout, as text or as JSON."""
    # Bytes, since a file name need not be valid text.
    click.echo((json.dumps(record) if as_json else text).encode("utf-8", "surrogateescape"))


@contextmanager
def token_progress(
    description: str, total: int, unit: str = "tokens", *, before: int = 0
) -> Iterator[Callable[[int], None]]:
    """A progress bar of tokens with tokens/s on stderr, or of another unit; yields the function that advances it.

    before: how many were done before, which do not count for the rate.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    start = time.perf_counter()
    with Progress(*columns, console=console, transient=not console.is_terminal, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total, completed=before, rate="")
        done = 0

        def advance(tokens: int) -> None:
            nonlocal done
            done += tokens
            rate = done / (time.perf_counter() - start)
            bar.update(task, advance=tokens, rate=f"{rate:,.{0 if rate >= 10 else 1}f} {unit}/s")

        yield advance


class Stages:
    """Shows which stage a long job is in, and how far that is."""

    def __init__(self, description: str, bar: Progress, console: Console) -> None:
        """Use `stages`."""
        self._description, self._bar, self._is_terminal = description, bar, console.is_terminal
        self._task: TaskID | None = None
        self._stage, self._shown = "", 0.0

    def __call__(self, stage: str) -> None:
        """Begin a stage."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._stage, self._shown = stage, time.monotonic()
        self._task = self._bar.add_task(f"{self._description}: {stage}", total=None, amount="")
        if not self._is_terminal:
            print(f"{self._description}: {stage} ...", file=sys.stderr)

    def count(self, done: int, total: int, unit: str) -> None:
        """Say how much of the stage is done; bytes are shown as MB."""
        if self._task is None:
            return
        divisor, shown_unit = (1_000_000, "MB") if unit == "bytes" else (1, unit)
        amount = f"{done / divisor:,.0f} of {total / divisor:,.0f} {shown_unit}"
        self._bar.update(self._task, completed=done, total=total, amount=amount)
        if not self._is_terminal and time.monotonic() - self._shown >= _LINE_SECONDS:
            self._shown = time.monotonic()
            print(f"{self._description}: {self._stage}: {amount} ...", file=sys.stderr)


@contextmanager
def stages(description: str) -> Iterator[Stages]:
    """What shows the stages of a long job on stderr: a bar on a terminal, else a line now and then."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Stages(description, bar, console)
