"""A completion in a process of its own: how long it takes from nothing, and the memory it takes.

`python -m igpt_runtime.bench.fresh_process` is that process: it prints when it has the first token, and then its
memory.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from igpt_runtime.bench.hardware import Resident, peak_memory, resident_memory
from igpt_runtime.errors import DeviceError, IgptError

SEED = 0
_FIRST_TOKEN = "first token"  # what the process says then
_WATCH_EVERY = 16  # steps between two looks at the memory
_UNKNOWN = {"anonymous": None, "mapped": None}
_ADVICE = "ask for fewer pictures at once if memory ran out"


@dataclass(frozen=True)
class Where:
    """What a bundle runs on; the fields are arguments of `igpt_runtime.engine.session.open_session`."""

    device: str = "auto"
    threads: int | None = None
    spin: str = "auto"


@dataclass(frozen=True)
class FreshProcess:
    """A process that starts, imports, opens the bundle, completes n pictures and ends."""

    start_to_first_token: float  # seconds
    start_to_pictures: float  # seconds
    peak_memory: int | None  # bytes of host memory, mapped files included; None where the system does not tell
    anonymous: int | None  # bytes of memory that is the process's own, at the step with the most
    mapped: int | None  # bytes of mapped files in memory then, which the system can drop


def half_picture(clusters: npt.NDArray[np.float32], height: int, width: int) -> Image.Image:
    """The picture to complete: fixed random colours of the palette, since the work does not depend on what it shows."""
    from igpt_runtime.pictures.palette import tokens_to_image

    tokens = np.random.default_rng(SEED).integers(0, len(clusters), height * width)
    return tokens_to_image(tokens, clusters, height, width)


def measure_fresh_process(path: Path, n: int, where: Where) -> FreshProcess:
    """Complete the picture n times in a new process. Raises DeviceError when that process fails."""
    request = json.dumps({"path": str(path), "where": asdict(where), "n": n})
    command = [sys.executable, "-P", "-m", "igpt_runtime.bench.fresh_process", request]
    begin = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True) as process,
    ):
        assert process.stdout is not None
        said = process.stdout.readline()
        first = time.perf_counter() - begin
        result = process.stdout.readline()
        last = time.perf_counter() - begin
        if process.wait() or said.strip() != _FIRST_TOKEN:
            messages.seek(0)
            reason = (messages.read().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise DeviceError(f"a fresh process could not complete a picture ({reason}); {_ADVICE}")
    return FreshProcess(first, last, **json.loads(result))


class _Watch:
    """The progress function of the process: says when the first token is there, and follows the memory."""

    def __init__(self) -> None:
        self._steps = 0
        self.most: Resident | None = None

    def __call__(self, _: int) -> None:
        if not self._steps:
            print(_FIRST_TOKEN, flush=True)
        if self._steps % _WATCH_EVERY == 0:
            now = resident_memory()
            if now is not None and (self.most is None or now.anonymous >= self.most.anonymous):
                self.most = now
        self._steps += 1


def main(request: str) -> None:
    """Complete as asked; prints a line at the first token and a JSON object of the memory it took at the end."""
    from igpt_runtime.engine.generate import ResolvedOptions
    from igpt_runtime.engine.session import open_session
    from igpt_runtime.tasks.complete import complete

    asked = json.loads(request)
    session = open_session(asked["path"], **asked["where"])
    form = session.manifest.image_format
    picture = half_picture(form.clusters, form.height, form.width)
    watch = _Watch()
    complete(session, picture, ResolvedOptions(asked["n"], SEED), progress=watch)
    split = {"anonymous": watch.most.anonymous, "mapped": watch.most.file} if watch.most else _UNKNOWN
    print(json.dumps({"peak_memory": peak_memory(), **split}), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except IgptError as error:
        sys.exit(str(error))
