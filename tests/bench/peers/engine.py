"""igpt-run's engine, through the functions of `igpt_runtime` that its users call."""

import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from igpt_runtime import GenerationOptions, generate_all, open_session
from igpt_runtime.engine import generate
from igpt_runtime.engine.session import Session
from peers import workload
from peers.workload import Completion, Logits, Shape, Tokens


def versions() -> dict[str, str]:
    """What was measured."""
    return {"onnxruntime": version("onnxruntime")}


class Engine:
    """`workload.System` of a bundle."""

    proxy = False

    def __init__(self, session: Session, shape: Shape) -> None:
        self.session, self.shape = session, shape
        self.settings = "igpt_runtime's generate and generate_all, graphs open"

    def prefill(self) -> float:
        """See `workload.System`: the time to the first token."""
        begin = time.perf_counter()
        next(generate(self.session, workload.given(self.shape), GenerationOptions(n=1)))
        return time.perf_counter() - begin

    def decode(self, rows: int, steps: int) -> list[float]:
        """See `workload.System`: times between the tokens that `generate` streams."""
        stream = generate(self.session, workload.given(self.shape), GenerationOptions(n=rows))
        ends = [time.perf_counter() for _ in islice(stream, steps + 1)]
        return [float(x) for x in np.diff(ends)]

    def complete(self, rows: int, *, in_full: bool) -> Completion:
        """See `workload.System`."""
        assert in_full, "the engine is fast enough to complete in full"
        options = GenerationOptions(rows, workload.SEED, temperature=1.0, top_k=0, top_p=1.0)
        next(generate(self.session, workload.given(self.shape), options))  # its graph is open from here on
        begin = time.perf_counter()
        pictures = generate_all(self.session, workload.given(self.shape), options)
        return Completion(time.perf_counter() - begin, pictures[:, self.shape.half :], self.shape.half)

    def check(self) -> tuple[Logits | None, Tokens | None]:
        """See `workload.System`."""
        inputs = np.concatenate([workload.prompt(self.shape), workload.following(self.shape)])[None]
        (logits,) = self.session.graph("prefill").run(["logits"], {"input_ids": inputs})
        greedy = generate(self.session, workload.given(self.shape), GenerationOptions(n=1, temperature=0.0))
        tokens = np.array([int(token[0]) for token in islice(greedy, workload.CHECKED)])
        return logits[0, self.shape.half :], tokens


def load(bundle: Path, shape: Shape, precision: str, threads: int) -> Engine:
    """Open the bundle and the graphs that one picture uses, as the other systems load their models beforehand."""
    session = open_session(bundle, device="cpu", threads=threads)
    session.graph("prefill")
    next(generate(session, workload.given(shape), GenerationOptions(n=1)))
    return Engine(session, shape)
