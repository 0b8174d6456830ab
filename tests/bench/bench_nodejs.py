"""The Node.js worker alone: start, memory and events a second over its socket, each beside what bare Node.js needs.

The worker has one core, this process another; one event is in flight at a time, so this process is half of each round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.node import node, worker_command
from fixtures.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

STARTS = 15
SECONDS = 4.0
EVENT = b'{"key":"value","numbers":[1,2,3],"nested":{"name":"Ada","ok":true}}'
EVENTS: dict[str, tuple[str, Callable[[WorkerProcess], object]]] = {
    "lambda, JSON echo": ("async (event) => event", lambda worker: worker.call(EVENT)),
    "lambda, callback": (
        "(event, context, callback) => { context.callbackWaitsForEmptyEventLoop = false; callback(null, event) }",
        lambda worker: worker.call(EVENT),
    ),
    "cloudevent": (
        "async (ce) => {}",
        lambda worker: worker.call(
            EVENT,
            form="cloudevent",
            data="json",
            attributes={"specversion": "1.0", "id": "1", "source": "/", "type": "t"},
        ),
    ),
    "http, Request to Response": (
        "async (request) => Response.json(await request.json())",
        lambda worker: worker.http("POST", "/", EVENT, content_type="application/json"),
    ),
    "http, (req, res)": ("(req, res) => req.pipe(res)", lambda worker: worker.http("POST", "/", EVENT)),
}


def started(folder: Path, handler: str) -> WorkerProcess:
    """Start a worker on core 0 and wait until it is ready."""
    (folder / "app.mjs").write_text(f"export const handler = {handler};\n")
    worker = WorkerProcess(["taskset", "-c", "0", *worker_command()], folder, {})
    worker.ready()
    return worker


def pss(pid: int) -> float:
    """Proportional set size of a process in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def start_ms(folder: Path) -> float:
    """Milliseconds from the start of the process to READY."""
    begun = time.perf_counter()
    worker = started(folder, "async (event) => event")
    spent = (time.perf_counter() - begun) * 1000
    worker.close()
    return spent


def bare_ms() -> float:
    """Milliseconds that Node.js takes to run nothing, begun and ended."""
    begun = time.perf_counter()
    subprocess.run(["taskset", "-c", "0", node(), "-e", "0"], check=True)
    return (time.perf_counter() - begun) * 1000


def bare_pss() -> float:
    """MiB of a Node.js that does nothing."""
    with subprocess.Popen([node(), "-e", "console.log(1); setInterval(() => {}, 1e6)"], stdout=subprocess.PIPE) as bare:
        assert bare.stdout
        bare.stdout.readline()
        size = pss(bare.pid)
        bare.kill()
    return size


def rate(worker: WorkerProcess, call: Callable[[WorkerProcess], object]) -> float:
    """Events a second, once it is warm."""
    for _ in range(3000):
        call(worker)
    count, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < SECONDS:
        call(worker)
        count += 1
    return count / spent


def main() -> None:
    """Print the table."""
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        starts = statistics.median(start_ms(folder) for _ in range(STARTS))
        print(
            f"start to READY       {starts:7.1f} ms   (bare, to its end: {statistics.median(bare_ms() for _ in range(STARTS)):.1f})"
        )
        bare = bare_pss()
        idle = started(folder, "async (event) => event")
        print(f"idle                 {pss(idle.process.pid):7.1f} MiB  (bare: {bare:.1f})")
        second = started(folder, "async (event) => event")
        print(f"each of two          {pss(second.process.pid):7.1f} MiB")
        second.close()
        idle.close()
        for title, (handler, call) in EVENTS.items():
            worker = started(folder, handler)
            print(f"{title:26} {rate(worker, call):9,.0f}/s, then {pss(worker.process.pid):5.1f} MiB")
            worker.close()


if __name__ == "__main__":
    main()
