"""Checkpoints that are damaged, or made to mislead, and what the exporter makes of them."""

import hashlib
import io
import random
import shutil
import struct
import zipfile
from pathlib import Path

from hostile.fuzz import rules
from hostile.fuzz.campaign import Verdict
from hostile.fuzz.checkpoint_bases import make_checkpoints, make_openai_checkpoint
from hostile.fuzz.damage import damage_bytes, replace_file
from hostile.fuzz.forks import PATIENCE, Outcome, command, forked, import_as
from hostile.fuzz.json_damage import damage_json

_CLUSTERS = "kmeans_centers.npy"
_PREFIX = "model.ckpt-7"
# Formats whose parts have checksums, so that damage is never taken for something else.
_CHECKED = {".bin", ".index", ".data-00000-of-00002", ".data-00001-of-00002"}

_MAY_CHANGE = ("out", "tmp/torchinductor_")  # the outputs, and torch's temporary directory


class Checkpoints:
    """Mutated copies of small sound checkpoints of Hugging Face."""

    name = "checkpoints"
    jobs = 2

    def __init__(self, *, export_every: int = 20) -> None:
        """export_every: each how many cases are exported, and not only read."""
        self._export_every = export_every
        self._bases: list[Path] = []
        self._sound: dict[str, str] = {}

    def prepare(self, directory: Path) -> None:
        self._make(directory)
        self._bases = sorted((directory / "checkpoints").iterdir())
        first = self._bases[0]
        for work in (lambda: _load(first), command("igpt_export", [*_named(first), "-o", str(directory / "first")])):
            imported = import_as("first", directory, work)
            assert not imported.code, imported.stderr
        for base in self._bases:
            outcome = forked("load", directory, lambda base=base: _load(base), seconds=60)  # type: ignore[misc]
            assert not outcome.code and not rules.faults_of(outcome), (base, outcome.stderr)
            self._sound[base.name] = outcome.stdout.decode()

    def _make(self, directory: Path) -> None:
        made = forked("make", directory, lambda: make_checkpoints(directory / "checkpoints"), seconds=300)
        assert not made.code, (made, made.stderr)

    def run(self, rng: random.Random, place: Path) -> Verdict:
        base = rng.choice(self._bases)
        checkpoint = place / base.name
        shutil.copytree(base, checkpoint)
        shutil.copytree(base, place / "sound")
        guard = rules.Canary(place / "canary.bin", b"{}")
        kind, checked = damage_checkpoint(checkpoint, rng, guard.path)
        for made in ("cwd", "home", "tmp", "out"):
            (place / made).mkdir()
        before = rules.tree(place)
        loaded = forked("load", place, lambda: _load(checkpoint))
        faults = [f"load: {fault}" for fault in rules.faults_of(loaded)]
        same = not loaded.code and loaded.stdout.decode() == self._sound[base.name]
        if checked and not loaded.code and not same:
            faults.append("load: another model than the sound checkpoint's")
        if self._export_every and rng.random() * self._export_every < 1:
            alone = rng.random() < 0.2
            faults += [f"export: {fault}" for fault in self._export(checkpoint, place, loaded, alone=alone)]
            kind += ", exported"
        others = [path for path in rules.written(before, rules.tree(place)) if not path.startswith(_MAY_CHANGE)]
        faults += [f"wrote {others[0]}"] if others else []
        if guard.was_read() and "is a link out" not in kind:  # links are followed: the Hub's cache has them
            faults.append("a file outside of the checkpoint was read")
        ending = "refused" if loaded.code else "as before" if same else "another model"
        return Verdict(f"{base.name}: {kind}", ending, tuple(dict.fromkeys(faults)))

    def _export(self, checkpoint: Path, place: Path, loaded: Outcome, *, alone: bool) -> list[str]:
        """What is wrong with how it is exported, and with the bundle."""
        bundle = place / "out/bundle"
        arguments = [*_named(checkpoint), "-o", str(bundle), "--progress", "never", "--json"]
        outcome = forked("export", place, command("igpt_export", arguments, alone=alone), seconds=PATIENCE)
        found = rules.faults_of(outcome)
        if outcome.code:
            return found + (["something is left of an export that failed"] if any((place / "out").iterdir()) else [])
        if loaded.code:
            found.append("a checkpoint is exported that is not read")
        if sorted(path.name for path in (place / "out").iterdir()) != ["bundle"]:
            found.append("more is left than the bundle")
        info = forked("info", place, command("igpt_runtime", ["info", "--json", "--model", str(bundle)]))
        found += rules.faults_of(info)
        for text in (outcome.stdout, info.stdout):
            try:
                rules.strict_json(text)
            except (ValueError, RecursionError) as error:
                found.append(f"no JSON ({error})")
        return found


class OpenAICheckpoints(Checkpoints):
    """Mutated copies of a small sound checkpoint of OpenAI."""

    name = "openai"

    def _make(self, directory: Path) -> None:
        target = directory / "checkpoints/openai"
        made = forked("make", directory, lambda: make_openai_checkpoint(target), seconds=300)
        assert not made.code, (made, made.stderr)
        from igpt_export.checkpoint.openai import import_tensorflow

        import_tensorflow()


def _named(checkpoint: Path) -> list[str]:
    """The options that name a checkpoint."""
    if checkpoint.name != "openai":
        return ["--checkpoint", str(checkpoint)]
    return ["--checkpoint", str(checkpoint / _PREFIX), "--clusters", str(checkpoint / _CLUSTERS)]


def _load(checkpoint: Path) -> None:
    """Print what a checkpoint is, hashes for tensors and colours, or end with a line that tells what is wrong."""
    import torch

    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.checkpoint.openai import load_openai_checkpoint
    from igpt_runtime.errors import IgptError

    torch.set_num_threads(1)
    try:
        if checkpoint.name == "openai":
            found = load_openai_checkpoint(checkpoint / _PREFIX, checkpoint / _CLUSTERS)
        else:
            found = load_checkpoint(checkpoint)
        digest = hashlib.sha256(found.image_format.clusters.tobytes())
        for name in found.tensors:
            assert found.tensors[name].isfinite().all(), name
            digest.update(found.tensors[name].numpy().tobytes())
    except IgptError as error:
        raise SystemExit(f"Error: {error}") from None
    print(found.config, found.classifier, found.sampling, digest.hexdigest())


def damage_checkpoint(checkpoint: Path, rng: random.Random, outside: Path) -> tuple[str, bool]:
    """Damage one file of a checkpoint; returns what was done, and whether its format tells."""
    path = rng.choice(sorted(checkpoint.iterdir()))
    if rng.random() < 0.15:
        return f"{_sort(path)} is {replace_file(path, rng, outside)}", False
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.8:
        changed, kind = damage_json(content, rng)
        path.write_bytes(changed)
        return f"{_sort(path)}: {kind}", False
    if path.suffix == ".safetensors" and rng.random() < 0.5:
        changed, kind = _damaged_header(content, rng)
    elif path.suffix == ".bin" and rng.random() < 0.5 and content.startswith(b"PK"):
        changed, kind = _damaged_member(content, rng)
    else:
        changed, kind = damage_bytes(content, rng)
        path.write_bytes(changed)
        return f"{_sort(path)}: {kind}", path.suffix in _CHECKED and content[:2] != b"\x80\x02"
    path.write_bytes(changed)
    return f"{_sort(path)}: {kind}", False


def _sort(path: Path) -> str:
    return path.suffix.lstrip(".").split("-")[0] if path.suffix != ".json" else path.name


def _damaged_header(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A safetensors file whose header is other JSON, of the length that is told."""
    (length,) = struct.unpack_from("<Q", content)
    header, kind = damage_json(content[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + content[8 + length :], f"header, {kind}"


def _damaged_member(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A zip file of which a member is changed, with a right checksum."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    name = rng.choice((rng.choice(names), next(n for n in names if n.endswith("data.pkl"))))
    changed, kind = damage_bytes(members[name], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for other, data in members.items():
            archive.writestr(other, changed if other == name else data)
    return buffer.getvalue(), f"{'pickle' if name.endswith('.pkl') else 'member'}, {kind}, with a right checksum"
