"""Runs the cases of a harness, some at once, counts how they end, and keeps those that are mishandled."""

import json
import os
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

_SAY = 10.0  # seconds between two lines of progress
_LOOK = 0.005
_KEPT = 30  # of each kind of fault


@dataclass(frozen=True)
class Verdict:
    """How one case ended."""

    kind: str  # of what was tried
    ending: str  # refused, as before ...
    faults: tuple[str, ...] = ()


class Harness(Protocol):
    """Cases of one sort. A case depends on its random numbers only."""

    name: str
    jobs: int  # cases at once

    def prepare(self, directory: Path) -> None:
        """Make what all cases begin with, and import what they need."""

    def run(self, rng: random.Random, place: Path) -> Verdict:
        """Try one case in an empty directory."""


@dataclass
class Report:
    """What came of a campaign."""

    name: str
    seed: int
    count: int = 0
    seconds: float = 0.0
    endings: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[int]] = field(default_factory=dict)  # cases by fault

    @property
    def mishandled(self) -> int:
        return len({case for cases in self.faults.values() for case in cases})

    def add(self, index: int, verdict: Verdict) -> None:
        self.count += 1
        self.kinds[verdict.kind] += 1
        self.endings["mishandled" if verdict.faults else verdict.ending] += 1
        for fault in verdict.faults:
            self.faults.setdefault(fault, []).append(index)

    def text(self) -> str:
        """A table of endings, and one of faults if there are any."""
        lines = [f"{self.name}: {self.count:,} cases in {self.seconds:,.0f} s, {self.mishandled:,} mishandled"]
        lines += [f"  {count:8,}  {ending}" for ending, count in self.endings.most_common() if ending]
        for fault, cases in sorted(self.faults.items(), key=lambda item: -len(item[1])):
            lines.append(f"  FAULT {len(cases):,} x {fault}: {', '.join(map(str, cases[:8]))}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Campaign:
    """Which cases are run, and where."""

    count: int
    seed: int
    directory: Path  # of what is kept
    first: int = 0
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    def run(self, harness: Harness) -> Report:
        """Run them all."""
        work = self.directory / f"work-{harness.name}-{os.getpid()}"
        shutil.rmtree(work, ignore_errors=True)
        (work / "bases").mkdir(parents=True)
        report, start = Report(harness.name, self.seed), time.monotonic()
        try:
            harness.prepare(work / "bases")
            self._run_all(harness, work, report)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        report.seconds = time.monotonic() - start
        return report

    def _run_all(self, harness: Harness, work: Path, report: Report) -> None:
        running: dict[int, int] = {}  # case by process
        pending = iter(range(self.first, self.first + self.count))
        said = start = time.monotonic()
        while True:
            while len(running) < harness.jobs and (index := next(pending, None)) is not None:
                running[_begin(harness, self.seed, index, work / str(index))] = index
            if not running:
                return
            process, _ = os.waitpid(-1, os.WNOHANG)
            if process in running:
                index = running.pop(process)
                report.add(index, self._end(harness, work / str(index), index, report))
            elif not process:
                time.sleep(_LOOK)
            if time.monotonic() - said > _SAY:
                said = time.monotonic()
                rate = report.count / (said - start)
                self.say(
                    f"{harness.name}: {report.count:,} of {self.count:,}, "
                    f"{report.mishandled} mishandled, {rate:.1f}/s ..."
                )

    def _end(self, harness: Harness, place: Path, index: int, report: Report) -> Verdict:
        """The verdict on a case that has ended; its directory is kept if it was mishandled."""
        try:
            found = json.loads(place.with_suffix(".verdict").read_text())
            verdict = Verdict(found["kind"], found["ending"], tuple(found["faults"]))
        except (OSError, ValueError):
            verdict = Verdict("harness", "", ("the harness itself failed",))
        place.with_suffix(".verdict").unlink(missing_ok=True)
        if any(len(report.faults.get(fault, ())) < _KEPT for fault in verdict.faults):
            kept = self.directory / harness.name / f"{self.seed}-{index}"
            shutil.rmtree(kept, ignore_errors=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                shutil.move(place, kept)
            self.say(f"MISHANDLED {harness.name} {index} ({verdict.kind}): {'; '.join(verdict.faults)}")
            self.say(f"  kept in {kept}; again: make fuzz HARNESS={harness.name} SEED={self.seed} CASE={index}")
        remove(place)
        return verdict


def remove(place: Path) -> None:
    """Remove a directory in which permissions may be missing."""
    shutil.rmtree(place, ignore_errors=True)


def _begin(harness: Harness, seed: int, index: int, place: Path) -> int:
    """Try a case in a process of its own, which writes its verdict; returns the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    try:
        place.mkdir()
        verdict = harness.run(random.Random(f"{harness.name} {seed} {index}"), place)
        text = json.dumps(asdict(verdict))
    except BaseException:
        fault = f"the harness itself failed: {traceback.format_exc()[-800:]}"
        text = json.dumps(asdict(Verdict("harness", "", (fault,))))
    try:
        place.with_suffix(".verdict").write_text(text)
    finally:
        os._exit(0)
