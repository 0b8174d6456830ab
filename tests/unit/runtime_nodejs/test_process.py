"""The life of a Node.js worker: its log, its end, several invocations at once, and what no front should send."""

from __future__ import annotations

import json
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from fixtures.worker import CANCEL, ERROR, INVOKE, RESULT, STOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.worker import WorkerProcess

    Run = Callable[..., WorkerProcess]

LOGGING = """
console.log("at start");
export const handler = async (event) => {
  console.debug("unseen");
  console.log("a %s", "b", { c: 1 });
  console.warn("two\\nlines");
  process.stdout.write("out\\nunfinished");
  process.stderr.write(Buffer.from("err\\n"));
};
"""


def test_log_lines(run: Run) -> None:
    """Each line of console and streams is a JSON object with the request's id, an unfinished one too."""
    worker = run(LOGGING)
    worker.call(trace="00-trace-span-01")
    worker.call()
    lines = worker.lines()
    wanted = [
        ("INFO", "a b { c: 1 }"),
        ("WARN", "two\nlines"),
        ("INFO", "out"),
        ("ERROR", "err"),
        ("INFO", "unfinished"),
    ]
    assert [(line["level"], line["message"]) for line in lines] == [("INFO", "at start"), *wanted, *wanted]
    assert [line.get("requestId") for line in lines] == [None, *["r-1"] * 5, *["r-2"] * 5]
    assert [line.get("trace") for line in lines] == [None, *["00-trace-span-01"] * 5, *[None] * 5]
    assert list(lines[1]) == ["time", "level", "message", "requestId", "trace"]


def test_log_in_text(run: Run) -> None:
    """In format text the console writes Lambda's lines, and the streams pass as they are; the level holds."""
    worker = run(LOGGING, WISP_LOG_FORMAT="text", WISP_LOG_LEVEL="warn")
    worker.call()
    lines = worker.log()
    assert lines[0].split("\t")[1:] == ["r-1", "WARN", "two\rlines\n"]
    assert lines[1:] == ["out\n", "unfinishederr\n"]


def test_the_log_survives_its_streams(run: Run) -> None:
    """A handler that closes its standard output, or fills the pipe, harms no log line."""
    worker = run("""
import { closeSync } from "node:fs";
export const handler = async (event) => { closeSync(1); console.log("still here"); console.log("x".repeat(300000)); };
""")
    assert worker.call().kind == RESULT
    assert [len(line["message"]) for line in worker.lines()] == [10, 300000]


def test_children_inherit_neither_socket_nor_settings(run: Run) -> None:
    """A program that the handler starts has no descriptor of ours, and doesn't learn its number."""
    worker = run("""
import { execFileSync } from "node:child_process";
export const handler = async () =>
  [execFileSync("ls", ["/proc/self/fd"]).toString(), process.env.WISP_WORKER_FD ?? "unset"];
""")
    assert worker.call().json == ["0\n1\n2\n3\n", "unset"]  # 3 is the folder that ls reads


def test_the_trace_in_the_environment(run: Run) -> None:
    """process.env, its copies and children have the running event's trace; other variables are what they ever were."""
    worker = run("""
import { execFileSync } from "node:child_process";
import { env as imported } from "node:process";
const name = "_X_AMZN_TRACE_ID";
export const handler = async () => {
  const child = execFileSync("sh", ["-c", "echo $_X_AMZN_TRACE_ID $OTHER $TZ"]).toString();
  const seen = [process.env[name], { ...process.env }[name], imported[name], name in process.env];
  process.env.OTHER = 1;
  process.env.TZ = "Asia/Tokyo";
  return [...seen, Object.keys(process.env).filter((key) => key === name).length, child, new Date(0).getHours()];
};
""")
    assert worker.call(xray="Root=1").json == ["Root=1", "Root=1", "Root=1", True, 1, "Root=1\n", 9]
    assert worker.call(xray="Root=2").json[3:6] == [True, 1, "Root=2 1 Asia/Tokyo\n"]
    assert worker.call().json[:6] == [None, None, None, False, 0, "1 Asia/Tokyo\n"]
    assert worker.call(xray="Root=1").json[0] == "Root=1"


@pytest.mark.parametrize("status", [0, 3])
def test_exit(run: Run, status: int) -> None:
    """A handler that exits ends the worker with its status and no answer; exit hooks run."""
    worker = run(f"""
process.on("exit", (status) => console.log("exit " + status));
export const handler = async () => {{ process.exit({status}); }};
""")
    with pytest.raises(EOFError):
        worker.call()
    assert worker.end() == status
    assert [line["message"] for line in worker.lines()] == [f"exit {status}"]


@pytest.mark.parametrize("how", ["stop", "gone"])
def test_the_end(run: Run, how: str) -> None:
    """STOP and the end of the socket end the worker, whatever its event loop holds, and exit hooks run."""
    worker = run("""
process.on("exit", () => console.log("bye"));
setInterval(() => {}, 1000);
export const handler = async () => {};
""")
    assert worker.call().kind == RESULT
    if how == "stop":
        worker.send(STOP, 0)
    else:
        worker.socket.shutdown(socket.SHUT_RDWR)
    assert worker.end() == 0
    assert [line["message"] for line in worker.lines()] == ["bye"]


def test_an_error_between_events_ends_it(run: Run) -> None:
    """What a handler has left behind and fails later is logged and ends the worker."""
    worker = run("""
export const handler = async () => { setTimeout(() => { throw new TypeError("left behind"); }, 30); };
""")
    assert worker.call().kind == RESULT
    assert worker.end() == 129
    line = worker.lines()[0]
    assert (line["level"], line["errorType"], line.get("requestId")) == ("ERROR", "TypeError", None)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">BIII", INVOKE, 1, (1 << 20) + 1, 0),
        struct.pack(">BIII", INVOKE, 1, 2, 0) + b"[]",
        struct.pack(">BIII", INVOKE, 1, 2, 0) + b"{]",
    ],
)
def test_what_is_no_frame_ends_it(run: Run, data: bytes) -> None:
    """A frame that breaks the rules ends the worker, which says so."""
    worker = run("export const handler = async () => {};")
    worker.socket.sendall(data)
    assert worker.end() == 1
    assert "The front sent a head" in worker.lines()[0]["message"]


def test_frames_in_pieces_and_together(run: Run) -> None:
    """How the stream is cut does not matter: byte by byte, or many frames at once; unknown kinds and keys are passed over."""
    worker = run("export const handler = async (event) => event;", WISP_ISOLATION="shared", WISP_CONCURRENCY="100")
    head = json.dumps({"id": "r", "deadline": 1, "form": "json", "unknown": [1]}).encode()
    frames = [struct.pack(">BIII", INVOKE, n, len(head), 4) + head + b"%4d" % n for n in range(50)] + [
        struct.pack(">BIII", 99, 7, 2, 1) + b"{}x"
    ]
    stream = b"".join(frames)
    for byte in stream[:500]:
        worker.socket.send(bytes([byte]))
    worker.socket.sendall(stream[500:])
    got = [worker.receive() for _ in range(50)]
    assert sorted((frame.number, frame.json) for frame in got) == [(n, n) for n in range(50)]


SHARED = {"WISP_ISOLATION": "shared", "WISP_CONCURRENCY": "3"}
SLEEPER = """
export const handler = async (event) => {
  console.log("begin");
  await new Promise((r) => setTimeout(r, event.ms));
  console.log("end");
  if (event.fail) setTimeout(() => { throw new Error("mine") });
  if (event.fail) await new Promise(() => {});
  return event.ms;
};
"""


def test_several_at_once(start: Callable[..., WorkerProcess]) -> None:
    """An asynchronous handler that may share its process runs several events at once, and each line knows its own."""
    worker = start(SLEEPER, **SHARED)
    assert worker.ready().head["concurrency"] == 3
    numbers = {worker.invoke(json.dumps({"ms": ms})): ms for ms in (300, 200, 100)}
    answers = [worker.receive() for _ in range(3)]
    assert [(numbers[frame.number], frame.json) for frame in answers] == [(100, 100), (200, 200), (300, 300)]
    ends = [line["requestId"] for line in worker.lines() if line["message"] == "end"]
    assert ends == ["r-3", "r-2", "r-1"]


def test_only_asynchronous_code_shares(start: Callable[..., WorkerProcess]) -> None:
    """A handler with a callback, and one that is to be isolated, takes one event at a time."""
    assert start("export const handler = (e, c, done) => done();", **SHARED).ready().head["concurrency"] == 1
    assert start(SLEEPER, WISP_CONCURRENCY="3").ready().head["concurrency"] == 1


def test_an_error_hits_its_own_invocation(run: Run) -> None:
    """Of several, the one whose code throws aside gets the error, before the worker ends."""
    worker = run(SLEEPER, **SHARED)
    worker.invoke('{"ms":60000}')
    second = worker.invoke('{"ms":1,"fail":true}')
    frame = worker.receive()
    assert (frame.kind, frame.number, frame.head["errorMessage"]) == (ERROR, second, "mine")
    assert worker.end() == 129


def test_cancel(run: Run) -> None:
    """An invocation that is cancelled is closed at once, its request's signal aborted, and the others run on."""
    code = """
export const handler = async (request) => {
  if (request.url.endsWith("fast")) return globalThis.aborted ?? "not";
  await new Promise((r) => request.signal.addEventListener("abort", r));
  globalThis.aborted = "aborted";
};
"""
    worker = run(code, **SHARED)
    head = {"form": "http", "method": "GET", "version": "1.1", "headers": [], "peer": ""}
    number = worker.invoke(b"", target="/", **head)
    worker.send(CANCEL, number, {"reason": "gone"})
    frame = worker.receive()
    assert (frame.kind, frame.number) == (ERROR, number)
    assert worker.call(b"", target="/fast", **head).body == b"aborted"
