"""The clients in other languages are built and replay the golden pack; without a toolchain its tests are skipped."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from bench.clients import measure
from native.clients import BUILD, ENVIRONMENT, LANGUAGES, ROOT, RUNTIME, build_c, needs, program, run, sample

# Precisions of weights and of the cache, besides fp32, in which clients draw what Python draws.
ROUNDED = [("int8", "int8"), ("int8", "fp32"), ("int4", "int8")]
HALF = ("fp16", "fp16")  # which has no graph for one call
MadeOnce = Callable[[str, Callable[[Path], object]], Path]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def digits(digits_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle that clients are tried with besides the golden pack, and that their tests find."""
    monkeypatch.setitem(ENVIRONMENT, "IGPT_DIGITS", str(digits_bundle))
    return digits_bundle


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


def test_installed_c_library(digits: Path, tmp_path: Path) -> None:
    """A program finds it by pkg-config."""
    needs("pkg-config", "gcc")
    run("cmake", "--install", build_c("c"), "--prefix", tmp_path)
    package = next(tmp_path.rglob("igpt.pc"))
    flags = run("pkg-config", "--cflags", "--libs", "igpt", PKG_CONFIG_PATH=str(package.parent)).split()
    source = sample("c", tmp_path / "sample.c")
    run("gcc", "-std=c11", source, "-o", tmp_path / "sample", *flags)
    assert run(tmp_path / "sample", digits, LD_LIBRARY_PATH=str(package.parent.parent)).count("\n") == 4


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


@pytest.fixture(scope="module")
def digits_in(digits_bundle: Path, made_once: MadeOnce) -> Callable[..., list[Path]]:
    """A function from precisions of weights and cache to bundles; the first one is in fp32."""
    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.export import ExportOptions, export_bundle
    from igpt_export.precision.precision import Precision

    checkpoint = load_checkpoint(ROOT / "models/digits")

    def make(weights: str, kv_cache: str) -> Path:
        options = ExportOptions(Precision(weights, kv_cache), embed=weights != "fp16")
        return made_once(f"digits-{weights}-{kv_cache}", lambda path: export_bundle(checkpoint, path, options))

    return lambda *precisions: [digits_bundle, *(make(*precision) for precision in precisions)]


@pytest.fixture(scope="module")
def expected(digits_in: Callable[..., list[Path]], tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """What the program prints in Python, by bundle."""
    command = program("Python", tmp_path_factory.mktemp("python"))
    return {bundle: run(*command, bundle) for bundle in digits_in(*ROUNDED)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_sample(language: str, expected: dict[Path, str], tmp_path: Path) -> None:
    """It prints for each bundle what it prints in Python."""
    command = program(language, tmp_path)
    for bundle, printed in expected.items():
        assert run(*command, bundle) == printed, bundle.name


def test_loops(digits_in: Callable[..., list[Path]]) -> None:
    """Those that are timed draw step by step, with every kind of cache, what Python does."""
    commands = measure.build()
    for bundle in digits_in(*ROUNDED, HALF):
        drawn = {name: run(*command, bundle, 2, 0).split() for name, command in commands.items()}
        assert len(drawn["Python"]) == 2 * 256
        assert [name for name, tokens in drawn.items() if tokens != drawn["Python"]] == [], bundle.name


def test_sample_in_javascript(digits: Path, expected: dict[Path, str]) -> None:
    """In fp32 only, as it is another release of ONNX Runtime, which rounds otherwise."""
    needs("node")
    if not (RUNTIME / "js/node_modules").is_dir():
        pytest.skip("not installed: the packages of runtime/js (make js)")
    source = sample("js", RUNTIME / "js/test/sample-of-the-readme.mjs")
    try:
        assert run("node", source, digits) == expected[digits]
    finally:
        source.unlink()
