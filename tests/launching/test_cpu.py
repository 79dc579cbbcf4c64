"""A rank on the CPU takes the pages of its tensors once, and not anew in every step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from frazil_jobs.launching.cpu import use_cores
if sys.argv[1] == "told":
    use_cores(1)
else:
    torch.set_num_threads(1)

def step():
    return [float(torch.ones(n, 2**18).mul(2)[0, 0]) for n in range(1, 20)]  # two tensors of n MiB

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(torch.get_num_threads(), (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5)
"""


def faults(how: str) -> int:
    """Pages that each step is given anew, after the first."""
    ended = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, timeout=120, check=True)
    threads, found = map(int, ended.stdout.split())
    assert threads == 1
    return found


def test_freed_tensors_are_used_again():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc's allocator is told to keep what is freed")
    alone, told = faults("alone"), faults("told")
    assert alone > 5_000
    assert told < alone / 20
