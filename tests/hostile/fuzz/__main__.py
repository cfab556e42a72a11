"""`make fuzz`: runs the harnesses at any length, prints a table, and exits with 1 if anything was mishandled."""

import argparse
import os
import sys
from pathlib import Path

import terminal_signals
from hostile.fuzz.campaign import Campaign, Report
from hostile.fuzz.harnesses import COUNTS, harness
from hostile.fuzz.record import keep_record


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("harnesses", nargs="*", default=list(COUNTS), metavar="HARNESS", help=f"of {', '.join(COUNTS)}")
    parser.add_argument("--count", type=int, help="cases of each; by default as many as take a few minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="only this one, which is kept")
    parser.add_argument("--directory", type=Path, default=Path("build/fuzz"), help="where mishandled cases are kept")
    parser.add_argument("--record", action="store_true", help="put the figures into the record and the documentation")
    asked = parser.parse_args(arguments)
    terminal_signals.heed()
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    reports: list[Report] = []
    for name in asked.harnesses:
        count = 1 if asked.case is not None else asked.count or COUNTS[name]
        campaign = Campaign(count, asked.seed, asked.directory.absolute(), asked.case or 0)
        reports.append(campaign.run(harness(name)))
        print(reports[-1].text(), flush=True)
        if asked.record:
            keep_record(reports[-1])
    return int(any(report.mishandled for report in reports))


if __name__ == "__main__":
    sys.exit(main())
