"""ONNX Runtime at work in a process of its own: whatever it prints, and a crash, stay out of doctor's.

`python -m igpt_runtime.doctor.child JOB` is the process. JOB is a JSON object of the job's name and its arguments. It
prints a JSON object a line on stdout; what libraries print goes to stderr.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

_TASKS = Path("/proc/self/task")
Say = Callable[..., None]


@dataclass(frozen=True)
class Outcome:
    """What a process said."""

    said: dict[str, Any]  # everything, later words over earlier ones
    messages: str  # what libraries printed
    died: str | None  # how it ended, if not by itself

    @property
    def error(self) -> str | None:
        """What went wrong, in one line; None if nothing did."""
        if self.died is not None:
            return f"the process {self.died}{self._last_message()}"
        return self.said.get("error")

    def _last_message(self) -> str:
        lines = self.messages.strip().splitlines()
        return f" ({' '.join(lines[-1].split())})" if lines else ""


def run(job: str, *, timeout: float | None = None, **arguments: Any) -> Outcome:
    """Run a job in a new process and wait for its end, at most `timeout` seconds."""
    command = [sys.executable, "-P", "-m", __name__, json.dumps({"job": job, **arguments})]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
        stdout, stderr, died = done.stdout, done.stderr, _end(done.returncode)
    except subprocess.TimeoutExpired as error:
        stdout, stderr, died = error.stdout or b"", error.stderr or b"", f"did not end within {timeout} s"
    except OSError as error:
        stdout, stderr, died = b"", b"", f"cannot be started ({error})"
    said: dict[str, Any] = {}
    for line in stdout.decode("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError):  # something else that printed
            said.update(json.loads(line))
    return Outcome(said, stderr.decode("utf-8", "replace"), died)


def _end(code: int) -> str | None:
    """How a process with that exit status ended; None if it ended well."""
    if code >= 0:
        return f"ended with exit status {code}" if code else None
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def start(say: Say, device: str, threads: int | None, variables: list[str]) -> None:
    """Open and run the smallest graph of the embedded demo.

    Says the providers it lists, the environment `variables` when it was imported, the provider that
    started, and how many threads it started for an operator.
    """
    import numpy as np

    from igpt_runtime.bundle.graph_io import POSTPROCESS
    from igpt_runtime.engine.session import import_onnxruntime, open_session

    ort = import_onnxruntime()
    set_now = {name: os.environ[name] for name in variables if name in os.environ}
    say(providers=list(ort.get_available_providers()), environment=set_now)
    session = open_session(device=device, threads=threads)
    before = _count_threads()
    graph = session.graph(POSTPROCESS)
    after = _count_threads()
    inputs = {spec.name: np.zeros([_size(axis) for axis in spec.shape], np.int64) for spec in graph.get_inputs()}
    graph.run(None, inputs)
    say(started=str(graph.get_providers()[0]), threads=None if before is None or after is None else after - before + 1)


def _size(axis: int | str | None) -> int:
    return axis if isinstance(axis, int) else 1


def _count_threads() -> int | None:
    """Threads of this process, where the system tells."""
    return len(os.listdir(_TASKS)) if _TASKS.is_dir() else None


def bundle(say: Say, path: str, device: str, threads: int | None) -> None:
    """Open every graph of a bundle, then draw two tokens; of a mere classifier, run prefill.

    Says the graph it is at, the errors by graph, the provider, the tokens and the seconds of the last part.
    """
    from igpt_runtime.engine.session import open_session
    from igpt_runtime.errors import IgptError

    session = open_session(path, device=device, threads=threads)
    errors: dict[str, str] = {}
    for name, graph in session.manifest.graphs.items():
        say(at=f"opening {graph.file}")
        try:
            with session.part(name, [spec.name for spec in graph.outputs]):
                pass
        except IgptError as error:
            errors[graph.file] = str(error)
    say(errors=errors)
    if not errors:
        _draw(say, session)


def _draw(say: Say, session: Any) -> None:
    import numpy as np

    from igpt_runtime.bundle import graph_io
    from igpt_runtime.engine.generate import ResolvedOptions, generate

    config = session.manifest.config
    draws = graph_io.DECODE in session.manifest.graphs
    say(at="drawing" if draws else "prefill")
    begin = time.perf_counter()
    if draws:
        primer = np.zeros(min(1, config.n_positions - 1), np.int64)
        drawn = list(islice(generate(session, primer, ResolvedOptions(n=1)), 2))
        say(tokens=[int(tokens[0]) for tokens in drawn])
    else:
        inputs = {graph_io.INPUT_IDS: np.full((1, 1), config.sos, np.int64)}
        (features,) = session.graph(graph_io.PREFILL).run([graph_io.FEATURES], inputs)
        say(finite=bool(np.isfinite(features).all()))
    say(seconds=time.perf_counter() - begin, provider=session.provider)


def main(job: str) -> None:
    """Do a job; an error is said, and no exception."""
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # ONNX Runtime prints to both

    def say(**words: Any) -> None:
        print(json.dumps(words), file=stdout, flush=True)

    jobs: Mapping[str, Callable[..., None]] = {"start": start, "bundle": bundle}
    asked = json.loads(job)
    try:
        jobs[asked.pop("job")](say, **asked)
    except Exception as error:
        from igpt_runtime.errors import IgptError

        text = " ".join(str(error).split())
        ours = f"{type(error).__name__}: {text}; report this line to the makers of igpt-onnx"
        say(error=text if isinstance(error, IgptError) else ours)


if __name__ == "__main__":
    main(sys.argv[1])
