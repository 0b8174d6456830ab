"""Wisp's Python function runtime: one process that serves one handler over HTTP/1.1.

Two halves that know one call of each other, ``Function.run(invocation) -> Reply``:

* the *front* speaks HTTP: ``http1`` (bytes to requests and back, no sockets), ``front`` (sockets, one epoll loop),
  ``standby`` (the thread that keeps the front answering while a handler computes);
* the *function* runs code: ``loading`` (import, with errors people understand), ``signatures`` (which form the handler
  takes), ``lambda_form``, ``event_form``, ``http_form`` (request to arguments, result to reply), ``invocation``.

It starts in every pod before the first answer, so nothing is imported that the handler at hand doesn't need: no
asyncio for a synchronous handler, no CloudEvents SDK for a Lambda one. It imports nothing else of Wisp.

Handlers of signature ``http`` may use ``from wisp_runtime import Request, Response``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wisp_runtime.http_form import AsyncRequest, Request, Response

__all__ = ["AsyncRequest", "Request", "Response"]


def __getattr__(name: str) -> Any:
    """Import the classes of the ``http`` signature when a handler first asks for them."""
    if name in __all__:
        from wisp_runtime import http_form  # noqa: PLC0415 - most handlers never need it

        return getattr(http_form, name)
    raise AttributeError(f"module 'wisp_runtime' has no attribute {name!r}")
