"""What both command lines share: errors as one line, progress on stderr, results on stdout."""

import contextlib
import errno
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from igpt_runtime.errors import IgptError
from igpt_runtime.files import check_stdout_open
from igpt_runtime.progress import SILENT, Progress
from igpt_runtime.signals import ended_in_order

if TYPE_CHECKING:
    import rich.progress

MODES = ("auto", "always", "never")  # of --progress
_MODE = "igpt_runtime.progress"  # its key in click's context
_SHORTEST, _LONGEST = 5.0, 30.0  # seconds between two lines, where there is no terminal


class _OneLineErrors(click.Command):
    """Turns the project's errors, and the system's, into one line and exit code 1, and signals into an orderly end."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        try:
            with ended_in_order():
                return super().main(*arguments, **options)
        except KeyboardInterrupt:  # before or after click looks out for it
            click.echo("Aborted!", err=True)
            sys.exit(1)

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        """The context of a command that begins, unless it could not say at its end what came of it.

        Where standard output is closed, the next file to be opened would also be taken for it: what native libraries
        print there would be among the results.
        """
        if sys.stdout is None:
            raise _failure("standard output is closed; leave it open, or send it to a file or to /dev/null")
        return super().make_context(*arguments, **settings)

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
            from igpt_runtime.engine.graph import failure

            raise _failure(str(failure(error, "failed"))) from error


class Command(_OneLineErrors):
    """A command with one-line errors."""


class Group(_OneLineErrors, click.Group):
    """A group whose commands have one-line errors."""


# Names of models, labels and files come from others, and a terminal obeys what some characters say.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def harmless(text: str) -> str:
    """A text without characters that a terminal would obey, which are shown as their numbers."""
    return text.translate(_CONTROLS)


def _failure(message: str) -> click.ClickException:
    return click.ClickException(harmless(" ".join(message.split())))


def print_result(text: str, record: Any, as_json: bool) -> None:
    """Print a result on stdout, as text or as JSON. Raises OutputError if that is closed."""
    check_stdout_open()
    # Bytes, since a file name need not be valid text.
    click.echo((json.dumps(record) if as_json else harmless(text)).encode("utf-8", "surrogateescape"))


progress_option = click.option(
    "--progress",
    type=click.Choice(MODES),
    default="auto",
    show_default=True,
    expose_value=False,
    callback=lambda ctx, parameter, mode: ctx.meta.__setitem__(_MODE, mode),
    help="auto: a bar on a terminal, elsewhere a line every few seconds. always: the first line at once. never: none.",
)


def _mode() -> str:
    """The one that the running command was asked for."""
    context = click.get_current_context(silent=True)
    return "auto" if context is None else str(context.meta.get(_MODE, "auto"))


@contextmanager
def counted(description: str, total: int, unit: str = "tokens", *, before: int = 0) -> Iterator[Callable[[int], None]]:
    """Show on stderr how many of a total are done; yields the function that adds to them.

    before: how many were done before, which do not count for the rate.
    """
    start, done = time.perf_counter(), before

    def amounts() -> tuple[int, int, str]:
        rate = (done - before) / max(time.perf_counter() - start, 1e-9)
        return done, total, f"{rate:,.{0 if rate >= 10 else 1}f} {unit}/s"

    def advance(count: int) -> None:
        nonlocal done
        done += count

    def line() -> str:
        now, _, rate = amounts()
        return f"{description}: {now:,} of {total:,} {unit}, {rate} ..."

    mode = _mode()
    if mode == "never":
        yield advance
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar("{task.fields[rate]}") as bar:
            task = bar.add_task(description, total=total, completed=before, rate="")

            def advance_bar(count: int) -> None:
                advance(count)
                now, _, rate = amounts()
                bar.update(task, completed=now, rate=rate)

            yield advance_bar
    else:
        with _lines(line, at_once=mode == "always"):
            yield advance


@contextmanager
def stages(description: str) -> Iterator[Progress]:
    """What shows the stages of a long job on stderr: a bar on a terminal, else a line a stage and every few seconds."""
    mode = _mode()
    if mode == "never":
        yield SILENT
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar("{task.fields[amount]}") as bar:
            yield _StageBar(description, bar)
    else:
        shown = _StageLines(description)
        with _lines(shown.line, at_once=False):
            yield shown


class _StageBar(Progress):
    """A bar that is the current stage's."""

    def __init__(self, description: str, bar: "rich.progress.Progress") -> None:
        self._description, self._bar = description, bar
        self._task: rich.progress.TaskID | None = None

    def stage(self, name: str) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(f"{self._description}: {name}", total=None, amount="")

    def count(self, done: int, total: int, unit: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, amount=_amount(done, total, unit))


class _StageLines(Progress):
    """A line for each stage, and what `line` says of the current one."""

    def __init__(self, description: str) -> None:
        self._description, self._stage, self._amount, self._begin = description, "", "", time.monotonic()

    def stage(self, name: str) -> None:
        self._stage, self._amount, self._begin = name, "", time.monotonic()
        _say(f"{self._description}: {name} ...")

    def count(self, done: int, total: int, unit: str) -> None:
        self._amount = f": {_amount(done, total, unit)}"

    def line(self) -> str:
        if not self._stage:
            return f"{self._description} ..."
        return f"{self._description}: {self._stage}{self._amount}, {time.monotonic() - self._begin:.0f} s ..."


def _amount(done: int, total: int, unit: str) -> str:
    """How much is done; bytes are shown as MB."""
    divisor, shown_unit = (1_000_000, "MB") if unit == "bytes" else (1, unit)
    return f"{done / divisor:,.0f} of {total / divisor:,.0f} {shown_unit}"


@contextmanager
def _bar(field: str) -> Iterator["rich.progress.Progress"]:
    from rich.console import Console  # rich takes a tenth of a start, and most starts show no bar
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn()]
    columns += [MofNCompleteColumn()] if "rate" in field else []
    with Bar(
        *columns, TextColumn(field), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bar:  # fmt: skip
        yield bar


def _say(line: str) -> None:
    """Print a line of progress on stderr; where that is closed or full, progress is not worth the work."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


@contextmanager
def _lines(line: Callable[[], str], *, at_once: bool) -> Iterator[None]:
    """Print a line every few seconds, also while the work says nothing; at_once: also at the beginning and the end."""
    end = threading.Event()

    def run() -> None:
        start = time.monotonic()
        while not end.wait(min(_LONGEST, max(_SHORTEST, (time.monotonic() - start) / 20))):
            _say(line())

    if at_once:
        _say(line())
    # A daemon, so that an interrupt ends the process and not only the work.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
        if at_once:
            _say(line())
    finally:
        end.set()
        thread.join()
