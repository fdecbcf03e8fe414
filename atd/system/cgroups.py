"""The RAM that Linux control groups leave to this process: containers, batch systems, services."""

from __future__ import annotations

from pathlib import Path, PurePosixPath


def free_in_cgroups(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that this process may still take by the limits of its control group and all groups above it.

    Cache of files that nobody uses does not count as taken: the kernel drops it before it refuses memory.

    Args:
        root: where the control groups of version 2 lie; those of version 1 are in ``memory`` below it.
        membership: the file that names the groups of this process.

    Returns:
        None where no limit is known.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    groups = {
        controllers: path for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") > 1)
    }
    unified = [
        _room(group, "memory.max", "memory.current", "inactive_file") for group in _up(root, groups.get("", "/"))
    ]
    path = next((path for names, path in groups.items() if "memory" in names.split(",")), "/")
    former = [
        _room(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        for group in _up(root / "memory", path)
    ]
    rooms = [room for room in unified + former if room is not None]
    return min(rooms) if rooms else None


def _up(root: Path, path: str) -> list[Path]:
    """The folder of a group and of those above it; a container may not see all of them."""
    parts = PurePosixPath(path).relative_to("/").parts if path.startswith("/") else ()
    if ".." in parts:
        parts = ()
    return [root.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _room(group: Path, limit: str, used: str, cache: str) -> int | None:
    """What one group leaves; None where it has no limit."""
    try:
        most, taken = int((group / limit).read_text()), int((group / used).read_text())
    except (OSError, ValueError):  # no such file, or the word "max"
        return None
    try:
        fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        unused = int(fields.get(cache, 0))
    except (OSError, ValueError):
        unused = 0
    return max(most - max(taken - unused, 0), 0)
