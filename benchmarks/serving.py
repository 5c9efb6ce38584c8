"""How fast does `stemma serve` answer? `python benchmarks/serving.py --lake LAKE [--requests 400]`.

Asks the champion of a demo's lake (`stemma demo --scale tiny --lake LAKE` makes one) over kept connections,
by 1, 8 and 32 users at a time, beside the same classifier called in this process one text at a time: the
peer, and the most that one by one can give. Then what hooks cost the verb that moves an alias. Users,
server and whatever else the machine does share its cores. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

sys.path[0] = str(Path(__file__).parents[1])  # beside this file lies one that bears a package's name

from examples.helpdesk.files import traffic
from examples.helpdesk.generator import helpdesk
from examples.serving import serving
from infra.hooks import Hook, fire
from infra.runtime import Runtime
from infra.settings import Settings, prepare_environment, settings_from_environment
from lineage import models

USERS = (1, 8, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency and throughput of stemma serve.")
    parser.add_argument("--lake", required=True)
    parser.add_argument("--requests", type=int, default=400)
    wanted = parser.parse_args()
    prepare_environment()
    settings = settings_from_environment(wanted.lake)
    requests, _ = traffic(helpdesk(seed=0, scale="full"), seed=0)
    texts = [request.text for request in requests[: wanted.requests]]
    found: dict[str, Any] = {"requests": len(texts), "fire_ms": round(fire_ms(), 1)}
    with serving(settings, "champion") as url:
        ask_all(url, texts[:64], users=8)  # warm
        print(f"{'':24}{'per second':>12}{'p50 ms':>10}{'p95 ms':>10}")
        for users in USERS:
            since = time.perf_counter()
            waited = ask_all(url, texts, users=users)
            shown(found, f"http_{users}", len(texts) / (time.perf_counter() - since), waited)
    alone, seconds = one_by_one(settings, texts)
    shown(found, "in_process_1", len(texts) / seconds, alone)
    found["ratio_to_in_process"] = round(found["http_32_per_s"] / found["in_process_1_per_s"], 2)
    print(f"what an event costs its verb: {found['fire_ms']} ms")
    print(json.dumps(found))


def shown(found: dict[str, Any], name: str, per_second: float, waited: Sequence[float]) -> None:
    p50, p95 = np.quantile(waited, [0.5, 0.95]) * 1000
    print(f"{name:24}{per_second:12.1f}{p50:10.1f}{p95:10.1f}")
    found |= {f"{name}_per_s": round(per_second, 1), f"{name}_p50_ms": round(float(p50), 1)}
    found[f"{name}_p95_ms"] = round(float(p95), 1)


def ask_all(url: str, texts: Sequence[str], *, users: int) -> list[float]:
    """Seconds that each text waited for its label."""
    parts = urlsplit(url)
    own = threading.local()

    def ask(text: str) -> float:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        body = json.dumps({"model": "champion", "messages": [{"role": "user", "content": text}]})
        since = time.perf_counter()
        own.connection.request(
            "POST", f"{parts.path}/chat/completions", body, {"Content-Type": "application/json"}
        )
        answer = own.connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"HTTP {answer.status}: {said.decode()}")
        return time.perf_counter() - since

    with ThreadPoolExecutor(users) as pool:
        return list(pool.map(ask, texts))


def one_by_one(settings: Settings, texts: Sequence[str]) -> tuple[list[float], float]:
    from training.answering import load_predictor

    checkpoint, _ = models.resolve(settings, "champion")
    predictor = load_predictor(Runtime(settings), checkpoint)
    predictor.predict(texts[:16])
    waited = []
    for text in texts:
        since = time.perf_counter()
        predictor.predict([text])
        waited.append(time.perf_counter() - since)
    return waited, sum(waited)


def fire_ms() -> float:
    """Milliseconds until `fire` returns, with a hook that hangs; the median of ten events."""
    hook = Hook(name="hangs", on=("promotion",), command=("sleep", "5"), timeout_s=5)
    took = []
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(Settings(lake=folder, tracking_uri=""))
        for number in range(10):
            event = {"id": f"e{number}", "kind": "promotion", "name": "m"}
            since = time.perf_counter()
            fire(runtime, [hook], event)
            took.append(time.perf_counter() - since)
        time.sleep(8)  # they still write into the folder
    return float(np.median(took)) * 1000


if __name__ == "__main__":
    main()
