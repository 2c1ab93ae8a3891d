"""Tests of memory.py."""

import io

import pytest

from common import memory

MEMINFO = "MemTotal: 9000000 kB\nMemFree: 1 kB\nMemAvailable:    4000000 kB\n"
CGROUP2 = "/sys/fs/cgroup/memory"
CGROUP1 = "/sys/fs/cgroup/memory/memory"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 4_096_000_000),
        ({f"{CGROUP2}.max": "max\n", f"{CGROUP2}.current": "5\n"}, 4_096_000_000),
        (
            {f"{CGROUP2}.max": "3000000000\n", f"{CGROUP2}.current": "1\n"},
            2_999_999_999,
        ),
        (
            {
                f"{CGROUP1}.limit_in_bytes": "500\n",
                f"{CGROUP1}.usage_in_bytes": "100\n",
            },
            400,
        ),
    ],
)
def test_memory_is_what_this_machine_and_the_control_group_leave(
    monkeypatch, limits, expected
):
    def fake(filename):
        files = {"/proc/meminfo": MEMINFO} | limits
        if filename not in files:
            raise FileNotFoundError(filename)
        return io.StringIO(files[filename])

    monkeypatch.setattr(memory, "open", fake, raising=False)
    assert memory.available() == expected


def test_this_machine_has_memory():
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 0 < memory.available() <= total
