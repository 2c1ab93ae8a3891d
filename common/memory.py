"""How much memory is left."""


def available() -> int:
    """Bytes that this machine, and the control group of this process, have left."""
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":") for line in file)
    available = int(lines["MemAvailable"].split()[0]) * 1024
    for limit, usage in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            with open(limit) as most, open(usage) as used:
                available = min(available, int(most.read()) - int(used.read()))
        except (OSError, ValueError):
            continue  # no such limit
    return available
