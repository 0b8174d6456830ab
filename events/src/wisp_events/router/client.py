"""HTTP/1.1 to functions: kept-alive connections per target, one request at a time on each, callbacks instead of tasks.

Invariants: every request sent gets exactly one outcome, at the latest SWEEP_SECONDS after its deadline; a connection that
answered in any unclear way is closed, never used again. A request is repeated without telling the caller only where the
target closed a kept-alive connection before any byte of an answer: the race that every keep-alive client has, but not where a
large one (`Exchange.sent`) had been written out. Names are
resolved at each new connection, and connections are replaced after MAX_AGE_SECONDS, so that changed addresses and new
pods behind one address are found.

Why not an existing client: at 10,000s of requests a second the client is most of the router's cost (bench_router.py).
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final, cast

import httptools
from wisp_api.cloudevent import LARGE_BYTES

from wisp_events.router.dial import connect
from wisp_events.router.lookup import Names
from wisp_events.router.reach import CLUSTER, PUBLIC
from wisp_events.router.request import Address
from wisp_events.router.verdict import ERROR, MARK, REALM, Answer, Failure, Outcome

CONNECT_SECONDS: Final = 10.0
SWEEP_SECONDS: Final = 0.25
IDLE_SECONDS: Final = 30.0
MAX_AGE_SECONDS: Final = 60.0
BODY_BYTES: Final = 4096
"""What is kept of an answer's body."""
HEADER_BYTES: Final = 64 * 1024
"""What may come of an answer in a row that is no body: headers, trailers."""
_TOLD: Final = frozenset((b"content-type", b"traceparent", b"tracestate", ERROR))
"""Headers that an answer keeps, beside a CloudEvent's attributes."""


class Exchange:
    """One request and who waits for its outcome."""

    __slots__ = ("deadline", "done", "keep", "large", "repeated", "request", "seconds", "sent")

    def __init__(self, request: bytes, seconds: float, done: Callable[[Outcome], None], keep: int = BODY_BYTES) -> None:
        """`seconds`: how long the answer may take once the request is sent; `keep`: bytes wanted of a success's body."""
        self.request = request
        self.seconds = seconds
        self.keep = keep
        self.done = done
        self.deadline = 0.0
        self.repeated = False
        self.sent: Callable[[], None] | None = None
        """Called when the request is written and held no more; not called where the outcome came first."""
        self.large: Callable[[Callable[[], None]], None] | None = None
        """Gets, when the body turns out to be over LARGE_BYTES, what to call for the rest of it; until then the answer waits."""

    def written(self) -> None:
        """All of the request is with the system."""
        if self.sent:
            sent, self.sent, self.request = self.sent, None, b""
            sent()


class _Connection(asyncio.Protocol):
    """One connection; parses the answer to its current exchange."""

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.born = self.idle_since = time.monotonic()
        self.used = False
        self._writing = self._paused = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._received = False  # a byte of an answer
        self._aside = 0  # bytes since the last of a body
        self._status = 0  # of the complete answer
        self._surplus = False
        self._begin()

    def _begin(self) -> None:
        self._headers_done = False
        self._framed = False
        self._reusable = False
        self._marked = self._stranger = False
        self._retry_after = 0.0
        self._body: list[bytes] = []
        self._size = 0
        self._headers: list[tuple[bytes, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)

    def send(self, exchange: Exchange) -> None:
        """Write a request; the deadline begins."""
        self.exchange = exchange
        exchange.deadline = time.monotonic() + exchange.seconds
        transport = cast("asyncio.Transport", self.transport)
        if exchange.sent:
            transport.set_write_buffer_limits(0)  # `resume_writing` when all is written
        transport.write(exchange.request)
        if exchange.sent and not self._writing:
            exchange.written()

    def pause_writing(self) -> None:
        """Something of the request is not with the system yet."""
        self._writing = True

    def resume_writing(self) -> None:
        """All of it is."""
        self._writing = False
        if self.exchange and self.exchange.sent:
            cast("asyncio.Transport", self.transport).set_write_buffer_limits()
            self.exchange.written()

    def data_received(self, data: bytes) -> None:
        """Parse a part of the answer."""
        if self.exchange is None:
            self.close()  # an answer to nothing: out of step
            return
        self._received = True
        self._aside += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._status:
                self.fail(Failure(f"the target does not answer in HTTP: {error}"))
                return
            self._surplus = True
        if self._status:
            self._complete()
        elif self._aside > HEADER_BYTES:
            self.fail(Failure(f"the answer's header is longer than {HEADER_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """An answer begins: a second one is more than was asked for."""
        self._surplus = self._status > 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        name = name.lower()
        if name == MARK:
            self._marked = True
        elif name == b"www-authenticate":
            self._stranger = REALM in value
        elif name == b"retry-after" and value.isdigit():
            self._retry_after = float(value[:9])
        elif name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif name in _TOLD or name.startswith(b"ce-"):
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The body begins."""
        self._headers_done = True

    def on_body(self, body: bytes) -> None:
        """A part of the body; what is not kept is dropped."""
        self._aside = 0
        keep = self.exchange.keep if self.exchange and self._parser.get_status_code() < 300 else BODY_BYTES  # noqa: PLR2004
        if self._size < keep:
            self._body.append(body[: keep - self._size])
            self._size += len(self._body[-1])
            if self._size > LARGE_BYTES and self.exchange and self.exchange.large:
                self._wait(self.exchange, self.exchange.large)

    def on_message_complete(self) -> None:
        """The answer is there; an interim one (1xx) is passed over."""
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004
            self._begin()
        elif not self._status:
            self._status = status
            self._reusable = self._parser.should_keep_alive()

    def _wait(self, exchange: Exchange, large: Callable[[Callable[[], None]], None]) -> None:
        """Read on when there is room for a large answer; until then there is no deadline."""
        exchange.large = exchange.sent = None
        exchange.deadline = math.inf
        self._paused = True
        cast("asyncio.Transport", self.transport).pause_reading()

        def go_on() -> None:
            if self.exchange is exchange:
                exchange.deadline = time.monotonic() + exchange.seconds
                self._paused = False
                cast("asyncio.Transport", self.transport).resume_reading()
                if self._status:
                    self._complete()

        large(go_on)

    def _complete(self) -> None:
        if not self._paused:
            self._finish(self._status, reusable=self._reusable and not self._surplus)

    def _finish(self, status: int, *, reusable: bool) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            self.close()
            return
        answer = Answer(
            status,
            self._marked,
            self._retry_after,
            b"".join(self._body),
            self._stranger and self._marked,
            tuple(self._headers),
        )
        now = time.monotonic()
        self.used, self.idle_since = True, now
        if reusable and now - self.born < MAX_AGE_SECONDS:
            self._reset()
            self.pool.release(self)
        else:
            self.close()
        exchange.done(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """The target closed, or we did."""
        self.pool.forget(self)
        exchange = self.exchange
        if exchange is None:
            return
        if self._headers_done and not self._framed and exc is None:
            self._finish(self._parser.get_status_code(), reusable=False)  # a body that ends with the connection
            return
        self.exchange = None
        if self.used and not self._received and not exchange.repeated and exchange.request:
            exchange.repeated = True
            self.pool.send(exchange, fresh=True)
            return
        exchange.done(Failure(f"the target closed the connection{f': {exc}' if exc else ''}"))

    def fail(self, failure: Failure) -> None:
        """Give up on the current exchange and the connection."""
        exchange, self.exchange = self.exchange, None
        self.close()
        if exchange:
            exchange.done(failure)

    def close(self) -> None:
        """Use it no more."""
        self.pool.forget(self)
        if self.transport:
            self.transport.abort()


class Pool:
    """The connections to one host and port."""

    def __init__(self, to: Address, limit: int, names: Names) -> None:
        """At most `limit` connections; further requests wait their turn."""
        self._to = to
        self._names = names
        self._limit = limit
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._connecting: dict[asyncio.Task[None], Exchange] = {}
        self._queue: deque[Exchange] = deque()

    @property
    def unused(self) -> bool:
        """Whether it holds nothing."""
        return not (self._open or self._connecting or self._queue)

    def send(self, exchange: Exchange, *, fresh: bool = False) -> None:
        """Send on an idle connection, or on a new one (`fresh`: always)."""
        if self._idle and not fresh:
            self._idle.pop().send(exchange)
        elif len(self._open) + len(self._connecting) < self._limit:
            task = asyncio.get_running_loop().create_task(self._connect(exchange))
            self._connecting[task] = exchange
            task.add_done_callback(self._connecting.pop)
        else:
            self._queue.append(exchange)

    async def _connect(self, exchange: Exchange) -> None:
        where = f"{self._to.host}:{self._to.port}"
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await connect(self._to, lambda: _Connection(self), self._names)
        except TimeoutError:
            self._failed(exchange, f"no connection to {where} within {CONNECT_SECONDS:.0f} s")
        except OSError as error:
            self._failed(exchange, f"no connection to {where}: {error.strerror or error}")
        else:
            if connection.transport is None or connection.transport.is_closing():
                self._failed(exchange, f"{where} closed the connection at once")
                return
            self._open.add(connection)
            connection.send(exchange)

    def _failed(self, exchange: Exchange, message: str) -> None:
        """Report a failed connection, to the requests that wait for one as well if there is no other."""
        waiting = [exchange]
        if not self._open:
            waiting += self._queue
            self._queue.clear()
        for one in waiting:
            one.done(Failure(message))

    def release(self, connection: _Connection) -> None:
        """A connection is free for the next request."""
        if self._queue:
            connection.send(self._queue.popleft())
        else:
            self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """A connection is gone; a request that waits may open another."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._queue:
            self.send(self._queue.popleft(), fresh=True)

    def sweep(self, now: float) -> None:
        """End what is over its deadline, close what has been idle or open for too long."""
        for connection in list(self._open):
            exchange = connection.exchange
            if exchange is None:
                if now - connection.idle_since > IDLE_SECONDS or now - connection.born > MAX_AGE_SECONDS:
                    connection.close()
            elif now > exchange.deadline:
                connection.fail(Failure(f"no answer within {exchange.seconds:.0f} s", timeout=True))

    async def close(self) -> None:
        """Close every connection; requests under way end as failures."""
        connecting = dict(self._connecting)
        for task in connecting:
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)
        unsent = [*(exchange for task, exchange in connecting.items() if task.cancelled()), *self._queue]
        self._queue.clear()
        for exchange in unsent:
            exchange.done(Failure("the router ends"))
        for connection in list(self._open):
            connection.fail(Failure("the router ends"))


class Client:
    """Pools by address."""

    def __init__(self, connections_per_target: int = 1024) -> None:
        """Start with none; needs a running loop."""
        self._limit = connections_per_target
        self._functions, self._sinks = Names(), Names()
        self._pools: dict[tuple[str, int, bool, str, str], Pool] = {}
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def send(
        self, to: Address, request: bytes, seconds: float, done: Callable[[Outcome], None], keep: int = BODY_BYTES
    ) -> None:
        """Send a request; `done` gets its outcome, never before this returns, with `keep` bytes of a success's body at most."""
        self.pool(to).send(Exchange(request, seconds, done, keep))

    def pool(self, to: Address) -> Pool:
        """The connections to an address."""
        key = (to.host, to.port, to.tls, to.reach, to.service)
        pool = self._pools.get(key)
        if pool is None:
            names = self._sinks if to.reach in {CLUSTER, PUBLIC} else self._functions
            pool = self._pools[key] = Pool(to, self._limit, names)
        return pool

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for key, pool in list(self._pools.items()):
                pool.sweep(now)
                if pool.unused:
                    del self._pools[key]

    async def close(self) -> None:
        """Close everything."""
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        for pool in list(self._pools.values()):
            await pool.close()
        self._functions.close()
        self._sinks.close()
