"""The clients in other languages are built and replay the golden pack; without a toolchain its tests are skipped.

What is built stays in build/native.
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
DEMO = RUNTIME / "python/igpt_runtime/demo"
LIBRARY = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
ENVIRONMENT = {
    **os.environ,
    "IGPT_ORT_LIBRARY": str(LIBRARY),
    "IGPT_GOLDEN": str(ROOT / "tests/golden"),
    "IGPT_DEMO": str(DEMO),
}

pytestmark = pytest.mark.slow


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


def test_c_and_cpp() -> None:
    """The golden pack, faults, threads, the programs, and the positions in the official header's table."""
    printed = run("ctest", "--test-dir", build_c("c"), "--output-on-failure", "--verbose")
    assert "100% tests passed" in printed and "SKIPPED" not in printed


@pytest.mark.parametrize(
    ("sanitizers", "compiler"), [("address,undefined", ("gcc", "g++")), ("thread", ("clang-14", "clang++-14"))]
)
def test_c_under_sanitizers(sanitizers: str, compiler: tuple[str, str]) -> None:
    """Addresses, leaks, what the language leaves undefined, and races."""
    needs(*compiler)
    chosen = dict(zip(("CC", "CXX"), compiler, strict=True))
    directory = build_c(f"c-{sanitizers.split(',')[0]}", f"-DIGPT_SANITIZE={sanitizers}", **chosen)
    assert "100% tests passed" in run("ctest", "--test-dir", directory, "--output-on-failure")


def test_c_with_random_pictures_options_and_bundles() -> None:
    needs("clang-14", "cmake", "ninja")
    directory = BUILD / "c-fuzz"
    options = ["-DIGPT_BUILD_FUZZER=ON", "-DIGPT_BUILD_EXAMPLES=OFF"]
    run("cmake", "-G", "Ninja", "-S", RUNTIME / "c", "-B", directory, *options, CC="clang-14", CXX="clang++-14")
    run("cmake", "--build", directory)
    run(directory / "tests/igpt_fuzz", "-runs=300", "-seed=1", "-rss_limit_mb=6000", cwd=directory)


def test_installed_c_library(tmp_path: Path) -> None:
    """A program finds it by pkg-config."""
    needs("pkg-config", "gcc")
    run("cmake", "--install", build_c("c"), "--prefix", tmp_path)
    package = next(tmp_path.rglob("igpt.pc"))
    flags = run("pkg-config", "--cflags", "--libs", "igpt", PKG_CONFIG_PATH=str(package.parent)).split()
    source = sample("c", tmp_path / "sample.c")
    run("gcc", "-std=c11", source, "-o", tmp_path / "sample", *flags)
    assert run(tmp_path / "sample", DEMO, LD_LIBRARY_PATH=str(package.parent.parent)).count("\n") == 4


def test_java() -> None:
    needs("mvn")
    printed = run("./test.sh", cwd=RUNTIME / "java")
    if "java: skipped" in printed:
        pytest.skip(printed.strip())
    passed = re.findall(r"Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0\n", printed)
    assert passed and int(passed[-1]) >= 40


def test_rust() -> None:
    needs("cargo")
    directory = RUNTIME / "rust"
    target = {"CARGO_TARGET_DIR": str(BUILD / "rust")}
    run("cargo", "fmt", "--check", cwd=directory)
    run("cargo", "clippy", "--locked", "--all-targets", "--", "-D", "warnings", cwd=directory, **target)
    printed = run("cargo", "test", "--locked", cwd=directory, **target)
    passed = [int(count) for count in re.findall(r"test result: ok\. (\d+) passed; 0 failed", printed)]
    assert sum(passed) >= 30


def test_go() -> None:
    needs("go", "gcc")
    directory = RUNTIME / "go"
    run("go", "generate", ".", cwd=directory)
    run("go", "vet", "./...", cwd=directory)
    assert run("gofmt", "-l", ".", cwd=directory) == ""
    assert re.search(r"^ok\s+igpt\s", run("go", "test", "-race", "./...", cwd=directory), re.MULTILINE)


def sample(language: str, place: Path) -> Path:
    """The program of a language in runtime/README.md, as a file."""
    text = (RUNTIME / "README.md").read_text()
    code = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(code) == 1
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(code[0])
    return place


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the program prints in Python."""
    return run(sys.executable, sample("python", tmp_path_factory.mktemp("python") / "sample.py"), DEMO)


@pytest.mark.parametrize(
    ("language", "compiler"), [("c", ("gcc", "-std=c11")), ("cpp", ("g++", "-std=c++17"))], ids=["c", "cpp"]
)
def test_sample_in_c_and_cpp(language: str, compiler: tuple[str, str], expected: str, tmp_path: Path) -> None:
    needs(compiler[0])
    library = build_c("c") / "libigpt.a"
    source = sample(language, tmp_path / f"sample.{language}")
    include = [f"-I{RUNTIME / folder}" for folder in ("c", "cpp")]
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    run(*compiler, *warnings, *include, source, library, "-o", tmp_path / "sample", "-lm", "-ldl", "-lpthread")
    assert run(tmp_path / "sample", DEMO) == expected


def test_sample_in_rust(expected: str) -> None:
    needs("cargo")
    directory = BUILD / "rust-sample"
    sample("rust", directory / "src/main.rs")
    (directory / "Cargo.toml").write_text(
        '[package]\nname = "sample"\nversion = "0.1.0"\nedition = "2024"\n\n[workspace]\n\n'
        f'[dependencies]\nigpt = {{ path = "{RUNTIME / "rust"}" }}\n'
    )
    shutil.copy(RUNTIME / "rust/Cargo.lock", directory)
    run("cargo", "build", "--quiet", cwd=directory, CARGO_TARGET_DIR=str(BUILD / "rust"))
    assert run(BUILD / "rust/debug/sample", DEMO) == expected


def test_sample_in_go(expected: str, tmp_path: Path) -> None:
    needs("go", "gcc")
    run("go", "generate", ".", cwd=RUNTIME / "go")
    sample("go", tmp_path / "main.go")
    (tmp_path / "go.mod").write_text(
        f"module sample\n\ngo 1.24\n\nrequire igpt v0.0.0\n\nreplace igpt => {RUNTIME / 'go'}\n"
    )
    run("go", "build", "-o", "sample", ".", cwd=tmp_path)
    assert run(tmp_path / "sample", DEMO) == expected


def test_sample_in_java(expected: str, tmp_path: Path) -> None:
    needs("mvn")
    java = next((home / "bin/java" for home in jdks() if home.is_dir()), None)
    if java is None:
        pytest.skip("not installed: a JDK of 22 or newer")
    assert "java: skipped" not in run("./test.sh", "--quiet", "package", "-DskipTests", cwd=RUNTIME / "java")
    jar = next((RUNTIME / "java/target").glob("igpt-*.jar"))
    program = sample("java", tmp_path / "Sample.java")
    assert run(java, "--enable-native-access=ALL-UNNAMED", "-cp", jar, program, DEMO) == expected


def test_sample_in_javascript(expected: str) -> None:
    needs("node")
    if not (RUNTIME / "js/node_modules").is_dir():
        pytest.skip("not installed: the packages of runtime/js (make js)")
    program = sample("js", RUNTIME / "js/test/sample-of-the-readme.mjs")
    try:
        assert run("node", program, DEMO) == expected
    finally:
        program.unlink()


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
