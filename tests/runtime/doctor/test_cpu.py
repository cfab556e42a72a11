"""The processor, and the threads that work on an operator."""

import os
import platform
from pathlib import Path

import pytest

from igpt_runtime.bench.hardware import default_threads
from igpt_runtime.doctor import cpu
from igpt_runtime.doctor.finding import BROKEN, OK, UNKNOWN, WARNING, Finding
from igpt_runtime.doctor.start_provider import start_provider
from igpt_runtime.engine import cpu_quota

X86 = "processor\t: 0\nmodel name\t: Example 9000\nflags\t\t: fpu sse4_2 {}\n"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"  # of version 1
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\nCPU part\t: 0xd40\n"


def found(requested: int | None = None, measured: int | None = None) -> Finding:
    return next(cpu.threads(requested, measured))


def instructions(monkeypatch: pytest.MonkeyPatch, path: Path, machine: str, text: str) -> dict[str, Finding]:
    path.write_text(text)
    monkeypatch.setattr(cpu, "_CPUINFO", path)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    return {finding.name: finding for finding in cpu._instructions()}


def test_this_processor() -> None:
    findings = {finding.name: finding for finding in cpu.processor()}
    assert findings["model"].found and str(os.cpu_count()) in findings["cores"].found
    assert {finding.status for finding in findings.values()} <= {OK, WARNING}
    assert len(findings) > 3


@pytest.mark.parametrize(
    ("flags", "there"),
    [
        ("avx2 fma avx512f avx512_vnni amx_int8", {"AVX2", "AVX-512", "VNNI", "AMX"}),
        ("avx2 avx_vnni", {"AVX2", "VNNI"}),
        ("avx2 fma avx512f", {"AVX2", "AVX-512"}),
        ("avx2", {"AVX2"}),
    ],
)
def test_instructions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, there: set[str]) -> None:
    findings = instructions(monkeypatch, tmp_path / "cpuinfo", "x86_64", X86.format(flags))
    assert {name for name, finding in findings.items() if finding.found.startswith("yes")} == there
    assert set(findings) == {"AVX2", "AVX-512", "VNNI", "AMX"} and {f.status for f in findings.values()} == {OK}


def test_a_processor_without_avx2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    finding = instructions(monkeypatch, tmp_path / "cpuinfo", "x86_64", X86.format("avx"))["AVX2"]
    assert (finding.status, finding.found) == (WARNING, "no: everything is slow without it")


def test_instructions_of_arm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    findings = instructions(monkeypatch, tmp_path / "cpuinfo", "aarch64", ARM.format("asimddp"))
    assert findings["dotprod"].found.startswith("yes") and findings["i8mm"].found.startswith("no")


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    findings = instructions(monkeypatch, tmp_path / "cpuinfo", "x86_64", "nothing of use")
    assert [finding.status for finding in findings.values()] == [UNKNOWN]


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/outside/of/the/container\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("5:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/" + QUOTA: "300000\n", "cpu,cpuacct/x/" + PERIOD: "100000\n"}, 3.0),
        ("1:cpu:/\n", {"cpu/" + QUOTA: "-1\n", "cpu/" + PERIOD: "100000\n"}, None),
        ("1:cpu:/\n0::/\n", {"cpu/" + QUOTA: "40000\n", "cpu/" + PERIOD: "100000\n"}, 0.4),
        ("0::/\n", {"unified/cpu.max": "100000 100000"}, 1.0),
        ("4:memory:/\n", {"cpu.max": "100000 100000\n"}, None),
        ("nonsense\n", {}, None),
        ("0::/\n", {"cpu.max": "damaged\n"}, None),
    ],
)  # fmt: skip
def test_control_groups(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str, files: dict[str, str], quota: float | None
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(cpu_quota, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(cpu_quota, "_GROUPS", tmp_path / "groups")
    assert cpu_quota.cpu_quota() == quota


def test_no_control_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu_quota, "_OWN_GROUPS", tmp_path / "missing")
    assert cpu_quota.cpu_quota() is None


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One of 8 CPUs and no limits, whatever is set here."""
    monkeypatch.setattr(cpu, "cpus_allowed", lambda: 8)
    monkeypatch.setattr(cpu, "cpu_quota", lambda: None)
    for name in (cpu.INTRA_OP, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_threads(machine: pytest.MonkeyPatch) -> None:
    assert found(measured=8) == Finding("processor", "threads", OK, "8, one per physical core")
    assert found(requested=3, measured=3) == Finding("processor", "threads", OK, "3, as --threads says")
    assert found().found == f"{default_threads()}, one per physical core"
    machine.setenv(cpu.INTRA_OP, "0")  # as if it were not set
    assert found(measured=4).found == "4, one per physical core"
    machine.setenv(cpu.INTRA_OP, "2")
    assert found(measured=2).found == f"2, as {cpu.INTRA_OP} says"
    assert found(requested=3, measured=3).found == "3, as --threads says"


def test_more_threads_than_cpus(machine: pytest.MonkeyPatch) -> None:
    finding = found(measured=16)
    assert finding.found == "16, one per physical core, but this process may use only 8 CPUs"
    assert (finding.status, finding.remedy) == (WARNING, "give --threads 8")


@pytest.mark.parametrize(
    ("quota", "measured", "remedy"), [(1.5, 8, 1), (3.9, 4, 3), (0.5, 2, 1), (0.5, 1, None), (8, 8, None)]
)
def test_more_threads_than_time(machine: pytest.MonkeyPatch, quota: float, measured: int, remedy: int | None) -> None:
    machine.setattr(cpu, "cpu_quota", lambda: quota)
    finding = found(measured=measured)
    assert finding.status == (OK if remedy is None else WARNING)
    assert finding.remedy == (None if remedy is None else f"give --threads {remedy}")


def test_variables(machine: pytest.MonkeyPatch) -> None:
    machine.setenv(cpu.INTRA_OP, "all")
    assert found().status == BROKEN
    machine.setenv("OMP_NUM_THREADS", "5")
    machine.delenv(cpu.INTRA_OP)
    assert [finding.name for finding in cpu.threads(None, 2)] == ["threads", "OMP_NUM_THREADS"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this system does not tell the threads")
def test_what_onnxruntime_really_starts(machine: pytest.MonkeyPatch) -> None:
    """The variables that are said to be followed, and those that are said not to be."""
    assert start_provider("cpu", 3).said["threads"] == 3
    alone = start_provider("cpu", None).said["threads"]
    machine.setenv("OMP_NUM_THREADS", str(alone + 3))
    assert start_provider("cpu", None).said["threads"] == alone
    machine.setenv(cpu.INTRA_OP, str(alone + 2))
    assert start_provider("cpu", None).said["threads"] == alone + 2
    machine.setenv(cpu.INTRA_OP, "all")
    assert cpu.INTRA_OP in str(start_provider("cpu", None).error)
