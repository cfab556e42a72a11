"""The clients in other languages: how they are built, and the program of runtime/README.md in each.

What is built stays in build/native. A toolchain that is missing skips the test.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime"
BUILD = ROOT / "build" / "native"
LIBRARY = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
ENVIRONMENT = {**os.environ, "IGPT_ORT_LIBRARY": str(LIBRARY), "IGPT_GOLDEN": str(ROOT / "tests/golden")}
LANGUAGES = ("C", "C++", "Rust", "Go", "Java")


def needs(*programs: str) -> None:
    """Skip a test without these programs."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def run(*command: object, cwd: Path = ROOT, **variables: str) -> str:
    """What a command prints; its failure is the test's."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**ENVIRONMENT, **variables}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def build_c(name: str, *options: str, **variables: str) -> Path:
    """C and C++ with their tests and programs, in a directory of that name."""
    needs("cmake", "ninja")
    directory = BUILD / name
    wanted = ["-DIGPT_BUILD_TESTS=ON", "-DIGPT_WERROR=ON", f"-DIGPT_ORT_INCLUDE={official_header()}", *options]
    run("cmake", "-G", "Ninja", "-S", RUNTIME / "c", "-B", directory, *wanted, **variables)
    run("cmake", "--build", directory)
    return directory


@functools.cache
def official_header() -> str:
    """The directory of ONNX Runtime's own header: that of the package for Go, which has a copy; "" without Go."""
    if shutil.which("go") is None:
        return ""
    record = json.loads(run("go", "mod", "download", "-json", "github.com/yalue/onnxruntime_go@v1.27.0", cwd=Path("/")))
    directory: str = record["Dir"]
    assert (Path(directory) / "onnxruntime_c_api.h").is_file()
    return directory


def sample(language: str, place: Path) -> Path:
    """The program of a language in runtime/README.md, as a file."""
    text = (RUNTIME / "README.md").read_text()
    code = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(code) == 1
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(code[0])
    return place


def program(language: str, place: Path) -> list[object]:
    """The program of runtime/README.md in a language, built in a directory: its command, without the bundle."""
    builders = {"C": _c, "C++": _cpp, "Rust": _rust, "Go": _go, "Java": _java, "Python": _python}
    return builders[language](place)


def _python(place: Path) -> list[object]:
    return [sys.executable, sample("python", place / "sample.py")]


def _c(place: Path) -> list[object]:
    return _compiled(sample("c", place / "sample.c"), "gcc", "-std=c11")


def _cpp(place: Path) -> list[object]:
    return _compiled(sample("cpp", place / "sample.cpp"), "g++", "-std=c++17")


def _compiled(source: Path, *compiler: str) -> list[object]:
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    return [compile_c(source, source.with_suffix(""), build_c("c"), *compiler, *warnings)]


def compile_c(source: Path, made: Path, library: Path, *compiler: str) -> Path:
    """A program on the C client or the C++ one. library: where build_c built it."""
    needs(compiler[0])
    include = [f"-I{RUNTIME / folder}" for folder in ("c", "cpp")]
    run(*compiler, *include, source, library / "libigpt.a", "-o", made, "-lm", "-ldl", "-lpthread")
    return made


def _rust(place: Path) -> list[object]:
    return [build_rust(sample("rust", place / "src/main.rs"))]


def build_rust(main: Path, *options: str) -> Path:
    """A program on the crate. main: its PROJECT/src/main.rs; options: of cargo build."""
    needs("cargo")
    place = main.parents[1]
    (place / "Cargo.toml").write_text(
        '[package]\nname = "program"\nversion = "0.1.0"\nedition = "2024"\n\n[workspace]\n\n'
        f'[dependencies]\nigpt = {{ path = "{RUNTIME / "rust"}" }}\n'
    )
    shutil.copy(RUNTIME / "rust/Cargo.lock", place)
    run("cargo", "build", "--quiet", *options, cwd=place, CARGO_TARGET_DIR=str(BUILD / "rust"))
    return BUILD / "rust" / ("release" if "--release" in options else "debug") / "program"


def _go(place: Path) -> list[object]:
    needs("go", "gcc")
    run("go", "generate", ".", cwd=RUNTIME / "go")
    sample("go", place / "main.go")
    (place / "go.mod").write_text(
        f"module sample\n\ngo 1.24\n\nrequire igpt v0.0.0\n\nreplace igpt => {RUNTIME / 'go'}\n"
    )
    run("go", "build", "-o", "sample", ".", cwd=place)
    return [place / "sample"]


def _java(place: Path) -> list[object]:
    needs("mvn")
    java = next((home / "bin/java" for home in jdks() if home.is_dir()), None)
    if java is None:
        pytest.skip("not installed: a JDK of 22 or newer")
    assert "java: skipped" not in run("./test.sh", "--quiet", "package", "-DskipTests", cwd=RUNTIME / "java")
    jar = next((RUNTIME / "java/target").glob("igpt-*.jar"))
    return [java, "--enable-native-access=ALL-UNNAMED", "-cp", jar, sample("java", place / "Sample.java")]


def jdks() -> list[Path]:
    """Installed JDKs of 22 or newer."""
    homes = [Path(os.environ.get("JAVA_HOME", "/nowhere")), *Path("/usr/lib/jvm").glob("*")]
    return [home for home in homes if _release(home) >= 22]


def _release(home: Path) -> int:
    try:
        match = re.search(r'^JAVA_VERSION="(\d+)', (home / "release").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0
