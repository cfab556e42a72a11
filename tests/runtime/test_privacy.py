"""Nothing leaves the machine, and nothing is written but what was asked for: every command, watched by strace."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hostile.fuzz.checkpoint_bases import make_openai_checkpoint
from PIL import Image

from igpt_runtime.cli import main
from igpt_runtime.doctor.telemetry import VARIABLES
from igpt_runtime.privacy import HUB

ROOT = Path(__file__).resolve().parents[2]
JS = ROOT / "runtime/js"
SEVEN = ROOT / "models/digits/examples/seven.png"
CALLS = "trace=%network,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2"
WRITES = re.compile(r'(?:openat|open|creat|mkdir|mkdirat)\((?:AT_FDCWD, |\d+, )?"(?P<path>[^"]*)"(?P<rest>.*)')
INTERNET = re.compile(r"socket\(AF_INET6?|sa_family=AF_INET6?")
LOOPBACK = re.compile(r'socket\(|inet_addr\("127\.0\.0\.1"\)|"::1"')
ELSEWHERE = ("/dev/null", "/dev/tty", "/proc/self/", "/dev/shm/")
MESSAGES = f"-e signal=none --seccomp-bpf -e {CALLS}".split()

strace = shutil.which("strace")
pytestmark = pytest.mark.skipif(strace is None, reason="strace is not installed")

COMMANDS = {
    "complete": ["complete", SEVEN, "-n", "2", "--gif", "--separate"],
    "sample": ["sample", "-n", "8"],
    "classify": ["classify", SEVEN, "-o", "classes.csv"],
    "features": ["features", SEVEN, "-o", "features.npz"],
    "score": ["score", SEVEN, "--maps", "maps"],
    "info": ["info"],
    "doctor": ["doctor"],
    "probe": ["probe", "--help"],
}


def watched(directory: Path, *command: object) -> tuple[str, Path]:
    """What strace notes of a command, and the home directory it ran with; it runs in `directory`/work."""
    home, work = directory / "home", directory / "work"
    for place in (home, work, directory / "tmp"):
        place.mkdir()
    unset = {*VARIABLES, HUB, "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "PYTHONPYCACHEPREFIX", "IGPT_MODEL"}
    # torch tells its children where its cache is, which is not the one of this test.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCH")}
    environment = {name: value for name, value in kept.items() if name not in unset}
    environment |= {"HOME": str(home), "TMPDIR": str(directory / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    log = directory / "log"
    done = subprocess.run(
        [str(strace), "-f", "-qq", "-s", "400", "-o", log, *MESSAGES, *map(str, command)],
        cwd=work, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return log.read_text(errors="replace"), home


def check(log: str, home: Path, *, serves: bool = False) -> None:
    """serves: whether it may talk to this machine."""
    assert "openat" in log  # it was watched
    asked = [line for line in log.splitlines() if INTERNET.search(line)]
    assert [line for line in asked if not (serves and LOOPBACK.search(line))] == []
    written = []
    for match in WRITES.finditer(log):
        opened = match[0].startswith("open")
        if opened and ("O_TMPFILE" in match["rest"] or not re.search(r"O_WRONLY|O_RDWR|O_CREAT", match["rest"])):
            continue  # read, or a file without a name, by which doctor tries whether a directory can be written
        path = match["path"]
        if path.startswith("/") and not path.startswith(
            (*ELSEWHERE, str(home.parent / "work"), str(home.parent / "tmp"))
        ):
            written.append(path)
    assert written == []
    assert list(home.iterdir()) == []


def test_all_commands_are_here() -> None:
    context = main.make_context("igpt-run", [], resilient_parsing=True)
    assert set(COMMANDS) == set(main.list_commands(context)) - {"bench", "web"}


@pytest.mark.parametrize("command", COMMANDS)
def test_of_igpt_run(command: str, tmp_path: Path) -> None:
    check(*watched(tmp_path, sys.executable, "-m", "igpt_runtime", *COMMANDS[command]))


@pytest.mark.slow
def test_of_bench(tmp_path: Path) -> None:
    check(*watched(tmp_path, sys.executable, "-m", "igpt_runtime", "bench", "-n", "1", "--rounds", "1"))


@pytest.mark.slow
def test_of_igpt_export(tmp_path: Path) -> None:
    command = ["-m", "igpt_export", "--variant", "digits", "--no-embed", "-o", "bundle"]
    check(*watched(tmp_path, sys.executable, *command))
    assert (tmp_path / "work/bundle/manifest.json").is_file()


@pytest.mark.slow
def test_of_an_export_by_tensorflow(tmp_path: Path) -> None:
    make_openai_checkpoint(tmp_path / "published")
    command = ["-m", "igpt_export", "--checkpoint", tmp_path / "published/model.ckpt-7"]
    command += ["--clusters", tmp_path / "published/kmeans_centers.npy", "--no-embed", "-o", "bundle"]
    # urllib3, which Keras imports, tries whether it could bind to ::1.
    check(*watched(tmp_path, sys.executable, *command), serves=True)
    assert (tmp_path / "work/bundle/manifest.json").is_file()


@pytest.mark.slow
def test_of_a_fitted_probe(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", images=rng.integers(0, 256, (8, 8, 8, 3), np.uint8), labels=np.arange(8) % 2)
    check(*watched(tmp_path, sys.executable, "-m", "igpt_runtime", "probe", "fit", tmp_path / "data.npz", "-o", "fit"))
    assert (tmp_path / "work/fit/curve.png").is_file()


@pytest.mark.skipif(not (JS / "node_modules").is_dir(), reason="needs `make js`")
def test_of_web(tmp_path: Path) -> None:
    """It is interrupted after it has served its page; where its files are is given, as it would download them."""
    page = "import sys, time, urllib.request; time.sleep(2); print(urllib.request.urlopen(sys.argv[1]).status)"
    web = f"{sys.executable} -m igpt_runtime web --port 0 --no-open"
    served = f"{web} --onnxruntime-web {JS}/node_modules/onnxruntime-web > address & "
    served += f"sleep 1; {sys.executable} -c '{page}' $(cat address); kill -INT $!; wait $!"
    check(*watched(tmp_path, "bash", "-c", f"set -m; {served}"), serves=True)


@pytest.mark.skipif(not shutil.which("node") or not (JS / "node_modules").is_dir(), reason="needs Node and `make js`")
def test_of_node(tmp_path: Path) -> None:
    with Image.open(SEVEN) as image:
        image.convert("RGB").save(tmp_path / "seven.ppm")
    check(*watched(tmp_path, "node", JS / "examples/complete.mjs", tmp_path / "seven.ppm"))


def test_of_a_python_program(tmp_path: Path) -> None:
    program = f"from igpt_runtime import *; print(classify(open_session(), [{str(SEVEN)!r}]).shape)"
    check(*watched(tmp_path, sys.executable, "-c", program))


def test_what_would_be_found(tmp_path: Path) -> None:
    """With telemetry switched on, the same watch sees it."""
    program = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '0'; from igpt_runtime import *; "
    program += f"print(classify(open_session(), [{str(SEVEN)!r}]).shape)"
    _, home = watched(tmp_path, sys.executable, "-c", program)
    assert list(home.rglob("deviceid"))
