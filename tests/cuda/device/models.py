"""Fills the weights of bundles that were carried without them (see `graphs.py`): random ones of seed 0.

`python models.py BUNDLE... --threads N`. A bundle is usable once its manifest has the hash of its weights; that is
written last, so `ready(BUNDLE)` tells.
"""

import argparse
import hashlib
import json
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def ready(bundle: Path) -> bool:
    """Whether a bundle has its weights."""
    try:
        record = json.loads((bundle / "manifest.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(record["files"]["weights.safetensors"]["sha256"].strip("0"))


def fill(bundle: Path, threads: int) -> None:
    """Write the weights, each tensor by a thread of its own, and then their hash into the manifest."""
    import torch

    from igpt_export.checkpoint.checkpoint import RandomTensors
    from igpt_runtime.bundle.manifest import manifest_from_json

    begin = time.perf_counter()
    path = bundle / "weights.safetensors"
    text = (bundle / "manifest.json").read_text()
    record = json.loads(text)
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        start = struct.pack("<Q", length) + file.read(length)
    header = json.loads(start[8:])
    size = record["files"][path.name]["size"]
    tensors = RandomTensors(manifest_from_json(text, str(bundle)).config, 0)
    dtypes = {"F16": torch.float16, "F32": torch.float32}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(start)
        file.truncate(size)

    def make(name: str) -> None:
        field = header[name]
        data = tensors[name].to(dtypes[field["dtype"]]).contiguous().reshape(-1).view(torch.uint8).numpy()
        first, end = field["data_offsets"]
        assert data.size == end - first and list(tensors.shapes[name]) == list(field["shape"])
        with partial.open("r+b", buffering=0) as file:
            file.seek(8 + length + first)
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]

    torch.set_num_threads(1)  # a generator's numbers come one after the other; tensors are made side by side
    largest_first = sorted(header, key=lambda name: header[name]["data_offsets"][0] - header[name]["data_offsets"][1])
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(make, largest_first))
    made = time.perf_counter() - begin
    with partial.open("rb") as file:
        record["files"][path.name]["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    partial.rename(path)
    manifest = bundle / "manifest.partial"
    manifest.write_text(json.dumps(record))
    manifest.rename(bundle / "manifest.json")
    print(
        f"{bundle.name}: {size / 1e9:.2f} GB made in {made:.1f} s, all {time.perf_counter() - begin:.1f} s", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    for bundle in options.bundles:
        if ready(bundle):
            continue
        (bundle / "failed").unlink(missing_ok=True)
        try:
            fill(bundle, options.threads)
        except BaseException as error:
            (bundle / "failed").write_text(repr(error))
            raise


if __name__ == "__main__":
    main()
