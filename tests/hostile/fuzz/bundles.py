"""Bundles that are damaged, or made to mislead, and what every command makes of them."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

from hostile.fuzz import rules
from hostile.fuzz.bundle_bases import make_bundles
from hostile.fuzz.campaign import Verdict
from hostile.fuzz.damage import damage_bytes, replace_file
from hostile.fuzz.forks import Outcome, command, forked
from hostile.fuzz.graph_damage import damage_graph
from hostile.fuzz.json_damage import damage_json

ROOT = Path(__file__).parents[3]
SEVEN = ROOT / "models/digits/examples/seven.png"
_NODE = Path(__file__).with_name("open.mjs")
_MODULES = ROOT / "runtime/js/node_modules"
_CARD = "README.md"
_TAKEN = ("over ", "ended by SIGKILL")  # faults of commands that take too much
_ALONE_EVERY = 50  # each how many commands start an interpreter of their own
_ONE = ["--threads", "1", "--progress", "never"]
COMMANDS: dict[str, list[str]] = {
    "info": ["info", "--json"],
    "complete": ["complete", str(SEVEN), "-n", "1", "--keep", "75%", "-o", "OUT/complete.png", "--json", *_ONE],
    "classify": ["classify", str(SEVEN), "--json", *_ONE],
    "features": ["features", str(SEVEN), "-o", "OUT/features.npz", *_ONE],
    "score": ["score", str(SEVEN), "--json", *_ONE],
}
_TOLD = {"info": "config", "complete": "images", "classify": "images", "score": "images"}  # what of a result counts


class Bundles:
    """Mutated copies of small sound bundles."""

    name = "bundles"
    jobs = 2

    def __init__(self, *, node_every: int = 25) -> None:
        """node_every: each how many cases are also opened in Node."""
        self._node_every = node_every if shutil.which("node") and _MODULES.is_dir() else 0
        self._bases: list[Path] = []
        self._expected: dict[tuple[str, str], object] = {}

    def prepare(self, directory: Path) -> None:
        import igpt_runtime
        from igpt_runtime.engine.session import import_onnxruntime

        for name in igpt_runtime.__all__:
            getattr(igpt_runtime, name)
        import_onnxruntime()
        sources = [ROOT / "tests/golden/bundle", ROOT / "runtime/python/igpt_runtime/digits"]
        made = forked("make", directory, lambda: make_bundles(directory / "made"), seconds=300)
        assert not made.code, made.stderr
        sources += sorted((directory / "made/bundles").iterdir())
        for number, source in enumerate(sources):
            base = directory / f"{number}-{source.name}"
            shutil.copytree(source, base)
            place = directory / f"place-{number}"
            (place / "out").mkdir(parents=True)
            for name in COMMANDS:
                outcome = self._command(name, base, place)
                refused = base.name.endswith("classifier") and name in ("complete", "score")  # no language model
                assert not rules.faults_of(outcome) and bool(outcome.code) is refused, (base, outcome, outcome.stderr)
                self._expected[base.name, name] = _answer(name, outcome, place)
            self._bases.append(base)

    def run(self, rng: random.Random, place: Path) -> Verdict:
        base = rng.choice(self._bases)
        bundle, canary = place / "bundle", place / "canary.bin"
        shutil.copytree(base, bundle)
        os.symlink(base, place / "sound")
        guard = rules.Canary(canary, (base / "weights.safetensors").read_bytes())
        kind, mended = damage_bundle(bundle, rng, guard.path)
        if rng.random() < 0.1:
            bundle, kind = _as_in_the_hub(bundle), f"{kind}, in the hub's cache"
        (place / "out").mkdir()
        for made in ("cwd", "home", "tmp"):
            (place / made).mkdir()
        before = rules.tree(place)
        faults, endings, taken = [], [], False
        for name in COMMANDS:
            outcome = self._command(name, bundle, place, alone=rng.random() * _ALONE_EVERY < 1)
            found = rules.faults_of(outcome)
            taken |= any(fault.startswith(_TAKEN) for fault in found)
            if not outcome.code:
                answer = _answer(name, outcome, place)
                same = answer == self._expected[base.name, name]
                found += _wrong(answer) + ([] if same or mended else ["another answer than the sound bundle's"])
                endings.append("as before" if same else "another answer")
            else:
                endings.append("refused")
                if outcome.code > 0 and any((place / "out").iterdir()):
                    found.append("files of a command that failed")
            shutil.rmtree(place / "out")
            (place / "out").mkdir()
            faults += [f"{name}: {fault}" for fault in found]
        if self._node_every and rng.random() * self._node_every < 1:
            found = node_faults(bundle, place)
            taken |= any(fault.startswith(_TAKEN) for fault in found)
            faults += [f"node: {fault}" for fault in found]
            kind = f"{kind}, in Node as well"
        if others := [path for path in rules.written(before, rules.tree(place)) if path != "out"]:
            faults.append(f"wrote {others[0].split('/')[0]}")
        if guard.was_read():
            faults.append("a file outside of the bundle was read")
        ending = max(endings)
        if taken and "graph with a right hash" in kind:
            ending = "took what a stranger's graph may take"
            faults = [fault for fault in faults if not fault.split(": ")[1].startswith(_TAKEN)]
        return Verdict(kind, ending, tuple(dict.fromkeys(faults)))

    def _command(self, name: str, bundle: Path, place: Path, *, alone: bool = False) -> Outcome:
        arguments = [argument.replace("OUT", str(place / "out")) for argument in COMMANDS[name]]
        work = command("igpt_runtime", [*arguments, "--model", str(bundle)], alone=alone)
        return forked(name, place, work)


def damage_bundle(bundle: Path, rng: random.Random, outside: Path) -> tuple[str, bool]:
    """Damage one file of a bundle; returns what was done, and whether its answers may be others."""
    names = sorted(path.name for path in bundle.iterdir() if path.name != _CARD)
    way = rng.choice(("bytes", "file", "manifest", "manifest", "mended graph", "mended graph", "mended bytes", "swap"))
    if way == "manifest":
        content, kind = damage_json((bundle / "manifest.json").read_bytes(), rng)
        (bundle / "manifest.json").write_bytes(content)
        return f"manifest: {kind}", True
    name = rng.choice(names if rng.random() < 0.5 else ["manifest.json", "weights.safetensors", "prefill.onnx"])
    path = bundle / name
    if way == "file":
        return f"{_sort(name)} is {replace_file(path, rng, outside)}", False
    if way == "swap":
        other = bundle / rng.choice([other for other in names if other != name])
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)
        return "two files swapped", False
    if way == "bytes":
        content, kind = damage_bytes(path.read_bytes(), rng)
        path.write_bytes(content)
        return f"{_sort(name)}: {kind}", name == "manifest.json"
    if way == "mended graph":
        graphs = [name for name in names if name.endswith(".onnx")]
        name = rng.choice([*graphs, *(name for name in graphs if name in ("prefill.onnx", "decode.onnx"))])
        content, kind = damage_graph((bundle / name).read_bytes(), rng)
    else:
        name = rng.choice(["weights.safetensors", *(name for name in names if name.endswith(".onnx"))])
        content, kind = damage_bytes((bundle / name).read_bytes(), rng)
    mend(bundle, name, content)
    return f"{_sort(name)} with a right hash: {kind}", True


def mend(bundle: Path, name: str, content: bytes) -> None:
    """Give a file other content, and its size and hash to the manifest."""
    (bundle / name).write_bytes(content)
    record = json.loads((bundle / "manifest.json").read_bytes())
    record["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(record))


def _as_in_the_hub(bundle: Path) -> Path:
    """The bundle where the Hub's client would have it: links to files that are named by their hashes."""
    repository = bundle.with_name("models--owner--name")
    snapshot, blobs = repository / "snapshots/0", repository / "blobs"
    snapshot.parent.mkdir(parents=True)
    blobs.mkdir()
    bundle.rename(snapshot)
    for path in sorted(snapshot.iterdir()):
        if path.is_file() and not path.is_symlink():
            blob = blobs / hashlib.sha256(path.name.encode()).hexdigest()
            path.rename(blob)
            path.symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def _sort(name: str) -> str:
    return {"manifest.json": "manifest", "weights.safetensors": "weights"}.get(name, "graph")


def _answer(command: str, outcome: Outcome, place: Path) -> object:
    """What a command has found out, without times and paths; a text that begins with "no" if it is no result."""
    if outcome.code:
        return None
    if command == "features":
        return _features(place / "out/features.npz")
    try:
        record = rules.strict_json(outcome.stdout)
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error})"
    if command == "complete":
        from PIL import Image

        try:
            with Image.open(place / "out/complete.png") as picture:
                picture.load()
        except Exception:
            return "no picture"
        return [row["tokens"] for row in record["images"]]
    return record if command == "info" else record[_TOLD[command]]


def _features(path: Path) -> object:
    import numpy as np

    try:
        with np.load(path) as found:
            values = found["features"]
    except Exception:
        return "no features"
    return values.tolist() if np.isfinite(values).all() else "not a number among the features"


def _wrong(answer: object) -> list[str]:
    """What cannot be an answer of any model."""
    return [answer] if isinstance(answer, str) else []


def node_faults(bundle: Path, place: Path) -> list[str]:
    """What is wrong with how JavaScript opens and runs it."""

    def work() -> Any:
        os.execvp("node", ["node", str(_NODE), str(bundle), str(SEVEN)])

    outcome = forked("node", place, work)
    found = rules.faults_of(outcome)
    if not outcome.code:
        record = json.loads(outcome.stdout)
        if "error" in record and not record["ours"]:
            found.append(f"an error of another kind ({record['error'][:60]})")
        if "error" in record and ("\n" in record["error"] or len(record["error"]) > 2000):
            found.append("more than one line")
    return found


__all__ = ["COMMANDS", "Bundles", "damage_bundle", "mend", "node_faults"]
