"""Load the Python runtime with everything that goes wrong, for as long as you like: ``python tests/bench/soak_runtime.py [--minutes 30]``.

Callers send echoes, errors, streams, logged lines, exits and timeouts; some send or read slowly, or hang up; the code is
touched now and then, so that it is loaded anew. Each answer is compared with what its own event asked for. Every ten
seconds a line tells memory (PSS), descriptors and processes of the function; at the end, when all is quiet again, they
are compared with what they were after the first minute. Status 1: an answer that was not its caller's, or something left over. Needs Linux.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.bench_runtime import ROOT, family, pss, stop

CALLERS = 8
REPORT_SECONDS = 10.0
RELOAD_SECONDS = 20.0
WARM_SECONDS = 60.0  # until allocators have what they keep
SETTLE_SECONDS = 15.0
LEFT_OVER_MIB = 8.0  # by which memory at rest may differ
CODE = """
import os, time
def handler(event, context):
    kind, name, body = event["kind"], event["id"], event["body"]
    if kind == "exit":
        os._exit(1)
    if kind == "sleep":
        time.sleep(8)
    if kind == "raise":
        raise ValueError(name)
    if kind == "stream":
        return (name + "\\n" for _ in range(200))
    if kind == "print":
        print("line of", name)
        os.write(1, b"raw line\\n")
    return [name, body]
"""
KINDS = {"echo": 50, "print": 15, "raise": 10, "stream": 8, "exit": 4, "sleep": 1, "slow": 5, "hang up": 6}


class Soak:
    """One function and those who call it."""

    def __init__(self, folder: Path, port: int) -> None:
        """Take the function of a folder."""
        self.folder = folder
        self.port = port
        self.until = 0.0
        self.sent: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, pid: int, seconds: float) -> tuple[float, int, int]:
        """Call it from all sides; return what it takes when all is quiet again."""
        self.until = time.monotonic() + seconds
        threads = [threading.Thread(target=self.call, args=(seed,)) for seed in range(CALLERS)]
        threads.append(threading.Thread(target=self.reload))
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(REPORT_SECONDS)
            memory, descriptors, processes = measure(pid)
            figures = f"{memory:.1f} MiB, {descriptors} descriptors, {processes} processes"
            print(f"{self.sent.total()} sent, {len(self.wrong)} wrong, {figures}", flush=True)
        time.sleep(SETTLE_SECONDS)
        return measure(pid)

    def call(self, seed: int) -> None:
        """Send events of all kinds."""
        source = random.Random(seed)
        number = 0
        while time.monotonic() < self.until:
            number += 1
            kind = source.choices([*KINDS], [*KINDS.values()])[0]
            event = {"kind": kind, "id": f"{seed}-{number}", "body": "x" * source.choice([1, 1000, 300_000])}
            try:
                answered = self.send(event)
            except (OSError, http.client.HTTPException) as error:
                answered = f"{type(error).__name__}: {error}"
            self.sent[kind] += 1
            if answered:
                self.wrong.append(f"{event['id']} ({kind}): {answered}")
                print(self.wrong[-1], flush=True)

    def send(self, event: dict[str, str]) -> str:
        """Send an event; return what is wrong with its answer."""
        body = json.dumps(event).encode()
        head = f"POST / HTTP/1.1\r\nhost: a\r\nwisp-event-format: lambda\r\nwisp-request-id: {event['id']}\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as sock:
            sock.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode())
            if event["kind"] == "slow":
                for at in range(0, len(body), max(1, len(body) // 5)):
                    sock.sendall(body[at : at + max(1, len(body) // 5)])
                    time.sleep(0.05)
            else:
                sock.sendall(body)
            if event["kind"] == "hang up":
                return ""
            response = http.client.HTTPResponse(sock)
            response.begin()
            if event["kind"] == "slow":
                time.sleep(0.2)
            answer = response.read()
        return judge(event, answer)

    def reload(self) -> None:
        """Touch the code now and then."""
        while time.monotonic() + RELOAD_SECONDS < self.until:
            time.sleep(RELOAD_SECONDS)
            os.utime(self.folder / "app.py")


def judge(event: dict[str, str], answer: bytes) -> str:
    """Say what is wrong with an answer; nothing if it is its event's own."""
    kind, name = event["kind"], event["id"]
    if kind == "stream":
        return "" if answer == f"{name}\n".encode() * 200 else repr(answer[:100])
    document = json.loads(answer)
    if kind in ("echo", "print", "slow"):
        right = document == [name, event["body"]]
    elif kind == "raise":
        right = document["errorMessage"] == name
    else:
        right = name in document["errorMessage"]
    return "" if right else repr(answer[:200])


def measure(pid: int) -> tuple[float, int, int]:
    """Return a function's memory in MiB, the front's descriptors, and the processes."""
    for _ in range(100):
        try:
            pids = family(pid)
            return pss(pid) / 1024, len(os.listdir(f"/proc/{pid}/fd")), len(pids)  # noqa: PTH208
        except (OSError, IndexError):  # one has just ended
            time.sleep(0.01)
    raise RuntimeError("its processes end faster than they can be measured")


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start the function; return its process and port."""
    (folder / "app.py").write_text(CODE)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    env = {"PATH": os.environ["PATH"], "PORT": str(port), "WISP_TIMEOUT_SECONDS": "3", "WISP_METRICS_PORT": "0"}
    env["PYTHONPATH"] = str(ROOT / "function-runtime/python/src")
    command = [sys.executable, "-m", "wisp_runtime", "app.handler"]
    process = subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return process, port


def main() -> None:
    """Run, tell how it goes, and compare the end with the beginning."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=30)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process, port = serve(folder)
        soak = Soak(folder, port)
        try:
            before = soak.run(process.pid, WARM_SECONDS)
            after = soak.run(process.pid, minutes * 60)
        finally:
            stop(process)
    print(f"sent: {dict(soak.sent)}")
    for what, first, last in zip(("MiB", "descriptors", "processes"), before, after, strict=True):
        print(f"{what} at rest: {first:.1f} before, {last:.1f} after")
    if soak.wrong or after[0] > before[0] + LEFT_OVER_MIB or after[1] > before[1] or after[2] > before[2]:
        sys.exit(1)


if __name__ == "__main__":
    main()
