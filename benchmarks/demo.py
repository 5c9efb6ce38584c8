"""How long the demo takes and how much memory it needs: `python benchmarks/demo.py [--runs 3]`.

Each run starts `stemma demo` on a fresh lake and samples the proportional set size of its whole process tree,
Ray's processes included. Prints a table, then one line of JSON: demo_s, peak_gb, help_s (medians).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

STEMMA = [sys.executable, "-m", "infra.cli"]
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and peak memory of the demo.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", default="full")
    options = parser.parse_args()
    runs = [measure(options.scale) for _ in range(options.runs)]
    helps = [seconds([*STEMMA, "--help"]) for _ in range(5)]
    print(f"{'run':<6}{'seconds':>10}{'peak GB':>10}{'exit':>6}")
    for number, (took, peak, code) in enumerate(runs, 1):
        print(f"{number:<6}{took:>10.1f}{peak:>10.2f}{code:>6}")
    medians = {
        "demo_s": round(statistics.median(took for took, _, _ in runs), 1),
        "peak_gb": round(statistics.median(peak for _, peak, _ in runs), 2),
        "help_s": round(statistics.median(helps), 3),
    }
    print(json.dumps(medians))
    sys.exit(max(code for _, _, code in runs))


def measure(scale: str) -> tuple[float, float, int]:
    """Seconds, peak GB and exit code of one demo on a fresh lake."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        demo = subprocess.Popen([*STEMMA, "demo", "--scale", scale, "--lake", f"{folder}/lake"], cwd=ROOT)
        peak = 0
        while demo.poll() is None:
            peak = max(peak, tree_bytes(demo.pid))
            time.sleep(1)
        return time.monotonic() - started, peak / 1e9, demo.returncode


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and all its descendants; shared memory counts once."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def seconds(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
