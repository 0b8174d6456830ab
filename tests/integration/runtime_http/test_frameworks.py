"""FastAPI, Starlette and Mangum from PyPI work unchanged behind the front."""

from __future__ import annotations

import gzip
import json
import time
from typing import TYPE_CHECKING

import pytest
from unit.runtime.conftest import DEADLINE
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

FASTAPI = """
import asyncio, contextlib, os
from fastapi import BackgroundTasks, Cookie, Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel
from typing import Annotated

@contextlib.asynccontextmanager
async def lifespan(app):
    print("up")
    yield {"base": 40}
    print("down")

handler = FastAPI(lifespan=lifespan)
handler.add_middleware(GZipMiddleware, minimum_size=500)
handler.add_middleware(CORSMiddleware, allow_origins=["https://a.example"], allow_methods=["*"], allow_credentials=True)

class Item(BaseModel):
    name: str
    price: float

@handler.middleware("http")
async def add_header(request, call_next):
    response = await call_next(request)
    response.headers["x-through"] = "1"
    return response

@handler.get("/state")
async def state(request: Request, q: int = 2):
    return {"sum": request.state.base + q, "url": str(request.url), "client": request.client.host}

@handler.get("/threaded")
def threaded():
    return {"pid": os.getpid()}

@handler.post("/items", status_code=201)
def make(item: Item):
    return item

@handler.get("/missing")
def missing():
    raise HTTPException(404, "not here", {"x-why": "gone"})

@handler.get("/sore")
def sore():
    raise ValueError("sore")

@handler.get("/cookies")
def cookies(response: Response, c: Annotated[str, Cookie()] = ""):
    response.set_cookie("a", "1", httponly=True)
    response.set_cookie("b", "2", max_age=60)
    return c

@handler.post("/upload")
async def upload(file: Annotated[UploadFile, File()], note: Annotated[str, Form()]):
    data = await file.read()
    return {"name": file.filename, "type": file.content_type, "size": len(data), "sum": sum(data), "note": note}

@handler.get("/later")
def later(background: BackgroundTasks):
    async def work():
        await asyncio.sleep(0.2)
        print("worked")
    background.add_task(work)
    return "soon"

@handler.get("/stream")
def stream():
    return StreamingResponse((f"line {number}\\n" for number in range(3)), media_type="text/plain")

@handler.get("/sse")
async def sse():
    async def events():
        number = 0
        try:
            while True:
                yield f"data: {number}\\n\\n"
                number += 1
                await asyncio.sleep(0.01)
        finally:
            print("events ended")
    return StreamingResponse(events(), media_type="text/event-stream")

@handler.get("/big")
def big():
    return PlainTextResponse("x" * 10_000)

@handler.get("/file")
def file():
    return FileResponse(__file__, filename="app.txt")

@handler.get("/away")
def away():
    return RedirectResponse("/state")

@handler.websocket("/ws/{name}")
async def ws(socket: WebSocket, name: str, base: Annotated[int, Depends(lambda: 2)]):
    await socket.accept()
    await socket.send_json({"name": name, "sum": base + socket.state.base})
    async for text in socket.iter_text():
        await socket.send_text(text.upper())
    print("socket left")

sub = FastAPI(root_path="")
@sub.get("/x")
def in_sub(request: Request):
    return request.scope["root_path"] + request.url_for("in_sub").path
handler.mount("/sub", sub)
"""


@pytest.fixture(scope="module")
def fastapi(serve_shared: Callable[..., FunctionProcess]) -> FunctionProcess:
    """One FastAPI app for all tests that leave it as it is."""
    return serve_shared(FASTAPI, WISP_CONCURRENCY="8")


def test_fastapi_serves_requests(fastapi: FunctionProcess) -> None:
    """Lifespan state, validation, models, errors with headers, the schema and threads of plain handlers work."""
    answer = fastapi.request("/state?q=3", headers={"host": "fn.example"})
    assert answer.json == {"sum": 43, "url": "http://fn.example/state?q=3", "client": "127.0.0.1"}
    assert answer.headers["x-through"] == "1"
    fastapi.log(lambda line: line["message"] == "up")
    assert fastapi.request("/state?q=x").status == 422
    made = fastapi.request("/items", json.dumps({"name": "n", "price": 2}), {"content-type": "application/json"})
    assert (made.status, made.json) == (201, {"name": "n", "price": 2.0})
    missing = fastapi.request("/missing")
    assert (missing.status, missing.json, missing.headers["x-why"]) == (404, {"detail": "not here"}, "gone")
    assert fastapi.request("/threaded").json["pid"]
    assert fastapi.request("/openapi.json").json["openapi"]
    assert b"swagger" in fastapi.request("/docs").body
    assert fastapi.request("/sub/x").json == "/sub/sub/x"
    assert fastapi.request("/away").headers["location"] == "/state"


def test_fastapi_reports_errors(fastapi: FunctionProcess) -> None:
    """An exception is the framework's 500, and stands in the log with the user's stack under the request's id."""
    answer = fastapi.request("/sore")
    assert answer.status == 500
    line = fastapi.log(
        lambda line: line.get("requestId") == answer.headers["wisp-request-id"] and line["level"] == "ERROR"
    )
    assert "ValueError: sore" in line["message"]
    assert fastapi.request("/state").status == 200


def test_fastapi_middleware_cookies_and_methods(fastapi: FunctionProcess) -> None:
    """CORS preflights, compression, cookies both ways, HEAD and OPTIONS, files and ranges are answered as anywhere."""
    preflight = fastapi.request(
        "/items", headers={"origin": "https://a.example", "access-control-request-method": "POST"}, method="OPTIONS"
    )
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (200, "https://a.example")
    packed = fastapi.request("/big", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == b"x" * 10_000
    answer = fastapi.request("/cookies", headers={"cookie": "c=mine; d=2"})
    assert answer.json == "mine"
    assert answer.message.get_all("set-cookie") == [
        "a=1; HttpOnly; Path=/; SameSite=lax",
        "b=2; Max-Age=60; Path=/; SameSite=lax",
    ]
    head = fastapi.request("/file", method="HEAD")
    assert head.status in (200, 405)
    assert fastapi.request("/state", method="OPTIONS").status == 405
    part = fastapi.request("/file", headers={"range": "bytes=1-6"})
    assert (part.status, part.body) == (206, b"import")
    assert 'filename="app.txt"' in part.headers["content-disposition"]


def test_fastapi_takes_uploads(fastapi: FunctionProcess) -> None:
    """A multipart body with a file of a megabyte and a field is read as it was sent."""
    content = bytes(range(256)) * 4096
    edge = "edge"
    body = (
        (
            f'--{edge}\r\nContent-Disposition: form-data; name="note"\r\n\r\nhøy\r\n'
            f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\nContent-Type: image/png\r\n\r\n'
        ).encode()
        + content
        + f"\r\n--{edge}--\r\n".encode()
    )
    answer = fastapi.request("/upload", body, {"content-type": f"multipart/form-data; boundary={edge}"})
    assert answer.json == {
        "name": "a.bin",
        "type": "image/png",
        "size": len(content),
        "sum": sum(content),
        "note": "høy",
    }


def test_fastapi_works_on_after_its_answer(fastapi: FunctionProcess) -> None:
    """A background task runs after the answer is sent, under the request's id, and also when the caller has left."""
    begun = time.monotonic()
    answer = fastapi.request("/later")
    assert answer.json == "soon"
    worked = fastapi.log(lambda line: line["message"] == "worked")
    assert worked["requestId"] == answer.headers["wisp-request-id"]
    assert time.monotonic() - begun >= 0.2


def test_fastapi_streams(fastapi: FunctionProcess) -> None:
    """Streams come whole; an endless one of events comes as it is made, and ends when its caller leaves."""
    assert fastapi.request("/stream").body == b"line 0\nline 1\nline 2\n"
    connection = fastapi.connect()
    connection.request("GET", "/sse")
    response = connection.getresponse()
    assert response.headers["content-type"].startswith("text/event-stream")
    got = b""
    while got.count(b"\n\n") < 3:
        got += response.read1()
    assert got.startswith(b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
    response.close()
    connection.close()
    ended = fastapi.log(lambda line: line["message"] == "events ended")
    report = fastapi.log(lambda line: line.get("type") == "platform.report" and line["requestId"] == ended["requestId"])
    assert report["status"] == "success"
    assert not [
        line for line in fastapi.lines if line.get("requestId") == ended["requestId"] and line["level"] == "ERROR"
    ]


def test_fastapi_websocket(fastapi: FunctionProcess) -> None:
    """A WebSocket endpoint has its path, dependencies and the lifespan's state."""
    with connect(f"ws://127.0.0.1:{fastapi.port}/ws/me", open_timeout=DEADLINE) as client:
        assert json.loads(client.recv(DEADLINE)) == {"name": "me", "sum": 42}
        client.send("loud")
        assert client.recv(DEADLINE) == "LOUD"
    fastapi.log(lambda line: line["message"] == "socket left")


STARLETTE = """
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

class Page(HTTPEndpoint):
    async def get(self, request):
        return JSONResponse({"query": dict(request.query_params), "id": request.path_params["id"]})
    async def post(self, request):
        total = 0
        async for chunk in request.stream():
            total += len(chunk)
        return JSONResponse({"size": total, "gone": await request.is_disconnected()})

class Echo(WebSocketEndpoint):
    encoding = "json"
    async def on_receive(self, websocket, data):
        await websocket.send_json({"got": data})

async def proxied(scope, receive, send):
    await StreamingResponse(iter([b"a", b"b"]))(scope, receive, send)

handler = Starlette(routes=[
    Mount("/v1", routes=[Route("/page/{id:int}", Page)]), Mount("/raw", app=proxied), WebSocketRoute("/echo", Echo),
])
"""


def test_starlette(serve: Callable[..., FunctionProcess]) -> None:
    """Starlette's endpoints, mounts, streams and WebSockets work, in a pod of one event at a time."""
    function = serve(STARLETTE)
    assert function.request("/v1/page/7?a=%20b&c=").json == {"query": {"a": " b", "c": ""}, "id": 7}
    assert function.request("/v1/page/7", b"x" * 100_000).json == {"size": 100_000, "gone": False}
    assert function.request("/v1/page/7", method="HEAD").body == b""
    assert function.request("/v1/page/7", method="PATCH").status == 405
    assert function.request("/v1/page/x").status == 404
    assert function.request("/raw/").body == b"ab"
    with connect(f"ws://127.0.0.1:{function.port}/echo", open_timeout=DEADLINE) as client:
        client.send('{"n": 1}')
        assert json.loads(client.recv(DEADLINE)) == {"got": {"n": 1}}


HTTP = """
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
{prefix}def handler(request: Request):
    if request.url.path == "/json":
        response = JSONResponse({{"q": request.query_params["q"]}}, 201)
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response
    if request.url.path == "/stream":
        return StreamingResponse(iter(["a", "b"]), media_type="text/plain")
    return HTMLResponse("<p>")
"""


@pytest.mark.parametrize("prefix", ["", "async "])
def test_starlette_responses_of_http_handlers(serve: Callable[..., FunctionProcess], prefix: str) -> None:
    """A handler of signature http may return Starlette's responses, cookies and streams included."""
    function = serve(HTTP.format(prefix=prefix))
    answer = function.request("/json?q=1")
    assert (answer.status, answer.json, answer.headers["content-type"]) == (201, {"q": "1"}, "application/json")
    assert len(answer.message.get_all("set-cookie") or []) == 2
    assert function.request("/stream").body == b"ab"
    assert function.request("/").headers["content-type"] == "text/html; charset=utf-8"


MANGUM = """
from fastapi import FastAPI, Request, Response, UploadFile
from mangum import Mangum
app = FastAPI()

@app.get("/hello/{name}")
def hello(name: str, request: Request, response: Response, q: str = ""):
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return {"name": name, "q": q, "cookies": request.cookies, "agent": request.headers["user-agent"],
            "id": request.scope["aws.context"].aws_request_id}

@app.post("/bytes")
async def back(request: Request):
    return Response(await request.body(), media_type="image/png")

handler = Mangum(app)
"""


def test_mangum(serve: Callable[..., FunctionProcess]) -> None:
    """A FastAPI app in Mangum is a Lambda handler that gets function URL events: paths, cookies, bytes come through."""
    function = serve(MANGUM, WISP_SIGNATURE="lambda")
    headers = {"cookie": "c=3; d=4", "user-agent": "test", "wisp-request-id": "r-1"}
    answer = function.request("/hello/n%C3%B8?q=%20a", headers=headers)
    assert answer.json == {"name": "nø", "q": " a", "cookies": {"c": "3", "d": "4"}, "agent": "test", "id": "r-1"}
    assert len(answer.message.get_all("set-cookie") or []) == 2
    raw = bytes(range(256))
    answer = function.request("/bytes", raw, {"content-type": "application/octet-stream"})
    assert (answer.headers["content-type"], answer.body) == ("image/png", raw)
    assert function.request("/none").status == 404
