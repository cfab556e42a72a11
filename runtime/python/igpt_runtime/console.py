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
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from igpt_runtime.errors import IgptError


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


@contextmanager
def stages(description: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr that names the stage a long job is in; yields the function that sets it."""
    console = Console(stderr=True)
    with console.status(description) as status:

        def show(stage: str) -> None:
            status.update(f"{description}: {stage}")
            if not console.is_terminal:
                print(f"{description}: {stage} ...", file=sys.stderr)

        yield show
