"""Commands in forked processes: they start at once, and what they do to themselves is seen from outside."""

import contextlib
import importlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 20.0  # that a command may take
PATIENCE = 90.0  # that an export may take: ten where it has a processor for itself
BYTES = 2 << 30  # that it may have in memory
_LOOK = 0.002  # seconds between two looks whether a process has ended
_NAMES = {"igpt_runtime": "igpt-run", "igpt_export": "igpt-export"}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_LONG = 300.0  # seconds that what is done once may take
_UNCAUGHT = 70  # exit code of a function that raises


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    what: str
    code: int  # of a signal its negative number
    seconds: float
    memory: int  # bytes, at most
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    limit: float  # seconds that it might take

    @property
    def timed_out(self) -> bool:
        return self.seconds > self.limit


class Running:
    """A function in a process of its own, whose working, home and temporary directories are below a place."""

    def __init__(self, what: str, place: Path, work: Callable[[], object], *, stdin: bytes = b"") -> None:
        """what: a name, which is that of its output files as well."""
        self.what = what
        self._files = tuple(place / f"{what}.{end}" for end in ("stdin", "stdout", "stderr"))
        self._files[0].write_bytes(stdin)
        for name in ("cwd", "home", "tmp"):
            (place / name).mkdir(exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        self._start = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until it is ready for them
        self.process = os.fork()
        if not self.process:
            _run(place, self._files, work)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def wait(self, seconds: float = SECONDS) -> Outcome:
        """How it ended; it is killed if that takes longer."""
        end = self._start + seconds
        while True:
            found, status, usage = os.wait4(self.process, os.WNOHANG)
            if found:
                break
            if time.monotonic() > end or _memory_of(self.process) > 2 * BYTES:
                os.kill(self.process, signal.SIGKILL)
                _, status, usage = os.wait4(self.process, 0)
                break
            time.sleep(_LOOK)
        taken = time.monotonic() - self._start
        texts = [path.read_bytes() if path.exists() else b"" for path in self._files]
        for path in self._files:
            path.unlink(missing_ok=True)
        return Outcome(self.what, os.waitstatus_to_exitcode(status), taken, usage.ru_maxrss << 10, *texts[1:], seconds)


def forked(
    what: str, place: Path, work: Callable[[], object], *, stdin: bytes = b"", seconds: float = SECONDS
) -> Outcome:
    """Call a function in a process of its own, and wait for its end. what, place: see `Running`."""
    return Running(what, place, work, stdin=stdin).wait(seconds)


def command(module: str, arguments: list[str], *, alone: bool = False) -> Callable[[], object]:
    """What runs a command line of a package in a fork; alone: as a new interpreter, from its start to its end."""

    def work() -> None:
        if alone:
            os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
        sys.argv[0] = module
        importlib.import_module(f"{module}.cli").main(arguments, prog_name=_NAMES[module])

    return work


def import_as(what: str, place: Path, work: Callable[[], object]) -> Outcome:
    """Call a function in a fork, and import here what it has imported there; it starts no threads here."""

    def work_and_tell() -> None:
        with contextlib.suppress(SystemExit):
            work()
        (place / "imported").write_text("\n".join(sys.modules))

    outcome = forked(what, place, work_and_tell, seconds=_LONG)
    if not outcome.code:
        for name in (place / "imported").read_text().split():
            if name not in sys.modules and not name.startswith("__"):
                with contextlib.suppress(Exception), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    importlib.import_module(name)
    return outcome


def _memory_of(process: int) -> int:
    """Bytes that it has in memory now."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _run(place: Path, files: tuple[Path, ...], work: Callable[[], object]) -> None:
    """What the new process does; it never returns."""
    code: object = _UNCAUGHT
    try:
        flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, (path, flag) in enumerate(zip(files, flags, strict=True)):
            os.dup2(os.open(path, flag, 0o666), number)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in _SIGNALS:  # whatever nohup and the like have chosen
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ |= {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "HF_HUB_OFFLINE": "1"}
        tempfile.tempdir = None
        os.chdir(place / "cwd")
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            work()
            code = 0
        except SystemExit as error:
            code = error.code
            if isinstance(code, str):
                print(code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
