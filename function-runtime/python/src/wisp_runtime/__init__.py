"""Wisp's function runtime: a front that speaks HTTP, and workers that run code, for Python and other languages.

Three layers, joined by the frames of docs/decisions/0021:

* the *front* speaks HTTP: ``request_reader`` (bytes to requests, no sockets), ``http1`` (replies to bytes),
  ``connection``, ``front``, over ``loop``;
* the *function* is a set of processes and what waits for them: ``calls`` (request to frame, frame to reply),
  ``exchange`` (what a frame means to the caller), ``workers``, ``spawning``, ``function``, ``memory``, ``journal``;
* a Python *worker* runs code: ``loader`` (import, fork, serve), ``loading`` (errors people understand), ``signatures``
  (which form the handler takes), ``lambda_form``, ``event_form``, ``http_form``, ``invocation``, ``logs``.

It starts in every pod before the first answer, so nothing is imported that the handler at hand doesn't need: no
asyncio for a synchronous handler, no CloudEvents SDK for a Lambda one. It imports nothing else of Wisp.

Handlers of signature ``http`` may use ``from wisp_runtime import Request, Response``.
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:  # so it stands while Python looks for what ``-m`` is to run
    del sys.path[0]  # the working directory: its modules are the function's, not ours


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.http_form import AsyncRequest, Request, Response

__all__ = ["AsyncRequest", "Request", "Response"]


def __getattr__(name: str) -> Any:
    """Import the classes of the ``http`` signature when a handler first asks for them."""
    if name in __all__:
        from wisp_runtime import http_form  # noqa: PLC0415 - most handlers never need it

        return getattr(http_form, name)
    raise AttributeError(f"module 'wisp_runtime' has no attribute {name!r}")
