"""Options that several commands have, gathered into what they mean, and what the commands share otherwise."""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from igpt_runtime.bundle.config import PROTOCOLS
from igpt_runtime.console import counted
from igpt_runtime.errors import OptionError

if TYPE_CHECKING:
    from igpt_runtime.engine.generate import GenerationOptions
    from igpt_runtime.engine.session import Session
    from igpt_runtime.pictures.reading import Picture
    from igpt_runtime.tasks.feature_store import FeatureStore

SOME_BROKEN = 3  # exit status if pictures were left out

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def gathered(parameter: str, make: Callable[..., object], *options: Decorator) -> Decorator:
    """Options of a command that become one parameter of its function: what `make` returns for their values.

    make: its parameters are called like the options.
    """
    names = list(inspect.signature(make).parameters)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            own = {name: values.pop(name) for name in names}
            function(**values, **{parameter: make(**own)})

        decorated: Callable[..., None] = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


json_option = click.option("as_json", "--json", is_flag=True, help="Print the result as JSON on stdout.")
force_option = click.option("--force", is_flag=True, help="Overwrite existing output files.")
skip_broken_option = click.option(
    "--skip-broken",
    is_flag=True,
    help=f"Leave out pictures that cannot be read; the exit status is then {SOME_BROKEN}.",
)
layers_option = click.option(
    "--layers",
    default="all",
    show_default=True,
    help="all, or layers of 0 .. n_layer, like 9,12,18. Blocks behind the last one are not computed.",
)
protocol_option = click.option(
    "--protocol",
    type=click.Choice(list(PROTOCOLS)),
    default="hf",
    show_default=True,
    help="hf: pictures are squashed, as transformers does; paper: they are cropped, as the paper does.",
)
model_option = click.option(
    "--model",
    type=click.Path(),  # so that the shell completes it
    metavar="DIR|NAME|OWNER/NAME",
    envvar="IGPT_MODEL",
    show_envvar=True,
    help="Bundle directory, the embedded demo or digits, or a bundle on the Hugging Face hub, also "
    "OWNER/NAME@REVISION.  [default: demo]",
)


@dataclass(frozen=True)
class ModelOptions:
    """The bundle, and what it runs on."""

    name: str | None  # directory, embedded bundle or Hub id; None is the embedded demo
    device: str
    threads: int | None  # None leaves ONNX Runtime's choice
    sha256: str | None  # of the manifest; None takes any
    spin: str  # see `open_session`

    def open(self) -> "Session":
        """Open it. Raises as `igpt_runtime.engine.session.open_session` does."""
        from igpt_runtime.engine.session import import_onnxruntime, open_session

        session = open_session(self.name, device=self.device, threads=self.threads, spin=self.spin, sha256=self.sha256)
        if session.provider == "CPUExecutionProvider":  # that CUDA does not start is told in the log only
            import_onnxruntime().set_default_logger_severity(4)  # what is not a session's; an error tells it once
        return session


model_options = gathered(
    "model",
    lambda model, device, threads, sha256, spin: ModelOptions(model, device, threads, sha256, spin),
    model_option,
    click.option("--sha256", metavar="HEX", help="Refuse a bundle whose manifest.json has another SHA-256."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="auto takes CUDA for fp16 bundles if this ONNX Runtime has it, else the CPU; cuda fails without CUDA.",
    ),
    click.option(
        "--threads", type=click.IntRange(min=1), help="Threads inside one operator.  [default: one per physical core]"
    ),
    click.option(
        "--spin",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Whether threads wait for work busily: fast on free cores, slow where other work runs; auto looks.",
    ),
)


def sampling_options(n: int) -> Decorator:
    """How pictures are drawn, as `sampling: GenerationOptions`. n: the default of -n."""

    def make(
        n: int, seed: int, temperature: float | None, top_k: int | None, top_p: float | None
    ) -> "GenerationOptions":
        from igpt_runtime.engine.generate import GenerationOptions

        return GenerationOptions(n, seed, temperature, top_k, top_p)

    default = "  [default: what the bundle recommends]"
    return gathered(
        "sampling",
        make,
        click.option("-n", default=n, show_default=True, help="Number of pictures to draw."),
        click.option(
            "--seed",
            type=int,
            default=0,
            show_default=True,
            help="0 .. 2^64 - 1; the same seed gives the same pictures.",
        ),
        click.option("--temperature", type=float, help=f"Divides the logits; 0 takes the likeliest token.{default}"),
        click.option("--top-k", type=int, help=f"Draw among the k likeliest tokens; 0 is off.{default}"),
        click.option(
            "--top-p",
            type=float,
            help=f"Draw among the likeliest tokens that reach this probability together; 1 is off.{default}",
        ),
    )


def check_stdout(output: str | None, *, as_json: bool) -> None:
    """Raise OptionError if a result and its description as JSON would both go to stdout."""
    if output == "-" and as_json:
        raise OptionError("--json and -o - would both write to stdout; give -o a path")


@dataclass(frozen=True)
class Target:
    """A file to write."""

    path: str | None  # - is stdout
    force: bool  # overwrite it

    def check(self, *, as_json: bool) -> None:
        """Raise OptionError or OutputError if it cannot be written."""
        from igpt_runtime.files import check_writable

        check_stdout(self.path, as_json=as_json)
        check_writable([] if self.path is None else [self.path], force=self.force)


def target_option(help: str, *, required: bool = False) -> Decorator:
    """The file a command writes, as `target: Target`."""
    return gathered(
        "target",
        lambda output, force: Target(output, force),
        click.option("-o", "--output", type=click.Path(allow_dash=True), required=required, help=help),
        force_option,
    )


class Reading:
    """The pictures a command is given, and those of them that could not be read."""

    def __init__(self, images: Sequence[str], crop: bool, skip_broken: bool) -> None:
        """images: files, directories, or - for standard input. Raises ImageError, OptionError."""
        from igpt_runtime.pictures.folder import find_pictures

        if list(images).count("-") > 1:
            raise OptionError("- was given more than once, and standard input can be read only once; give it once")
        self._found = find_pictures(images)
        self.crop, self.skip_broken = crop, skip_broken
        self.broken: list[str] = []  # what is wrong with each that was left out

    @property
    def names(self) -> list[str]:
        """The pictures as they were named, or found below a directory."""
        return self._found.names

    def begin(self, outputs: Callable[[list[str]], list[list[str]]] | None = None) -> None:
        """Leave out what the command itself has written before, and say what was passed over.

        outputs: the picture files that will be written for each of some pictures; None for a command that writes none.
        """
        if outputs is not None:
            self._found.leave_out(outputs)
        if said := self._found.said():
            click.echo(f"passed over: {said}", err=True)

    @property
    def pictures(self) -> "list[Picture]":
        """The pictures, in the order of `names`."""
        return [_picture(name) for name in self.names]

    @property
    def leave_out(self) -> Callable[[str], None] | None:
        """What to call with the fault of a picture that cannot be read; None if that ends the command."""
        return leaving_out(self.broken) if self.skip_broken else None

    def finish(self) -> None:
        """End the command with the status that tells of pictures left out, if there are any."""
        if self.broken:
            sys.exit(SOME_BROKEN)


reading_options = gathered(
    "reading",
    Reading,
    click.argument("images", nargs=-1, required=True, type=click.Path(allow_dash=True)),
    click.option(
        "--crop",
        is_flag=True,
        help="Keep only the centre of a picture, in the shape of the model's pictures, instead of squashing it.",
    ),
    skip_broken_option,
)


def _picture(name: str) -> "Picture":
    if name != "-":
        return name
    if sys.stdin is None:
        raise OptionError("standard input is closed; name a picture file")
    return sys.stdin.buffer


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
    store: "FeatureStore",
    session: "Session",
    pictures: "Sequence[Picture]",
    broken: Callable[[str], None] | None,
    *,
    resumable: bool = True,
) -> Iterator[None]:
    """Compute what a store lacks, with progress; if that, or the block, is interrupted, say what is kept.

    resumable: whether the same command would find the store again; if not, nothing is kept.

    Raises as `FeatureStore.fill` does.
    """
    before = int(store.done.sum())
    if before and before < store.count:
        click.echo(f"going on after {before:,} of {store.count:,} pictures", err=True)
    try:
        with counted("embedding", store.count, "images", before=before) as progress:
            store.fill(session, pictures, broken=broken, progress=progress)
        yield
    except BaseException:
        done = int(store.done.sum())
        if not resumable:
            store.remove()
        elif done:
            click.echo(
                f"kept {done:,} of {store.count:,} pictures in {store.directory}; the same goes on there", err=True
            )
        else:
            store.remove()
        raise
    finally:
        store.release()
