"""Free RAM under the control groups of Linux, from folders laid out as the kernel documents them."""

from __future__ import annotations

import pytest

from atd.system.cgroups import free_in_cgroups

GB = 1_000_000_000


def lay_out(tmp_path, membership, groups):
    """`groups`: folder → {file: text}."""
    (tmp_path / "self").write_text(membership)
    for folder, files in groups.items():
        (tmp_path / "root" / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (tmp_path / "root" / folder / name).write_text(f"{text}\n")
    return tmp_path / "root", tmp_path / "self"


def v2(limit, used, cache=0):
    return {"memory.max": limit, "memory.current": used, "memory.stat": f"anon 5\ninactive_file {cache}\nslab 7"}


def v1(limit, used, cache=0):
    stat = f"cache 5\ntotal_inactive_file {cache}"
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat}


@pytest.mark.parametrize(
    ("membership", "groups", "free"),
    [
        pytest.param("0::/\n", {".": v2(8 * GB, 7 * GB, 5 * GB)}, 6 * GB, id="unused cache of files is not taken"),
        pytest.param("0::/\n", {".": v2("max", 7 * GB)}, None, id="no limit"),
        pytest.param("0::/a/b\n", {"a/b": v2("max", GB), "a": v2(4 * GB, 3 * GB)}, GB, id="limit of a group above"),
        pytest.param("0::/a/b\n", {"a/b": v2(2 * GB, GB), "a": v2(9 * GB, GB)}, GB, id="limit of a nested group"),
        pytest.param("0::/seen/by/host\n", {".": v2(2 * GB, GB)}, GB, id="a container that sees its own root only"),
        pytest.param("0::/../x\n", {".": v2(2 * GB, GB)}, GB, id="a group outside the namespace"),
        pytest.param("4:memory:/j\n0::/\n", {"memory/j": v1(3 * GB, 2 * GB, GB)}, 2 * GB, id="version 1"),
        pytest.param("4:cpu,memory:/j/k\n", {"memory/j": v1(3 * GB, 2 * GB)}, GB, id="version 1, nested"),
        pytest.param("0::/\n", {".": v2(2 * GB, 3 * GB)}, 0, id="more taken than the limit"),
        pytest.param("nonsense\n", {".": {"memory.max": "?", "memory.current": "1"}}, None, id="unreadable"),
    ],
)
def test_what_control_groups_leave(tmp_path, membership, groups, free):
    assert free_in_cgroups(*lay_out(tmp_path, membership, groups)) == free


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert free_in_cgroups(tmp_path / "none", tmp_path / "nothing") is None
