"""The most memory that this process has held, and forgetting it (Linux, proc(5)).

Not `ru_maxrss`: a forked process begins with its parent's, and no input can be told from those before it.
"""

from __future__ import annotations

import re
from pathlib import Path


def forget_peak() -> None:
    """Let the peak of this process's resident set be what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> float:
    """The peak of this process's resident set."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "Linux tells the peak"
    return int(found[1]) * 1024 / 1e6
