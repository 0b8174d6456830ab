"""The Telemetry API, ``/2022-07-01/telemetry``: batches of platform, function and extension events, by HTTP to who asked.

Invariant: nothing waits for a subscriber. What it hasn't taken is bounded (twice its ``maxBytes`` and ``maxItems``); beyond,
events are dropped, counted, and told as ``platform.logsDropped``. A batch goes to one request at a time, in order.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wisp_runtime.bridge.server import refuse
from wisp_runtime.loop import READ, WRITE

if TYPE_CHECKING:
    from wisp_runtime.bridge.extensions import Extensions
    from wisp_runtime.bridge.server import Exchange
    from wisp_runtime.loop import Loop, Timer

PATH = "/2022-07-01/telemetry"
TYPES = ("platform", "function", "extension")
VERSIONS = ("2022-07-01", "2022-12-13", "2025-01-29")
HOSTS = ("sandbox.localdomain", "sandbox", "127.0.0.1", "localhost")
MAX_EARLY = 256 * 1024  # bytes of events
DELIVERY_SECONDS = 5.0  # for one batch
MAX_ATTEMPTS = 3  # of one batch
FAILURE_SECONDS = 1.0  # at least, after a batch that nobody took
_BUFFERING = {
    "maxItems": (1000, 10_000, 10_000),
    "maxBytes": (262_144, 1_048_576, 262_144),
    "timeoutMs": (25, 30_000, 1000),
}


class Telemetry:
    """Who subscribed."""

    def __init__(self, loop: Loop, extensions: Extensions, *, json_logs: bool) -> None:
        """Have nobody yet."""
        self._loop = loop
        self._extensions = extensions
        self._json_logs = json_logs
        self._subscribers: dict[str, Subscriber] = {}
        self._early: list[tuple[str, bytes]] = []  # type and event, for who subscribes while the function starts
        self._early_size = 0
        self.open = True  # for subscriptions: until the function is ready

    def begin(self, exchange: Exchange) -> None:
        """Say what becomes of a request."""
        if exchange.path == PATH:
            wrong = refuse(405, "MethodNotAllowed", f"{exchange.method} is not served here: subscribe with PUT")
            exchange.complete = self._subscribe if exchange.method == "PUT" else wrong

    def publish(self, kind: str, record: Any) -> None:
        """Tell an event to who wants its kind."""
        if not (self._subscribers or self.open):
            return
        event = json.dumps({"time": timestamp(), "type": kind, "record": record}, separators=(",", ":")).encode()
        category = kind.partition(".")[0]
        if self.open and self._early_size + len(event) <= MAX_EARLY:
            self._early.append((category, event))
            self._early_size += len(event)
        for subscriber in self._subscribers.values():
            if category in subscriber.types:
                subscriber.put(event)

    def publish_line(self, kind: str, line: bytes) -> None:
        """Tell a line of the log; with JSON logs one that is an object is told as one."""
        if not line or not (self._subscribers or self.open):
            return
        record: Any = line.decode("utf-8", "replace")
        if self._json_logs and line.startswith(b"{"):
            with suppress(ValueError, RecursionError):  # then it is a text
                record = json.loads(line)
        self.publish(kind, record)

    def flush(self) -> None:
        """Send what there is at once."""
        for subscriber in self._subscribers.values():
            subscriber.flush()

    def close(self) -> None:
        """Take no more subscriptions."""
        self.open = False
        self._early.clear()

    @property
    def delivered(self) -> bool:
        """Whether nothing is left to send."""
        return all(subscriber.empty for subscriber in self._subscribers.values())

    def _subscribe(self, exchange: Exchange) -> None:
        extension = self._extensions.find(exchange)
        if extension is None:
            return
        if not self.open:
            exchange.refuse(403, "Telemetry.SubscriptionClosed", "Telemetry API subscription is closed already")
            return
        try:
            wish = read_subscription(bytes(exchange.body))
        except ValueError as error:
            exchange.refuse(400, "ValidationError", str(error))
            return
        subscriber = self._subscribers[extension.id] = Subscriber(self._loop, *wish)
        for category, event in self._early:
            if category in subscriber.types:
                subscriber.put(event)
        exchange.answer(200, "OK")
        self.publish(
            "platform.telemetrySubscription", {"name": extension.name, "state": "Subscribed", "types": list(wish[0])}
        )


class Subscriber:
    """Events that wait for one subscriber, and the batch that is on its way."""

    def __init__(self, loop: Loop, types: tuple[str, ...], port: int, path: str, buffering: dict[str, int]) -> None:
        """Have nothing to send."""
        self.types = types
        self._loop = loop
        self._port = port
        self._path = path
        self._max_items = buffering["maxItems"]
        self._max_bytes = buffering["maxBytes"]
        self._seconds = buffering["timeoutMs"] / 1000
        self._events: list[bytes] = []
        self._size = 0
        self._dropped = (0, 0)  # events, bytes
        self._timer: Timer | None = None
        self._sending: _Delivery | Timer | None = None  # a batch on its way, or waiting for its next attempt

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        return not self._events and self._sending is None

    def put(self, event: bytes) -> None:
        """Take an event, or drop it where too much waits."""
        if self._size + len(event) > 2 * self._max_bytes or len(self._events) >= 2 * self._max_items:
            self._drop(1, len(event))
            return
        self._events.append(event)
        self._size += len(event)
        if self._size >= self._max_bytes or len(self._events) >= self._max_items:
            self.flush()
        elif self._timer is None and self._sending is None:
            self._timer = self._loop.after(self._seconds, self.flush)

    def flush(self) -> None:
        """Send a batch, unless one is on its way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sending is not None or not (self._events or self._dropped[0]):
            return
        count = size = 0
        for event in self._events[: self._max_items]:
            if count and size + len(event) > self._max_bytes:
                break
            count += 1
            size += len(event)
        batch, self._events = self._events[:count], self._events[count:]
        self._size -= size
        dropped, self._dropped = self._dropped, (0, 0)
        self._send(batch, dropped, 1)

    def _send(self, batch: list[bytes], dropped: tuple[int, int], attempt: int) -> None:
        def done(*, delivered: bool) -> None:
            self._sending = None
            if not delivered and attempt < MAX_ATTEMPTS:
                again = self._loop.after(self._seconds, lambda: self._send(batch, dropped, attempt + 1))
                self._sending = again
                return
            pause = self._seconds
            if not delivered:
                self._drop(len(batch) + dropped[0], sum(map(len, batch)) + dropped[1])
                pause = max(pause, FAILURE_SECONDS)
            if self._events or self._dropped[0]:
                self._timer = self._loop.after(pause, self.flush)

        events = [*batch, _logs_dropped(*dropped)] if dropped[0] else batch
        self._sending = _Delivery(self._loop, self._port, self._path, b"[" + b",".join(events) + b"]", done)

    def _drop(self, events: int, size: int) -> None:
        self._dropped = self._dropped[0] + events, self._dropped[1] + size


def _logs_dropped(events: int, size: int) -> bytes:
    """Make the event that tells a subscriber of a loss."""
    reason = "Some logs were dropped because the consumer is too slow"
    record = {"droppedRecords": events, "droppedBytes": size, "reason": reason}
    return json.dumps({"time": timestamp(), "type": "platform.logsDropped", "record": record}).encode()


class _Delivery:
    """One POST on a connection of its own."""

    def __init__(self, loop: Loop, port: int, path: str, body: bytes, done: Any) -> None:
        self._loop = loop
        self._done = done
        head = f"POST {path} HTTP/1.1\r\nHost: sandbox.localdomain:{port}\r\nContent-Type: application/json\r\n"
        self._out = memoryview(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self._in = b""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._timer = loop.after(DELIVERY_SECONDS, lambda: self._finish(delivered=False))
        self._socket.connect_ex(("127.0.0.1", port))  # what comes of it, the first write tells
        loop.watch(self._socket.fileno(), WRITE, self._on_event)

    def _on_event(self, events: int) -> None:
        try:
            if events & READ:
                self._receive(self._socket.recv(4096))
            elif self._out:
                self._out = self._out[self._socket.send(self._out) :]
                if not self._out:
                    self._loop.change(self._socket.fileno(), READ)
            else:
                self._finish(delivered=False)
        except BlockingIOError:
            return
        except OSError:
            self._finish(delivered=False)

    def _receive(self, data: bytes) -> None:
        self._in += data
        line, end, _ = self._in.partition(b"\r\n")
        if end or not data:
            status = line.split(b" ")[1:2]
            self._finish(delivered=bool(status) and status[0][:1] == b"2")

    def _finish(self, *, delivered: bool) -> None:
        self._timer.cancel()
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._done(delivered=delivered)


def read_subscription(body: bytes) -> tuple[tuple[str, ...], int, str, dict[str, int]]:
    """Read types, the destination's port and path, and buffering.

    Raises:
        ValueError: The message says which field is wrong, and what it may be.
    """
    wish = json.loads(body)
    if not isinstance(wish, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - one error for all
    if wish.get("schemaVersion") not in VERSIONS:
        raise ValueError(f"schemaVersion must be one of {', '.join(VERSIONS)}")
    types = wish.get("types")
    if not isinstance(types, list) or not types or not all(kind in TYPES for kind in types):
        raise ValueError(f"types must be a list of {', '.join(TYPES)}")
    destination = wish.get("destination")
    if not isinstance(destination, dict) or destination.get("protocol") != "HTTP":
        raise ValueError("destination.protocol must be HTTP")
    buffering = wish.get("buffering", {})
    if not isinstance(buffering, dict):
        raise ValueError("buffering must be an object")  # noqa: TRY004 - as above
    limits = {name: buffering.get(name, default) for name, (_, _, default) in _BUFFERING.items()}
    for name, (least, most, _) in _BUFFERING.items():
        if not isinstance(limits[name], int) or not least <= limits[name] <= most:
            raise ValueError(f"buffering.{name} must be a number from {least} to {most}")
    return tuple(types), *_read_uri(destination.get("URI")), limits


def _read_uri(uri: Any) -> tuple[int, str]:
    """Read port and path of ``http://sandbox.localdomain:8080/path``."""
    scheme, _, rest = str(uri).partition("://")
    authority, slash, path = rest.partition("/")
    host, _, port = authority.partition(":")
    if scheme != "http" or host not in HOSTS or not (port or "80").isdigit() or not str(uri).isascii() or " " in path:
        raise ValueError("destination.URI must be http://sandbox.localdomain:PORT/PATH")
    return int(port or 80), slash + path or "/"


def timestamp() -> str:
    """Return the time as telemetry has it."""
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03}Z"
