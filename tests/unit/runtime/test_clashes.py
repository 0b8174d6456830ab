"""A user's modules and packages never meet ours, whatever they are called and whichever version they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

PACKAGES = (
    "httptools",
    "cloudevents",
    "typing_extensions",
    "wsproto",
    "websockets",
    "h11",
    "dateutil",
    "jwt",
    "cryptography",
    "anyio",
)
OURS = (
    "front",
    "logs",
    "function",
    "loop",
    "frames",
    "http1",
    "trace",
    "calls",
    "websocket",
    "errors",
    "settings",
    "worker",
)
STANDARD = (
    "json",
    "signal",
    "socket",
    "select",
    "struct",
    "base64",
    "hashlib",
    "traceback",
    "inspect",
    "queue",
    "logging",
    "typing",
)


def shadows(names: tuple[str, ...]) -> dict[str, str]:
    """Make modules that say whose they are, and have nothing else."""
    return {f"{name}.py": "MINE = True\n" for name in names}


def test_a_functions_own_packages_are_what_it_gets(serve: Callable[..., FunctionProcess]) -> None:
    """A function with other versions of every package that the runtime uses gets its own, and the runtime its own."""
    code = "".join(f"import {name}\n" for name in PACKAGES)
    code += f"def handler(event, context):\n    return [m.VERSION for m in ({', '.join(PACKAGES)})]\n"
    files = {"app.py": code} | {f"{name}/__init__.py": "VERSION = 0\n" for name in PACKAGES}
    function = serve(files)
    assert function.invoke({}).json == [0] * len(PACKAGES)
    assert function.event({"a": 1}).json == [0] * len(PACKAGES)


def test_an_apps_own_packages_are_what_it_gets(serve: Callable[..., FunctionProcess]) -> None:
    """The same for an ASGI app and its WebSockets' handshake."""
    code = (
        "".join(f"import {name}\n" for name in PACKAGES)
        + """
async def handler(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % httptools.VERSION})
"""
    )
    function = serve({"app.py": code} | {f"{name}/__init__.py": "VERSION = 0\n" for name in PACKAGES})
    assert function.request("/").body == b"0"
    fields = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    assert function.request("/", headers=fields | {"sec-websocket-key": "A" * 22 + "=="}).status == 403


@pytest.mark.parametrize("names", [OURS, STANDARD], ids=["ours", "standard"])
def test_modules_named_like_others_do_no_harm(serve: Callable[..., FunctionProcess], names: tuple[str, ...]) -> None:
    """A function's modules may have the names of the runtime's, and of the standard library's: errors are told all the same."""
    code = """
import sys
def handler(event, context):
    if event == "import":
        import front, trace
        return [front.MINE, trace.MINE]
    return event + 1
"""
    function = serve(shadows((*names, "front", "trace")) | {"app.py": code})
    assert function.invoke(1).json == 2
    failed = function.invoke("a")
    assert failed.json["errorType"] == "TypeError"
    assert ["app.py" in frame and "in handler" in frame for frame in failed.json["stackTrace"]] == [True]
    assert function.invoke("import").json == [True, True]
    assert function.request("/?a=1").status == 500
    assert function.invoke(1).json == 2


def test_a_function_may_bring_an_older_cloudevents(serve: Callable[..., FunctionProcess]) -> None:
    """A handler of CloudEvents beside which a 1.x of the SDK lies gets that one's class."""
    old = "class CloudEvent(dict):\n    def __init__(self, attributes, data):\n        super().__init__(attributes, time='now', data=data)\n"
    files = {"cloudevents/__init__.py": "", "cloudevents/http/__init__.py": old}
    code = "def handler(event):\n    return [type(event).__module__, event['id'], event['data'], 'time' in event]\n"
    assert serve(files | {"app.py": code}).event({"a": 1}).json == ["cloudevents.http", "1", {"a": 1}, False]
