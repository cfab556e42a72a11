"""Makes all that a check on a GPU needs, in build/gpu-kit, for a machine that has no network.

`make gpu-kit`, or `python tests/cuda/device/prepare.py` in the project's environment. The first time takes some
minutes; what is there already is not made again. Bundles are, after any change of the exporter or the runtime.
`--full` takes all of ONNX Runtime's kernels for Hopper along, for the case that one is missed.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[2]
KIT = PROJECT / "build" / "gpu-kit"  # what is carried
CACHE = PROJECT / "build" / "gpu-kit-parts"  # what takes time to make
SIZES = ("small-fp16", "small-fp32", "medium-fp16", "large-fp16")
DIGITS = ("fp32", "fp16", "int8", "int4")
PYTHON = "3.12"  # of the other machine
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
WHEELS = ("onnx-ir", "onnx-safetensors")  # which the other machine lacks, or has older
NOT_CARRIED = {"prepare.py", "slim.py", "graphs.py", "tiny.py"}


def say(text: str) -> None:
    """On stderr, with the time."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def run(*command: object, quiet: bool = False) -> None:
    """A command in the project's root."""
    output = subprocess.DEVNULL if quiet else None
    subprocess.run(list(map(str, command)), check=True, cwd=PROJECT, stdout=output, stderr=output)


def wheel_of(name: str) -> Path:
    """A wheel of the version that the project is tested with, downloaded once."""
    found = re.search(rf"^{re.escape(name)}==(\S+)", (PROJECT / "constraints.txt").read_text(), re.M | re.I)
    assert found, f"{name} is not in constraints.txt"
    pattern = f"{name.replace('-', '_')}-{found[1]}-*.whl"
    if not list(CACHE.glob(pattern)):
        say(f"downloading {name} {found[1]}")
        platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
        options = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *platforms]
        run(sys.executable, "-m", "pip", "download", "-q", *options, "-d", CACHE, f"{name}=={found[1]}", quiet=True)
    return next(CACHE.glob(pattern))


def forget_what_is_old() -> None:
    """Remove bundles of other code than there is now."""
    digest = hashlib.sha256()
    for folder in ("igpt_export", "runtime/python/igpt_runtime"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    stamp = CACHE / "bundles-of"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    for name in ("bundles", "graphs"):
        shutil.rmtree(CACHE / name, ignore_errors=True)
    stamp.write_text(digest.hexdigest())


def make_bundles() -> list[str]:
    """Those of the model of digits, the tests' tiny ones, and graphs of full size; their folders below the cache."""
    bundles, graphs = CACHE / "bundles", CACHE / "graphs"
    for directory in (bundles, graphs):
        directory.mkdir(exist_ok=True)
    export = [sys.executable, "-m", "igpt_export", "--variant", "digits"]
    for precision in DIGITS:
        if not (bundles / f"digits-{precision}").exists():
            run(*export, "--precision", precision, "--output", bundles / f"digits-{precision}")
    if not (bundles / "tiny-fp16").exists():
        say("exporting the tests' tiny model")
        run(sys.executable, HERE / "tiny.py", PROJECT, bundles)
    missing = [name for name in SIZES if not (graphs / name / "manifest.json").exists()]
    if missing:
        say(f"tracing graphs of {', '.join(missing)}")
        run(sys.executable, HERE / "graphs.py", graphs, *missing)
    return [f"bundles/{path.name}" for path in sorted(bundles.iterdir())] + [f"graphs/{name}" for name in SIZES]


def main() -> None:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="90 MB of ONNX Runtime instead of 30")
    full = parser.parse_args().full
    CACHE.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(KIT, ignore_errors=True)
    for directory in (KIT / "kit", KIT / "wheels"):
        directory.mkdir(parents=True)
    for path in HERE.iterdir():
        if path.suffix in (".py", ".sh") and path.name not in NOT_CARRIED:
            shutil.copy2(path, KIT / "kit")
    wheel = wheel_of("onnxruntime-gpu")
    archive = CACHE / f"onnxruntime-{wheel.name.split('-')[1]}{'-full' if full else ''}.tar.xz"
    if not archive.exists():
        say("making onnxruntime-gpu small (two minutes)")
        run(sys.executable, HERE / "slim.py", wheel, CACHE / "partial", *["--full"] * full)
        (CACHE / "partial").rename(archive)
    shutil.copy2(archive, KIT)
    for name in WHEELS:
        shutil.copy2(wheel_of(name), KIT / "wheels")
    forget_what_is_old()
    names = make_bundles()
    say("packing")
    with tarfile.open(KIT / "bundles.tar.xz", "w:xz", preset=9) as tar:
        for name in names:
            tar.add(CACHE / name, name)
    size = sum(path.stat().st_size for path in KIT.rglob("*") if path.is_file())
    print(f"{KIT.relative_to(PROJECT)}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
