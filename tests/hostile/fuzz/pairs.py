"""Two commands at once that write to one place: what is there in the end is whole, and of one of them."""

import random
import shutil
import time
from pathlib import Path

from hostile.fuzz import rules
from hostile.fuzz.campaign import Verdict
from hostile.fuzz.commands import COMMANDS, Work, Written, make_given, preload
from hostile.fuzz.forks import PATIENCE, Outcome, Running, forked
from hostile.fuzz.results import contents

_ALONE_EVERY = 10
_OTHERS = {  # options that make another result of a command, of one that writes one file
    "features": ("--layers", "1,2"),
    "features in parquet": ("--layers", "1,2"),
    "complete": ("--seed", "7"),
    "score": ("--protocol", "paper"),
    "probe fit": ("--layers", "1,2"),
    "export": (),
    "export, replacing": ("--seed", "1"),
}
_FAST = tuple(name for name, written in COMMANDS.items() if written.module == "igpt_runtime")
_SLOW = tuple(name for name in COMMANDS if name not in _FAST)


class Pairs:
    """Equal commands, and commands that differ, at once."""

    name = "pairs"
    jobs = 1

    def __init__(self) -> None:
        self._given = Path()
        self._expected: dict[tuple[str, bool], dict[str, str]] = {}
        self._seconds: dict[str, float] = {}

    def prepare(self, directory: Path) -> None:
        self._given = directory / "given"
        made = forked("make", directory, lambda: make_given(self._given), seconds=120)
        assert not made.code, made.stderr
        preload(self._given, directory / "first")
        for name in COMMANDS:
            for other in (False, True) if _OTHERS[name] else (False,):
                place = directory / f"{name} {other}"
                (place / "out").mkdir(parents=True)
                outcome = forked("run", place, self._work(name, place / "out", other=other, force=False), seconds=120)
                assert not outcome.code, (name, outcome.stderr)
                self._expected[name, other] = contents(place / "out")
                self._seconds[name] = outcome.seconds

    def _work(self, name: str, out: Path, *, other: bool, force: bool, alone: bool = False) -> Work:
        written = COMMANDS[name]
        more = _OTHERS[name] if other else ()
        changed = Written(written.module, (*written.arguments, *more), written.outputs)
        return changed.work(self._given, out, force=force, alone=alone)

    def run(self, rng: random.Random, place: Path) -> Verdict:
        name = rng.choice(_FAST if rng.random() < 0.9 else _SLOW)
        force, alone = rng.random() < 0.5, rng.randrange(_ALONE_EVERY) == 0
        # Several files of two commands that differ are each of one of them, and not all of the same.
        differ = bool(_OTHERS[name]) and len(COMMANDS[name].outputs) == 1 and rng.random() < 0.5
        out = place / "out"
        out.mkdir()
        if force and rng.random() < 0.5:
            forked("before", place, self._work(name, out, other=False, force=False), seconds=PATIENCE)
        outcomes = self._both(name, place, force=force, differ=differ, alone=alone, rng=rng)
        faults = _faults(outcomes)
        faults += self._faults_of_results(name, out, differ=differ)
        shutil.rmtree(place / "tmp", ignore_errors=True)
        ending = {0: "none ended well", 1: "one refused", 2: "both ended well"}[sum(not one.code for one in outcomes)]
        kind = f"{name}{', --force' if force else ''}{', which differ' if differ else ''}"
        return Verdict(kind, ending, tuple(dict.fromkeys(faults)))

    def _both(
        self, name: str, place: Path, *, force: bool, differ: bool, alone: bool, rng: random.Random
    ) -> list[Outcome]:
        running = []
        for number in range(2):
            work = self._work(name, place / "out", other=differ and number == 1, force=force, alone=alone)
            running.append(Running(f"run-{number}", place, work))
            if not number:
                time.sleep(rng.choice((0.0, 0.0, rng.uniform(0, self._seconds[name]))))
        return [one.wait(PATIENCE) for one in running]

    def _faults_of_results(self, name: str, out: Path, *, differ: bool) -> list[str]:
        try:
            there = contents(out)
        except ValueError as error:
            return [f"half-written: {error}"]
        allowed = [self._expected[name, False], *([self._expected[name, True]] if differ else [])]
        if there in allowed:
            return []
        expected = allowed[0]
        found = [f"left over: {path}" for path in there.keys() - expected.keys()]
        found += [f"lost: {path}" for path in expected.keys() - there.keys()]
        found += [f"of neither: {path}" for path in expected.keys() & there.keys() if expected[path] != there[path]]
        return ["".join("0" if character.isdigit() else character for character in fault) for fault in found]


def _faults(outcomes: list[Outcome]) -> list[str]:
    faults = []
    for outcome in outcomes:
        faults += rules.faults_of(outcome)
    if all(outcome.code for outcome in outcomes):
        said = " | ".join(outcome.stderr.decode("utf-8", "replace").strip()[-150:] for outcome in outcomes)
        faults.append(f"none of them ended well: {said}")
    return faults
