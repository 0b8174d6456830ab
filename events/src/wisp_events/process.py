"""What every process of the data plane has: JSON logs, a health and metrics port, an orderly end on SIGTERM.

Invariant: liveness says that the event loop turns, readiness that the part does its work now; being away from NATS is
not ready, never a crash. Metrics are those of prometheus_client's default registry.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import prometheus_client
from wisp_api.logs import set_up_logging

Ready = Callable[[], str]
"""Returns an empty string when ready, else what is missing, in a sentence."""

HEALTH_PORT = 9090


async def serve_health(ready: Ready, port: int = HEALTH_PORT) -> asyncio.Server:
    """Serve /healthz, /readyz and /metrics on all addresses; `ready` is asked at each /readyz."""

    def answer(path: str) -> tuple[str, str, bytes]:
        if path == "/metrics":
            return "200 OK", prometheus_client.CONTENT_TYPE_LATEST, prometheus_client.generate_latest()
        if path == "/healthz":
            return "200 OK", "text/plain", b"ok\n"
        if path == "/readyz":
            missing = ready()
            return ("503 Service Unavailable" if missing else "200 OK"), "text/plain", f"{missing or 'ok'}\n".encode()
        return "404 Not Found", "text/plain", b"paths: /healthz /readyz /metrics\n"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                request = (await reader.readline()).split()
                while (await reader.readline()).strip():
                    pass
                status, kind, body = answer(request[1].decode() if len(request) > 1 else "")
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # a caller that stalls or goes away loses only its own answer
        finally:
            writer.close()

    return await asyncio.start_server(handle, None, port)


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main(stop)` on uvloop; SIGTERM and SIGINT set `stop`, on which `main` is to return after an orderly end."""
    import uvloop  # noqa: PLC0415 - only processes pay for it

    async def body() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    set_up_logging()
    uvloop.run(body())
