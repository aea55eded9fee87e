"""Limits of control groups, from the files that the kernel shows in /proc and /sys."""

import os
import resource
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import control_groups
from infra.control_groups import (
    available_memory,
    cpu_count,
    cpu_quota,
    limit_threads,
    memory_limit,
    task_limit,
    total_memory,
)

TOTAL, AVAILABLE = 64_000_000_000, 60_000_000_000
NO_LIMIT_V1 = "9223372036854771712"


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """16 processors, 64 GB, no groups."""
    monkeypatch.setattr(control_groups, "PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=TOTAL, available=AVAILABLE))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def groups(base: Path, paths: list[str], mounts: list[str], files: dict[str, str]) -> None:
    """Write /proc/self/cgroup, /proc/self/mountinfo and the groups' files below `base`."""
    (base / "proc").mkdir(exist_ok=True)
    (base / "proc" / "cgroup").write_text("".join(f"{line}\n" for line in paths))
    (base / "proc" / "mountinfo").write_text("".join(f"{line.format(base)}\n" for line in mounts))
    for name, text in files.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(f"{text}\n")


V2 = "30 23 0:27 / {}/v2 rw,nosuid - cgroup2 cgroup rw,nsdelegate"
V1_MEMORY = "34 31 0:31 / {}/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
V1_CPU = "35 31 0:32 / {}/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"


def test_a_machine_without_groups_has_no_limits():
    assert (cpu_count(), cpu_quota(), memory_limit()) == (16, None, None)
    assert (total_memory(), available_memory()) == (TOTAL, AVAILABLE)


def test_a_container_of_version_2_is_the_root_of_what_it_sees(tmp_path):
    files = {
        "v2/memory.max": "2000000000", "v2/memory.current": "1500000000", "v2/cpu.max": "150000 100000",
        "v2/memory.stat": "anon 400000000\ninactive_file 500000000\nactive_file 1",
    }  # fmt: skip
    groups(tmp_path, ["0::/"], [V2], files)
    assert (memory_limit(), total_memory(), available_memory()) == (2_000_000_000, 2_000_000_000, 1_000_000_000)
    assert (cpu_quota(), cpu_count()) == (1.5, 2)


def test_a_service_is_bound_by_the_slice_above_it(tmp_path):
    files = {
        "v2/a.slice/memory.max": "3000000000", "v2/a.slice/b.service/memory.max": "max",
        "v2/a.slice/cpu.max": "max 100000", "v2/a.slice/b.service/cpu.max": "50000 100000",
    }  # fmt: skip
    groups(tmp_path, ["0::/a.slice/b.service"], [V2], files)
    assert (memory_limit(), cpu_quota(), cpu_count()) == (3_000_000_000, 0.5, 1)


def test_version_1_has_a_hierarchy_for_each_resource(tmp_path):
    files = {
        "memory/memory.limit_in_bytes": NO_LIMIT_V1, "memory/job/memory.limit_in_bytes": "4000000000",
        "memory/job/memory.usage_in_bytes": "3000000000", "memory/job/memory.stat": "cache 9\ntotal_inactive_file 7",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/box/cpu.cfs_quota_us": "400000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
    }  # fmt: skip
    groups(tmp_path, ["5:memory:/job", "3:cpu,cpuacct:/box", "0::/"], [V1_MEMORY, V1_CPU, V2], files)
    assert (memory_limit(), available_memory(), cpu_quota()) == (4_000_000_000, 1_000_000_007, 4.0)


def test_a_container_of_version_1_sees_its_group_as_the_root_of_the_mount(tmp_path):
    mount = V1_MEMORY.replace(" / ", " /docker/0a1b ")
    files = {"memory/memory.limit_in_bytes": "1000000000"}
    groups(tmp_path, ["5:memory:/docker/0a1b"], [mount], files)
    assert memory_limit() == 1_000_000_000
    groups(tmp_path, ["5:memory:/elsewhere/../.."], [mount], files)  # of a process that was moved into the namespace
    assert memory_limit() == 1_000_000_000


@pytest.mark.parametrize("text", ["max", "", "-1", "0", NO_LIMIT_V1, "many", "²", "64000000000"])
def test_what_limits_nothing_is_no_limit(tmp_path, text):
    groups(tmp_path, ["0::/", "broken", ""], [V2, "short", "- cgroup2"], {"v2/memory.max": text, "v2/cpu.max": text})
    assert (memory_limit(), cpu_quota(), cpu_count()) == (None, None, 16)


def test_processes_are_limited_by_groups_and_for_users_by_their_own_limit(tmp_path, monkeypatch):
    groups(tmp_path, ["0::/a/b"], [V2], {"v2/a/pids.max": "500", "v2/a/b/pids.max": "max"})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert task_limit() == 500
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    for user, expected in ((60, 60), (9_000, 500), (resource.RLIM_INFINITY, 500)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, user=user: (user, user))
        assert task_limit() == expected


@given(limits=st.lists(st.one_of(st.none(), st.integers(1, TOTAL - 1)), min_size=1, max_size=5))
def test_the_tightest_of_all_groups_above_counts(tmp_path_factory, limits):
    base = tmp_path_factory.mktemp("groups")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control_groups, "PROC", base / "proc")
        files = {f"v2{'/g' * depth}/memory.max": str(limit or "max") for depth, limit in enumerate(limits)}
        groups(base, [f"0::/{'/'.join('g' * (len(limits) - 1))}"], [V2], files)
        assert memory_limit() == min(filter(None, limits), default=None)


@pytest.mark.parametrize(("quota", "own", "threads"), [("200000", None, "2"), ("50000", None, "1"), ("max", None, None),
                                                       ("3200000", None, None), ("200000", "5", "5")])  # fmt: skip
def test_libraries_start_no_more_threads_than_the_quota_has_processors(tmp_path, monkeypatch, quota, own, threads):
    groups(tmp_path, ["0::/"], [V2], {"v2/cpu.max": f"{quota} 100000"})
    if own:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", "")  # restored afterwards, whatever is set
        monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads()
    assert os.environ.get("OMP_NUM_THREADS") == threads
