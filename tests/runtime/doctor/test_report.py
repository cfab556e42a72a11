"""Checks that fail themselves, and findings as text."""

from collections.abc import Iterator

import pytest

from igpt_runtime.doctor.examination import examine
from igpt_runtime.doctor.finding import BROKEN, OK, UNKNOWN, WARNING, Finding, checked, fault
from igpt_runtime.doctor.report import as_record, as_text, is_ok


def test_text() -> None:
    findings = [
        Finding("a", "one", OK, "well"),
        Finding("b", "longer", BROKEN, "not well", "mend it"),
        Finding("a", "two", WARNING, "so so", "look"),
        Finding("b", "x", UNKNOWN, "dark", "light"),
    ]
    assert as_text(findings) == "\n".join(
        [
            "a",
            "  ok  one     well",
            "  !   two     so so",
            "              -> look",
            "",
            "b",
            "  x   longer  not well",
            "              -> mend it",
            "  ?   x       dark",
            "              -> light",
            "",
            "1 thing is broken, 1 to look at, 1 not known",
        ]
    )
    assert not is_ok(findings) and is_ok(findings[:1] + findings[2:])
    assert as_record(findings)["findings"][1] == {
        "topic": "b", "name": "longer", "status": "broken", "found": "not well", "remedy": "mend it",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "last"),
    [
        ([OK], "everything works"), ([OK, WARNING], "nothing is broken, 1 to look at"),
        ([UNKNOWN, UNKNOWN], "nothing is broken, 2 not known"), ([BROKEN, BROKEN, OK], "2 things are broken"),
        ([BROKEN, WARNING, WARNING], "1 thing is broken, 2 to look at"),
    ],
)  # fmt: skip
def test_the_last_line(statuses: list[str], last: str) -> None:
    findings = [Finding("topic", "name", status, "found") for status in statuses]
    assert as_text(findings).splitlines()[-1] == last


def test_a_check_that_fails_itself() -> None:
    def check() -> Iterator[Finding]:
        yield Finding("topic", "first", OK, "well")
        raise ZeroDivisionError("a\n  bug")

    first, second = checked("topic", "name", check)
    assert first.name == "first"
    assert (second.name, second.status) == ("name", UNKNOWN)
    assert second.found == "this check failed itself (ZeroDivisionError: a bug)" and second.remedy


def test_an_error_becomes_a_finding() -> None:
    assert fault("t", "n", BROKEN, "a fact (b; c); do this") == Finding("t", "n", BROKEN, "a fact (b; c)", "do this")
    assert fault("t", "n", BROKEN, "a fact").found == "a fact" and fault("t", "n", BROKEN, "a fact").remedy
    assert len(fault("t", "n", BROKEN, "word " * 1000).found) < 500


@pytest.mark.parametrize(
    "broken",
    ["minimums", "packages", "python", "processor", "threads", "telemetry", "files", "providers", "bundle"],
)
def test_nothing_ends_in_a_traceback(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError("a bug in a check")

    monkeypatch.setattr(f"igpt_runtime.doctor.examination.{broken}", fail)
    failed = [finding for finding in examine(device="cpu") if "LookupError: a bug in a check" in finding.found]
    assert [finding.status for finding in failed] == [UNKNOWN]
