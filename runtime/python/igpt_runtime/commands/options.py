"""Options that several commands have, and what they share otherwise."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from igpt_runtime.console import token_progress
from igpt_runtime.errors import OptionError

if TYPE_CHECKING:
    from igpt_runtime.engine.session import Session
    from igpt_runtime.pictures.reading import Picture
    from igpt_runtime.tasks.feature_store import FeatureStore

SOME_BROKEN = 3  # exit status if pictures were left out

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _together(*decorators: Decorator) -> Decorator:
    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


json_option = click.option("as_json", "--json", is_flag=True, help="Print the result as JSON.")
force_option = click.option("--force", is_flag=True, help="Overwrite existing output files.")
crop_option = click.option(
    "--crop", is_flag=True, help="Resize the short side and cut the centre, instead of squashing."
)
skip_broken_option = click.option(
    "--skip-broken",
    is_flag=True,
    help=f"Leave out pictures that cannot be read; the exit status is then {SOME_BROKEN}.",
)
model_option = click.option("--model", metavar="DIR", help="Bundle directory.  [default: the embedded demo]")
model_options = _together(
    model_option,
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
)
sampling_options = _together(
    click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same pictures."),
    click.option("--temperature", type=float, default=1.0, show_default=True, help="0 takes the likeliest token."),
    click.option("--top-k", type=int, default=0, show_default=True, help="Only the k likeliest tokens; 0 is off."),
    click.option(
        "--top-p", type=float, default=1.0, show_default=True, help="Only the likeliest tokens up to this sum."
    ),
)
drawing_options = _together(
    click.option("--separate", is_flag=True, help="Also write each picture to a file of its own, OUT-1.png ..."),
    click.option("--gif", is_flag=True, help="Also write an animation of the drawing, OUT.gif."),
    click.option("--scale", type=int, help="Enlarge every pixel this many times.  [default: about 128 px a picture]"),
)


def check_stdout(output: str, as_json: bool) -> None:
    """Raise OptionError if a picture or array and JSON would both go to stdout."""
    if output == "-" and as_json:
        raise OptionError("--json and -o - would both write to stdout; give -o a path")


def picture_of(image: str) -> "Picture":
    """The picture that an argument names; - is standard input."""
    if image != "-":
        return image
    if sys.stdin is None:
        raise OptionError("standard input is closed; name a picture file")
    return sys.stdin.buffer


def pictures_of(images: Iterable[str]) -> list["Picture"]:
    """The pictures that arguments name."""
    return [picture_of(image) for image in images]


def leaving_out(broken: list[str]) -> Callable[[str], None]:
    """A function that reports a picture that cannot be read, and remembers it in `broken`."""

    def leave_out(reason: str) -> None:
        click.echo(f"skipped: {reason}", err=True)
        broken.append(reason)

    return leave_out


def parse_layers(text: str) -> list[int] | None:
    """The layers that "all" or "9,12,18" means; None for all. Raises OptionError."""
    if text == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"--layers must be all, or numbers like 9,12,18; got {text!r}") from None


@contextlib.contextmanager
def filled(
    store: "FeatureStore", session: "Session", pictures: Sequence["Picture"], broken: Callable[[str], None] | None
) -> Iterator[None]:
    """Compute what a store lacks, with progress; if that, or the block, is interrupted, say what is kept.

    Raises as `FeatureStore.fill` does.
    """
    before = int(store.done.sum())
    if before and before < store.count:
        click.echo(f"going on after {before:,} of {store.count:,} pictures", err=True)
    try:
        with token_progress("embedding", store.count, "images", before=before) as progress:
            store.fill(session, pictures, broken=broken, progress=progress)
        yield
    except BaseException:
        done = int(store.done.sum())
        if done:
            click.echo(
                f"kept {done:,} of {store.count:,} pictures in {store.directory}; the same goes on there", err=True
            )
        else:
            store.remove()
        raise
