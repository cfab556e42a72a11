"""Commands that are killed at any moment, and the same command again: nothing is lost, repeated, refused or left."""

import contextlib
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

from hostile.fuzz import rules
from hostile.fuzz.campaign import Verdict
from hostile.fuzz.commands import COMMANDS, Work, Written, make_given, preload
from hostile.fuzz.forks import PATIENCE, Outcome, Running, forked
from hostile.fuzz.results import contents, said

_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_ALONE_EVERY = 10  # each how many cases start interpreters of their own
_START = 1.2  # seconds that one takes to begin, with torch
_SLOW = tuple(name for name, written in COMMANDS.items() if written.module == "igpt_export")
_FAST = tuple(name for name in COMMANDS if name not in _SLOW)
_CONSOLE = b"igpt_runtime/console.py"


class Kills:
    """Kills of the commands that write files."""

    name = "kills"
    jobs = 2

    def __init__(self) -> None:
        self._given = Path()
        self._commands: dict[str, Written] = {}
        self._expected: dict[str, dict[str, str]] = {}
        self._old = Path()  # a bundle that stands where another is exported to

    def prepare(self, directory: Path) -> None:
        self._given, self._old = directory / "given", directory / "old"
        made = forked("make", directory, lambda: make_given(self._given), seconds=120)
        assert not made.code, made.stderr
        preload(self._given, directory / "first")
        shutil.copytree(Path(__file__).parents[3] / "tests/golden/bundle", self._old)
        for name, written in COMMANDS.items():
            place = directory / "undisturbed" / name
            (place / "out").mkdir(parents=True)
            taken = [self._whole_run(name, written, place) for _ in range(2)]
            self._commands[name] = replace(written, seconds=min(taken))
            self._expected[name] = contents(place / "out")

    def _whole_run(self, name: str, written: Written, place: Path) -> float:
        shutil.rmtree(place / "out")
        self._set_up(written, place)
        outcome = forked("run", place, written.work(self._given, place / "out", force=written.forced), seconds=120)
        assert not outcome.code, (name, outcome.stderr)
        return outcome.seconds

    def _set_up(self, written: Written, place: Path) -> None:
        (place / "out").mkdir()
        if written.forced:
            shutil.copytree(self._old, place / "out" / written.outputs[0])

    def run(self, rng: random.Random, place: Path) -> Verdict:
        name = rng.choice(_FAST if rng.random() < 0.9 else _SLOW)
        written, out = self._commands[name], place / "out"
        alone = rng.randrange(_ALONE_EVERY) == 0
        self._set_up(written, place)
        faults: list[str] = []
        signals = [rng.choice(_SIGNALS) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        for number in signals:
            moment = rng.uniform(0, written.seconds * 1.1 + (_START if alone else 0))
            force = written.forced or _is_there(out, written)
            outcome = _killed(written.work(self._given, out, force=force, alone=alone), place, number, moment)
            if found := _faults_of_the_killed(outcome, number):
                (place / "stderr").write_bytes(outcome.stderr)
                faults += found
            faults += self._faults_of_what_is_there(name, out)
        force = written.forced or _is_there(out, written)
        work = written.work(self._given, out, force=force, alone=alone)
        again = forked("again", place, work, seconds=PATIENCE)
        if again.code:
            faults.append(f"refused: {_last_line(again)}")
        faults += rules.faults_of(again)
        if not again.code:
            faults += self._faults_of_results(name, out)
        kind = f"{name}, {' '.join(number.name for number in signals)}"
        return Verdict(kind, "as undisturbed", tuple(dict.fromkeys(faults)))

    def _faults_of_what_is_there(self, name: str, out: Path) -> list[str]:
        """Files that a killed command has left in their places must be whole."""
        written, found = self._commands[name], []
        for output in written.outputs:
            path = out / output
            if not path.exists():
                found += [f"{output} is gone"] if written.forced else []
                continue
            try:
                if path.is_file() and said(path) != self._expected[name][output]:
                    found.append(f"{output} is not what an undisturbed run writes")
                if path.is_dir() and contents(path) not in (contents(self._old), _below(self._expected[name], output)):
                    found.append(f"{output} is neither the old one nor the new one")
            except ValueError as error:
                found.append(f"half-written: {error}")
        return found

    def _faults_of_results(self, name: str, out: Path) -> list[str]:
        try:
            there = contents(out)
        except ValueError as error:
            return [f"half-written: {error}"]
        expected = self._expected[name]
        found = [f"left over: {path}" for path in there.keys() - expected.keys()]
        found += [f"lost: {path}" for path in expected.keys() - there.keys()]
        found += [f"other: {path}" for path in expected.keys() & there.keys() if expected[path] != there[path]]
        empty = [path for path in out.rglob("*") if path.is_dir() and not any(path.iterdir())]
        return [_steady(fault) for fault in found] + [f"left over: {path.name}/" for path in empty]


def _steady(fault: str) -> str:
    """Without what is random in the names of unfinished files."""
    return "".join("0" if character.isdigit() else character for character in fault)


def _below(expected: dict[str, str], directory: str) -> dict[str, str]:
    return {path.removeprefix(f"{directory}/"): text for path, text in expected.items()}


def _is_there(out: Path, written: Written) -> bool:
    """Whether the same command needs --force, since its results, or a part of them, are there."""
    return any((out / output).exists() for output in written.outputs)


def _killed(work: Work, place: Path, number: signal.Signals, moment: float) -> Outcome:
    running = Running("killed", place, work)
    end = time.monotonic() + moment
    while time.monotonic() < end:
        time.sleep(min(0.001, max(0.0, end - time.monotonic())))
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.process, number)
    return running.wait(PATIENCE)


def _faults_of_the_killed(outcome: Outcome, number: signal.Signals) -> list[str]:
    if outcome.timed_out:
        return [f"{number.name} does not end it"]
    # An interrupt while Python itself starts or ends is told by Python.
    if b"Traceback" in outcome.stderr and _CONSOLE in outcome.stderr:
        return [f"traceback after {number.name}: {_last_line(outcome)}"]
    if outcome.code < 0 and -outcome.code != number:
        return [f"ended by signal {-outcome.code} after {number.name}"]
    return []


def _last_line(outcome: Outcome) -> str:
    lines = outcome.stderr.decode("utf-8", "replace").strip().splitlines()
    return _steady(lines[-1][:200]) if lines else ""
