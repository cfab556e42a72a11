"""Findings as text for people, and as a record."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from igpt_runtime.doctor.finding import BROKEN, OK, UNKNOWN, WARNING, Finding

_MARKS = {OK: "ok", WARNING: "!", BROKEN: "x", UNKNOWN: "?"}


def is_ok(findings: Sequence[Finding]) -> bool:
    """Whether nothing is broken."""
    return all(finding.status != BROKEN for finding in findings)


def as_record(findings: Sequence[Finding]) -> dict[str, Any]:
    """What --json prints."""
    return {"ok": is_ok(findings), "findings": [asdict(finding) for finding in findings]}


def as_text(findings: Sequence[Finding]) -> str:
    """A group a topic, a line a finding, what to do below it, and in the last line how many are not well."""
    width = max(len(finding.name) for finding in findings)
    topics: dict[str, list[str]] = {}
    for finding in findings:
        lines = topics.setdefault(finding.topic, [])
        lines.append(f"  {_MARKS[finding.status]:2}  {finding.name:{width}}  {finding.found}")
        if finding.remedy is not None:
            lines.append(f"      {'':{width}}  -> {finding.remedy}")
    groups = ["\n".join([topic, *lines]) for topic, lines in topics.items()]
    return "\n\n".join([*groups, _summary(findings)])


def _summary(findings: Sequence[Finding]) -> str:
    broken, look, unknown = (
        sum(finding.status == status for finding in findings) for status in (BROKEN, WARNING, UNKNOWN)
    )
    if not broken + look + unknown:
        return "everything works"
    parts = ["nothing is broken" if not broken else f"{broken} thing{' is' if broken == 1 else 's are'} broken"]
    parts += [f"{look} to look at"] if look else []
    parts += [f"{unknown} not known"] if unknown else []
    return ", ".join(parts)
