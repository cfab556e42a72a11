"""Makes the environments that the systems run in, one per requirements file, and says which cannot be made.

Usage: python tests/bench/peers/setup.py [build/peers] [NAME ...]

An environment is complete when it holds `installed.txt`, a copy of the requirements it was made from. When one cannot
be made, `NAME.failed.txt` beside it holds the reason, which `compare.py` records instead of figures.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
# llama.cpp's own advice: build for the processor at hand, since its portable build lacks AVX-512.
BUILD = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF", "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())}


def install(name: str, root: Path) -> str | None:
    """Make one environment; returns why it failed, or None."""
    requirements = REQUIREMENTS / f"{name}.txt"
    target, failed = root / name, root / f"{name}.failed.txt"
    done = target / "installed.txt"
    if done.is_file() and done.read_text() == requirements.read_text():
        print(f"{name}: there already", flush=True)
        return None
    print(f"{name}: installing", flush=True)
    failed.unlink(missing_ok=True)
    venv.create(target, clear=True, with_pip=True)
    # The files list every package with its version, so nothing is resolved and nothing else comes along.
    command = [target / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "-r", requirements]
    if "--no-binary" in requirements.read_text():
        command.append("--no-cache-dir")  # the cache does not know which processor a wheel was compiled for
    run = subprocess.run(command, env={**os.environ, **BUILD}, stderr=subprocess.PIPE, text=True)
    if run.returncode == 0:
        shutil.copyfile(requirements, done)
        return None
    errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
    reason = errors[-1] if errors else f"pip ended with {run.returncode}"
    failed.write_text(reason + "\n")
    return reason


def main() -> None:
    """Make what is asked for, or everything; a failure is reported and the rest goes on."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "build/peers")
    root.mkdir(parents=True, exist_ok=True)
    names = sys.argv[2:] or sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))
    for name in names:
        reason = install(name, root)
        if reason:
            print(f"{name}: cannot be installed: {reason}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
