"""Picture files that are damaged, or made to mislead, and what the reader and a command make of them."""

import hashlib
import random
import warnings
from pathlib import Path

from hostile.fuzz import rules
from hostile.fuzz.campaign import Verdict
from hostile.fuzz.damage import damage_bytes, replace_file
from hostile.fuzz.forks import command, forked
from hostile.fuzz.picture_damage import damage_chunks, enlarge, pictures

_COMMAND_EVERY = 5


class Pictures:
    """Mutated files of all formats that are read, and of some that are not."""

    name = "pictures"
    jobs = 2

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._sound: dict[str, str | None] = {}  # what is read of them

    def prepare(self, directory: Path) -> None:
        import igpt_runtime
        from igpt_runtime.engine.session import import_onnxruntime

        for name in igpt_runtime.__all__:
            getattr(igpt_runtime, name)
        import_onnxruntime()
        self._files = pictures()
        for name, content in self._files.items():
            path = directory / "sound"
            path.write_bytes(content)
            outcome = forked("read", directory, lambda path=path: _read(path))  # type: ignore[misc]
            assert not rules.faults_of(outcome), (name, outcome.stderr)
            self._sound[name] = None if outcome.code else outcome.stdout.decode()

    def run(self, rng: random.Random, place: Path) -> Verdict:
        name = rng.choice(tuple(self._files))
        path = place / f"picture{rng.choice(('.png', '.jpg', '', '.gif', '.bmp'))}"
        (place / "sound").mkdir()
        content, kind, exact = self._damaged(name, rng)
        path.write_bytes(content)
        if rng.random() < 0.02:
            kind, exact = replace_file(path, rng, place / "aside"), False
        for made in ("cwd", "home", "tmp"):
            (place / made).mkdir()
        before = rules.tree(place)
        read = forked("read", place, lambda: _read(path))
        faults = [f"reader: {fault}" for fault in rules.faults_of(read)]
        text = read.stdout.decode()
        if exact and not read.code and text != self._sound[name]:
            faults.append("reader: other pixels than the sound file's")
        if rng.randrange(_COMMAND_EVERY) == 0:
            arguments = ["classify", str(path), "--json", "--threads", "1", "--progress", "never"]
            outcome = forked("classify", place, command("igpt_runtime", arguments, alone=rng.random() < 0.05))
            faults += [f"classify: {fault}" for fault in rules.faults_of(outcome)]
            if bool(outcome.code) != bool(read.code):
                faults.append("classify: ends otherwise than the reader")
        faults += [f"wrote {path}" for path in rules.written(before, rules.tree(place))[:1]]
        same = text == self._sound[name]
        ending = "refused" if read.code else "as before" if same else "other pixels"
        return Verdict(f"{name}: {kind}", ending, tuple(faults))

    def _damaged(self, name: str, rng: random.Random) -> tuple[bytes, str, bool]:
        """Damaged content, what was done, and whether its format has checksums that tell."""
        content, is_png = self._files[name], name.startswith("png")
        way = rng.choice(("bytes", "bytes", "chunks" if is_png else "size", "other"))
        if way == "chunks":
            return *damage_chunks(content, rng), False
        if way == "size":
            return enlarge(content, rng), "sizes", False
        if way == "other":
            data, kind = damage_bytes(content + rng.choice(tuple(self._files.values())), rng)
            return data, f"two files, {kind}", False
        data, kind = damage_bytes(content, rng)
        return data, kind, is_png and name != "png turned"  # where it says so is left out if it is damaged


def _read(path: Path) -> None:
    """Print the size, the pixels' hash and the tokens of a picture, or end with a line that tells what is wrong."""
    import numpy as np

    from igpt_runtime import open_bundle, read_image
    from igpt_runtime.errors import ImageError
    from igpt_runtime.pictures.palette import image_to_tokens

    warnings.filterwarnings("ignore", module=r"PIL\.")  # as the commands do
    try:
        image = read_image(path)
    except ImageError as error:
        raise SystemExit(f"Error: {error}") from None
    form = open_bundle().manifest.image_format
    for crop in (False, True):
        tokens = image_to_tokens(image, form.clusters, form.height, form.width, crop=crop)
        assert tokens.shape == (form.height * form.width,) and 0 <= tokens.min() <= tokens.max() < len(form.clusters)
    assert image.mode == "RGB"
    print(image.size, hashlib.sha256(np.asarray(image).tobytes()).hexdigest(), tokens[:4].tolist())
