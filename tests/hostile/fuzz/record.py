"""The figures of campaigns, and the table that the documentation has of them.

Usage: python -m hostile.fuzz.record: brings the page up to date.
"""

import json
import time
from pathlib import Path
from typing import Any

from hostile.fuzz.campaign import Report
from hostile.fuzz.harnesses import COUNTS
from page_table import with_table

RECORD = Path(__file__).with_name("record.json")
PAGE = Path(__file__).parents[3] / "docs/reliability.md"


def keep_record(report: Report) -> None:
    """Put the figures of a campaign in the place of those of an earlier one, and into the page."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record[report.name] = {
        "date": time.strftime("%Y-%m-%d"), "seed": report.seed, "cases": report.count,
        "mishandled": report.mishandled, "endings": dict(report.endings.most_common()), "kinds": len(report.kinds),
        "seconds": round(report.seconds),
    }  # fmt: skip
    record = {name: record[name] for name in COUNTS if name in record}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    write_page(record)


def table(record: dict[str, Any]) -> str:
    """The Markdown between the page's markers."""
    lines = ["| harness | cases | how they ended | mishandled | made |", "|---|---|---|---|---|"]
    for name, row in record.items():
        endings = ", ".join(f"{count:,} {ending}" for ending, count in row["endings"].items() if ending != "mishandled")
        made = f"{row['date']}, seed {row['seed']}"
        lines.append(f"| `{name}` | {row['cases']:,} | {endings} | {row['mishandled']:,} | {made} |")
    return "\n".join(lines)


def write_page(record: dict[str, Any]) -> None:
    """Bring the page up to date."""
    PAGE.write_text(with_table(PAGE.read_text(), "fuzz", table(record)))


if __name__ == "__main__":
    write_page(json.loads(RECORD.read_text()))
