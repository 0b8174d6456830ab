"""The validating webhook: refuses on `kubectl apply` what schema and CEL rules can't see, in the words of the conditions.

It is a courtesy, not a guard: where it is away, objects are taken (failure policy Ignore), and the same functions put the same
mistake into a condition. Invariant: it never stands in the way of an object whose spec stays as it is, so that what was taken before
it could be asked can still be labelled, finalized and deleted. Nor does it cost the operator more than it has: every pod of the cluster reaches it, and
nothing shows that it is the API server who asks, so all bodies together have one bound.
"""

import asyncio
import contextlib
import json
import logging
import re
import ssl
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
from aiohttp import web
from wisp_api.function import FunctionSpec

from wisp_operator import decoding
from wisp_operator.api import Api, ApiError, Object
from wisp_operator.config import OperatorConfig
from wisp_operator.fence import trespass
from wisp_operator.handlers.function import code_problem
from wisp_operator.handlers.quota import refusal
from wisp_operator.route import filter_mistake
from wisp_operator.schedule import schedule_mistake
from wisp_operator.sinks import sink_mistake
from wisp_operator.sources import Wish, decode, table_mistake
from wisp_operator.webhook_certificate import Certificate, keep_certificate

WEBHOOK_PORT: Final = 9443
_LOOK_SECONDS: Final = 5
_BODY_BYTES: Final = 8 * 1024 * 1024
_HELD_BYTES: Final = 4 * _BODY_BYTES
"""Of all bodies that are read or judged."""
_READ_SECONDS: Final = 5.0
"""For a body; the API server waits no longer for its answer."""
_UID: Final = re.compile(rb'"request":\s*\{\s*"uid":\s*"([-0-9a-f]{36})"')
_REVIEW: Final = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
_log = logging.getLogger(__name__)


def mistake(item: Object, config: OperatorConfig) -> str:
    """What is wrong with a Function or Subscription, in a sentence; empty if nothing."""
    try:
        if item["kind"] == "Function":
            spec = msgspec.convert(item["spec"], FunctionSpec)
            return trespass(spec, item["metadata"]["namespace"], config) or _function_mistake(spec, config)
        wish = decode(item)
    except msgspec.ValidationError as error:
        return f"spec: {error}"
    found = filter_mistake(wish) or table_mistake(wish) or _sink_mistake(wish, config)
    return found or (schedule_mistake(wish) if wish.spec.source.schedule else "")


def _function_mistake(spec: FunctionSpec, config: OperatorConfig) -> str:
    found = code_problem(spec, config)
    if spec.async_:
        for name, wanted in (("onSuccess", spec.async_.on_success), ("onFailure", spec.async_.on_failure)):
            sink = wanted.sink if wanted else None
            found = found or sink_mistake(f"spec.async.{name}", sink, config.allowed_sinks)
    return found


def _sink_mistake(wish: Wish, config: OperatorConfig) -> str:
    destination = wish.spec.dead_letter.sink if wish.spec.dead_letter else None
    found = sink_mistake("spec.sink", wish.spec.sink, config.allowed_sinks)
    return found or sink_mistake("spec.deadLetter", destination, config.allowed_sinks)


def review(request: Object, config: OperatorConfig) -> Object:
    """The answer to an AdmissionReview's request."""
    if not _untouched(request) and (found := mistake(request["object"], config)):
        return _refused(request, 422, "Invalid", found)
    return {"uid": request["uid"], "allowed": True}


async def grant(api: Api, request: Object, config: OperatorConfig) -> Object:
    """The answer to the request for an object that has no mistake: whether the namespace's quota has room for it."""
    item = request["object"]
    try:
        wanted = item["kind"] == "Function" and not _untouched(request)
        if wanted and (found := await refusal(api, config, item, request.get("oldObject"))):
            return _refused(request, 403, "Forbidden", found)
    except (ApiError, OSError, TimeoutError, aiohttp.ClientError, msgspec.ValidationError) as error:
        _log.warning("the quota of %s could not be asked: %s; conditions will tell", request.get("namespace"), error)
    return {"uid": request["uid"], "allowed": True}


def _untouched(request: Object) -> bool:
    item, before = request["object"], request.get("oldObject") or {}
    return before.get("spec") == item.get("spec") or "deletionTimestamp" in item["metadata"]


def _refused(request: Object, code: int, reason: str, message: str) -> Object:
    status = {"code": code, "reason": reason, "message": message}
    return {"uid": request["uid"], "allowed": False, "status": status}


class _Bodies:
    """The bodies that are held."""

    def __init__(self) -> None:
        self._held = 0

    @contextlib.asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[bytearray]:
        """A request's body, which counts until it is done with; too much or too slow a one is refused."""
        body = bytearray()
        try:
            async with asyncio.timeout(_READ_SECONDS):
                while chunk := await request.content.readany():
                    body += chunk
                    self._held += len(chunk)
                    if len(body) > _BODY_BYTES:
                        raise web.HTTPRequestEntityTooLarge(_BODY_BYTES, len(body))
                    if self._held > _HELD_BYTES:
                        raise web.HTTPServiceUnavailable(text="too much is asked at once\n")
            yield body
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        finally:
            self._held -= len(body)
            body.clear()  # an answer that was raised holds on to it while the client is heard out


async def _answer(api: Api, config: OperatorConfig, body: bytearray) -> Object:
    """The answer to an AdmissionReview; what we can't read is refused, because we couldn't read it once it is stored, either.

    Raises:
        HTTPBadRequest: it is no AdmissionReview.
    """
    try:
        request = decoding.decode(body, Object)["request"]
        request["object"]["metadata"].setdefault("namespace", request["namespace"])
        answer = review(request, config)
    except (msgspec.DecodeError, RecursionError) as error:
        if not (uid := _UID.search(body)):
            raise web.HTTPBadRequest(text="no AdmissionReview\n") from None
        return _refused({"uid": uid[1].decode()}, 422, "Invalid", f"the object can't be read: {error}")
    return await grant(api, request, config) if answer["allowed"] else answer


async def serve_webhook(api: Api, config: OperatorConfig, port: int) -> None:
    """Answer the API server for ever, with a certificate that is looked after."""

    async def validate(request: web.Request) -> web.Response:
        async with bodies.read(request) as body:
            return web.json_response(_REVIEW | {"response": await _answer(api, config, body)})

    bodies = _Bodies()
    app = web.Application()
    app.add_routes([web.post("/validate", validate)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context, served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ""
    try:
        while True:
            held = await _certificate(api, config.namespace)
            if held and held.certificate != served:
                await asyncio.to_thread(_load, context, held)
                if not served:
                    await web.TCPSite(runner, None, port, ssl_context=context).start()
                served = held.certificate
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await runner.cleanup()


async def _certificate(api: Api, namespace: str) -> Certificate | None:
    """The certificate as it should be; None while the API doesn't let us know."""
    try:
        return await keep_certificate(api, namespace, datetime.now(UTC))
    except (ApiError, OSError, TimeoutError, aiohttp.ClientError, json.JSONDecodeError) as error:
        _log.warning("the webhook's certificate could not be looked after: %s; tried again", error)
        return None


def _load(context: ssl.SSLContext, held: Certificate) -> None:
    """Serve new connections with this certificate; Python takes it from a file only."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tls.pem"
        path.touch(0o600)
        path.write_text(held.key + held.certificate)
        context.load_cert_chain(path)
