"""Measure the Python runtime beside its peers: ``python tests/bench/bench_runtime.py [seconds]``.

For each server, in turn and in several rounds so that a busy machine hits all alike: requests per second and p99 under
``wrk`` (server on core 0, wrk on core 1, 16 connections, a POST of 70 bytes of JSON), milliseconds from the process's
start to its first answer, and memory (PSS) when idle. On a shared machine the processor time of a request is the figure
that others disturb least; requests per second and p99 are the best of the rounds, and only ratios count.

``bare`` is the limit in this language: the same epoll loop around httptools and json, with nothing else in it.
The peers (functions-framework, uvicorn, awslambdaric) are installed into a throw-away environment, not into ours. awslambdaric asks for its
events; a stub of the Runtime API on core 1 gives it one after the other. Needs Linux and wrk (Debian: ``wrk``).

Below the table: how long it takes from a timeout's answer to the next event's, and how long a worker takes that is forked
because the others are busy, where the handler has imported what costs half a second, and where that is pandas and boto3.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.node import worker_command

ROOT = Path(__file__).parents[2]
ROUNDS = 3
STARTS = 10
BODY = '{"id": 1, "name": "some name", "values": [1, 2, 3, 4, 5], "on": true}'

HANDLERS = """
import json
def handle_lambda(event, context):
    return event

async def handle_async(event, context):
    return event

async def handle_asgi(scope, receive, send):
    assert scope["type"] == "http"
    body = json.dumps(json.loads((await receive())["body"])).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

def handle_http(request):
    return request.json()

def handle_print(event, context):
    print("a line for the log")
    return event
"""
SLOW = """
import os, time, unittest.mock, xml.dom.minidom, email.message, asyncio, sqlite3
time.sleep(0.5)
def handler(event, context):
    time.sleep(event)
    return os.getpid()
"""
HEAVY = """
import os, time
import boto3, pandas
def handler(event, context):
    time.sleep(event)
    return os.getpid()
"""
SLOW_NODE = """
export const handler = async (event) => { await new Promise((done) => setTimeout(done, event * 1000)); return process.pid; };
"""
BARE = """
import json, select, socket, sys
from httptools import HttpRequestParser

class Reader:
    def __init__(self):
        self.parser = HttpRequestParser(self)
        self.bodies = []
    def on_body(self, body):
        self.bodies.append(body)

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
poller = select.epoll()
poller.register(listener, select.EPOLLIN)
readers = {}
while True:
    for fd, _ in poller.poll():
        if fd == listener.fileno():
            sock = listener.accept()[0]
            poller.register(sock, select.EPOLLIN)
            readers[sock.fileno()] = sock, Reader()
            continue
        sock, reader = readers[fd]
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if data:
            reader.parser.feed_data(data)
            for body in reader.bodies:
                reply = json.dumps(json.loads(body)).encode()
                head = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n"
                sock.send(head % len(reply) + reply)
            reader.bodies.clear()
        else:
            poller.unregister(fd)
            readers.pop(fd)[0].close()
"""
PEER = """
import functions_framework

@functions_framework.http
def handler(request):
    return request.get_json()
"""
BARE_ASGI = """
import json

async def app(scope, receive, send):
    body = json.dumps(json.loads((await receive())["body"])).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/bench", "ce-type": "test"}


class Server:
    """One server under measurement."""

    def __init__(self, name: str, command: list[str], headers: dict[str, str], **env: str) -> None:
        """Name it, and say how it is started and which headers its requests have."""
        self.name = name
        self.command = command
        self.headers = {"content-type": "application/json"} | headers
        self.env = {"PATH": os.environ["PATH"]} | env
        self.rates: list[float] = []
        self.p99: list[float] = []
        self.cost: list[float] = []
        self.starts: list[float] = []
        self.memory = 0

    def start(self, body: str = BODY) -> tuple[subprocess.Popen[bytes], int]:
        """Start it on core 0; return as soon as it has answered."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = ["taskset", "-c", "0", *(part.replace("PORT", str(port)) for part in self.command)]
        begun = time.perf_counter()
        process = subprocess.Popen(command, env=self.env | {"PORT": str(port)}, stdout=subprocess.DEVNULL, stderr=2)
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        request = f"POST / HTTP/1.1\r\nHost: a\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
                    sock.sendall(request)
                    answer = sock.recv(65536)
                break
            except ConnectionError:
                if process.poll() is not None or time.perf_counter() - begun > 30:
                    raise
                time.sleep(0.0005)
        self.starts.append((time.perf_counter() - begun) * 1000)
        assert b" 200 " in answer.splitlines()[0], answer
        return process, port

    def load(self, pid: int, port: int, seconds: int, script: Path) -> None:
        """Run wrk on core 1; what the server's processes used of core 0 meanwhile is the cost."""
        lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in self.headers.items()]
        script.write_text("\n".join(['wrk.method = "POST"', f"wrk.body = '{BODY}'", *lines]))
        command = ["taskset", "-c", "1", "wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", "-s", str(script)]
        before = cpu_seconds(pid)
        output = subprocess.check_output([*command, f"http://127.0.0.1:{port}/"], text=True)
        assert "Non-2xx" not in output, output
        self.cost.append((cpu_seconds(pid) - before) / int(re.findall(r"(\d+) requests in", output)[0]) * 1e6)
        self.rates.append(float(re.findall(r"Requests/sec:\s+([\d.]+)", output)[0]))
        value, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s)", output)[0]
        self.p99.append(float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit])

    def measure(self, seconds: int, script: Path) -> None:
        """Measure memory at rest, then one round of load."""
        process, port = self.start()
        try:
            self.memory = pss(process.pid)
            self.load(process.pid, port, seconds, script)
        finally:
            stop(process)


class RuntimeClient(Server):
    """A server that is none: it asks for its events, and posts what came of them."""

    def start(self, body: str = BODY) -> tuple[subprocess.Popen[bytes], int]:
        """Start it on core 0; return as soon as it has answered its first event. The next waits for ``load``."""
        self.answers = 0
        self._go = threading.Event()
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(listener, body.encode()), daemon=True).start()
        command = ["taskset", "-c", "0", *self.command]
        env = self.env | {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}"}
        begun = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        while not self.answers:
            if process.poll() is not None or time.perf_counter() - begun > 30:
                raise RuntimeError(f"{self.name} does not answer")
            time.sleep(0.0005)
        self.starts.append((time.perf_counter() - begun) * 1000)
        return process, port

    def _accept(self, listener: socket.socket, event: bytes) -> None:
        while True:
            sock = listener.accept()[0]
            threading.Thread(target=self._serve, args=(sock, event), daemon=True).start()

    def _serve(self, sock: socket.socket, event: bytes) -> None:
        """Give events, take answers."""
        head = "Lambda-Runtime-Aws-Request-Id: 1\r\nLambda-Runtime-Deadline-Ms: 9999999999999\r\nContent-Type: application/json\r\n"
        given = f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(event)}\r\n\r\n".encode() + event
        data = b""
        with suppress(OSError):
            while chunk := sock.recv(65536):
                data += chunk
                if data.startswith(b"GET"):
                    if self.answers:
                        self._go.wait()
                    sock.sendall(given)
                elif data.endswith(json.dumps(json.loads(event)).encode()):
                    self.answers += 1
                    sock.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                else:
                    continue
                data = b""

    def load(self, pid: int, port: int, seconds: int, script: Path) -> None:
        """Let it have as many events as it asks for."""
        del port, script
        before, answers = cpu_seconds(pid), self.answers
        self._go.set()
        time.sleep(seconds)
        answered = self.answers - answers
        self.cost.append((cpu_seconds(pid) - before) / answered * 1e6)
        self.rates.append(answered / seconds)


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [pid, *(one for child in children for one in family(child))]


def cpu_seconds(pid: int) -> float:
    """Return the processor time, user's and kernel's, that a process and its children have used."""
    ticks = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:13] for one in family(pid)]
    return sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> int:
    """Return the KiB of proportional memory of a process and its children."""
    rollups = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in family(pid)]
    return sum(int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0]) for text in rollups)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, and wait for it."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def servers(folder: Path) -> list[Server]:
    """Lay out the image's folders and the peers' environment; return what is to be measured."""
    lib = folder / "wisp" / "lib"
    lib.mkdir(parents=True)
    import cloudevents  # noqa: PLC0415
    import httptools  # noqa: PLC0415

    sources = ROOT / "function-runtime/python"
    shutil.copytree(sources / "src/wisp_runtime", lib / "wisp_runtime")
    for package in (httptools, cloudevents):
        shutil.copytree(package.__path__[0], lib / package.__name__)
    shutil.copy(sources / "start.py", lib.parent)
    subprocess.check_call([sys.executable, "-m", "compileall", "-q", str(lib)])
    (folder / "app.py").write_text(HANDLERS)
    (folder / "slow.py").write_text(SLOW)
    (folder / "bare.py").write_text(BARE)
    (folder / "main.py").write_text(PEER)
    (folder / "bare_asgi.py").write_text(BARE_ASGI)
    subprocess.check_call(["uv", "venv", "-q", "-p", sys.executable, str(folder / "peers")])
    python = str(folder / "peers/bin/python")
    install = ["uv", "pip", "install", "-q", "-p", python, "--compile-bytecode"]
    subprocess.check_call([*install, "functions-framework", "uvicorn", "uvloop", "httptools", "awslambdaric"])

    def wisp(name: str, handler: str, headers: dict[str, str], **more: str) -> Server:
        command = [os.path.realpath(sys.executable), "-I", "-S", str(lib.parent / "start.py")]
        env = {"WISP_HANDLER": f"app.{handler}", "WISP_CODE_DIR": str(folder), "WISP_METRICS_PORT": "0"}
        return Server(name, command, headers, **env, **more)

    invoke = {"wisp-event-format": "lambda"}
    peer = [str(folder / "peers/bin/functions-framework"), f"--source={folder}/main.py", "--target=handler"]
    bare = [
        "-m",
        "uvicorn",
        "bare_asgi:app",
        f"--app-dir={folder}",
        "--port=PORT",
        "--no-access-log",
        "--log-level=warning",
        "--lifespan=off",
    ]
    client = RuntimeClient("awslambdaric", [python, "-m", "awslambdaric", "app.handle_lambda"], {})
    client.env |= {"PYTHONPATH": str(folder), "LAMBDA_TASK_ROOT": str(folder), "HOME": str(folder)}
    return [
        Server("bare epoll + httptools + json", [sys.executable, str(folder / "bare.py"), "PORT"], {}),
        wisp("wisp lambda, invoke", "handle_lambda", invoke),
        wisp("wisp lambda, invoke, isolation none", "handle_lambda", invoke, WISP_ISOLATION="none"),
        wisp("wisp lambda, CloudEvent", "handle_lambda", EVENT),
        wisp("wisp lambda, function URL", "handle_lambda", {}),
        wisp("wisp lambda, async", "handle_async", invoke),
        wisp("wisp lambda, one print", "handle_print", invoke),
        wisp("wisp http", "handle_http", {}),
        wisp("wisp asgi", "handle_asgi", {}),
        Server("uvicorn, bare ASGI", [python, *bare, "--loop=uvloop", "--http=httptools"], {}),
        client,
        Server("functions-framework", [*peer, "--host=127.0.0.1", "--port=PORT"], {}),
    ]


def invoke(port: int, event: float) -> float:
    """Invoke a function with a JSON event; return the milliseconds until its answer was there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    begun = time.perf_counter()
    connection.request("POST", "/", json.dumps(event), {"wisp-event-format": "lambda"})
    connection.getresponse().read()
    connection.close()
    return (time.perf_counter() - begun) * 1000


def measure_workers(folder: Path) -> None:
    """Print what a worker's replacement and a further worker cost."""
    command = [os.path.realpath(sys.executable), "-I", "-S", str(folder / "wisp/start.py")]
    env = {"WISP_HANDLER": "slow.handler", "WISP_CODE_DIR": str(folder), "WISP_TIMEOUT_SECONDS": "0.3"}
    slow = Server("slow", command, {}, WISP_METRICS_PORT="0", WISP_CONCURRENCY="8", **env)
    one = Server("slow", command, {}, WISP_METRICS_PORT="0", **env)
    (folder / "slow.mjs").write_text(SLOW_NODE)
    env |= {"WISP_WORKER": shlex.join(worker_command()), "WISP_TIMEOUT_SECONDS": "1"}
    node = Server("node", command, {}, WISP_METRICS_PORT="0", **env)
    for server in (one, node, slow):
        server.headers["wisp-event-format"] = "lambda"
    for what, server in (("timeout -> next event's answer", one), ("the same, Node.js", node)):
        times = after_timeouts(server)
        print(f"{what}: {statistics.median(times):.1f} ms, at the most {max(times):.1f} ms")
    heavy = Server("heavy", command, slow.headers, **slow.env | packages(folder))
    for what, server in (("handler imported in 0.5 s", slow), ("pandas and boto3 imported", heavy)):
        process, port = server.start(body="0")
        time.sleep(1)  # until the worker that is ahead has settled
        forks = forked(port)
        print(
            f"a further worker, {what}: {statistics.median(forks):.1f} ms to its first answer, at the most {max(forks):.1f} ms"
        )
        print(
            f"  (start to first answer {server.starts[0]:.0f} ms; all {len(family(process.pid))} processes {pss(process.pid) / 1024:.0f} MiB)"
        )
        stop(process)


def packages(folder: Path) -> dict[str, str]:
    """Install pandas and boto3 beside a handler of their own; return the settings that serve it."""
    code = folder / "heavy"
    command = ["uv", "pip", "install", "-q", "-p", sys.executable, "--compile-bytecode", "--target", str(code)]
    subprocess.check_call([*command, "pandas", "boto3"])
    (code / "heavy.py").write_text(HEAVY)
    return {"WISP_HANDLER": "heavy.handler", "WISP_CODE_DIR": str(code), "WISP_TIMEOUT_SECONDS": "30"}


def after_timeouts(server: Server) -> list[float]:
    """Have events take too long; return the milliseconds that each next one's answer took."""
    process, port = server.start(body="0")
    invoke(port, 0)
    times = []
    for _ in range(STARTS):
        invoke(port, 5)
        times.append(invoke(port, 0))
    stop(process)
    return times


def forked(port: int) -> list[float]:
    """Keep all workers busy but one more each time; return what each next one's first answer took."""
    times = []
    busy = []
    for _ in range(7):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/", "0.25", {"wisp-event-format": "lambda"})
        busy.append(connection)
        times.append(invoke(port, 0))
    for connection in busy:
        connection.getresponse().read()
        connection.close()
    return times


def main() -> None:
    """Measure all and print the table."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if not shutil.which("wrk"):
        sys.exit("bench_runtime needs wrk (Debian package: wrk)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = servers(folder)
        for _ in range(ROUNDS):
            for server in measured:
                server.measure(seconds, folder / "wrk.lua")
        for _ in range(STARTS - ROUNDS):
            for server in measured:
                stop(server.start()[0])
        measure_workers(folder)
    peer = min(measured[-1].cost)
    print(f"CPython {sys.version.split()[0]}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    print(
        "| server, 1 core | CPU us/request | its inverse, 1/s | ratio | req/s | p99 ms | start -> first answer ms (best) | PSS MiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for server in measured:
        cost, start = min(server.cost), statistics.median(server.starts)
        print(
            f"| {server.name} | {cost:.1f} | {1e6 / cost:,.0f} | {peer / cost:.1f} | {max(server.rates):,.0f} "
            f"| {min(server.p99, default=0):.2f} | {start:.0f} ({min(server.starts):.0f}) | {server.memory / 1024:.1f} |"
        )


if __name__ == "__main__":
    main()
