"""How much of the processor's time the control groups of a container allow."""

from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def cpu_quota() -> float | None:
    """CPUs whose time the control groups of this process allow; None if they do not limit it."""
    try:
        entries = [line.split(":", 2) for line in _OWN_GROUPS.read_text().splitlines()]
    except OSError:
        return None
    quotas = []
    for _, controllers, path in (entry for entry in entries if len(entry) == 3):
        if not controllers:  # version 2
            bases = [_GROUPS, _GROUPS / "unified"]
        elif "cpu" in controllers.split(","):
            bases = [_GROUPS / "cpu", _GROUPS / controllers]
        else:
            continue
        group = Path(path.lstrip("/"))
        # Within a container the path may be one outside of it; then the root is the container's own group.
        places = (base / part for base in bases for part in (group, *group.parents))
        quotas += [quota for place in places if (quota := _quota(place)) is not None]
    return min(quotas, default=None)


def _quota(group: Path) -> float | None:
    """What one control group says, in the files of either version."""
    try:
        if (group / "cpu.max").is_file():
            limit, period = (group / "cpu.max").read_text().split()
        else:
            limit, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(limit) / int(period) if int(limit) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no limit
        return None
