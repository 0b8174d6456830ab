"""Finding and importing a Node.js handler, its signature, and what is said when that fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fixtures.worker import FAILED, RESULT

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.worker import WorkerProcess

ESM = "export const handler = async () => 'esm';"
CJS = "exports.handler = async () => 'cjs';"
FOUND: list[tuple[dict[str, str], str, str]] = [
    ({"app.mjs": ESM}, "app.handler", "esm"),
    ({"app.cjs": CJS}, "app.handler", "cjs"),
    ({"app.js": CJS}, "app.handler", "cjs"),
    ({"app.js": ESM, "package.json": '{"type": "module"}'}, "app.handler", "esm"),
    ({"app.js": f"await null; {ESM}", "package.json": '{"type": "module"}'}, "app.handler", "esm"),
    ({"app.ts": "export const handler = async (): Promise<string> => 'ts';"}, "app.handler", "ts"),
    ({"src/api/app.js": CJS}, "src/api/app.handler", "cjs"),
    ({"src/app.js": ESM, "src/package.json": '{"type": "module"}'}, "./src/app.handler", "esm"),
    ({"app.js": CJS, "app/other.js": ""}, "app.handler", "cjs"),
    ({"app.js": "exports.api = { v1: { run: () => 'nested' } };"}, "app.api.v1.run", "nested"),
    ({"app.mjs": "export default async () => 'default'"}, "app.default", "default"),
    (
        {"app.js": "exports.handler = () => require('dep');", "node_modules/dep/index.js": "module.exports = 'dep';"},
        "app.handler",
        "dep",
    ),
    (
        {
            "app.mjs": "import dep from 'dep'; export const handler = () => dep;",
            "node_modules/dep/package.json": '{"name": "dep", "exports": "./main.mjs"}',
            "node_modules/dep/main.mjs": "export default 'esm dep';",
        },
        "app.handler",
        "esm dep",
    ),
]
BROKEN: list[tuple[str, dict[str, str], str, str, str]] = [
    ("", {"WISP_HANDLER": "app"}, "Runtime.MalformedHandlerName", "must be written as module.function", ""),
    ("", {"WISP_HANDLER": "../app.handler"}, "Runtime.MalformedHandlerName", "'../app.handler'", ""),
    ("", {"WISP_HANDLER": "nope.handler"}, "Runtime.ImportModuleError", "none of nope.js, nope.mjs, nope.cjs", ""),
    (
        "export const other = () => {}, x = 1;",
        {},
        "Runtime.HandlerNotFound",
        "Handler 'handler' of module 'app' is undefined or not exported; it exports: other",
        "",
    ),
    ("export const handler = 5;", {}, "Runtime.HandlerNotFound", "is not a function", ""),
    (
        "export const handler = (;",
        {},
        "Runtime.UserCodeSyntaxError",
        "Syntax error in module 'app': Unexpected token ';' (",
        "export const handler = (;",
    ),
    (
        "import 'data:text/javascript,let x = 1;let x;'; process.exit(7);",
        {},
        "Runtime.UserCodeSyntaxError",
        "Syntax error in module 'app': Identifier 'x' has already been declared (",
        "app.mjs, line ?",
    ),
    (
        "JSON.parse('{');",
        {},
        "Runtime.ImportModuleError",
        "Unable to import module 'app': SyntaxError: Expected property name",
        "app.mjs:1",
    ),
    (
        "import 'nope';",
        {},
        "Runtime.ImportModuleError",
        "Unable to import module 'app': Error: Cannot find package",
        "",
    ),
    (
        "throw new TypeError('at import');",
        {},
        "Runtime.ImportModuleError",
        "Unable to import module 'app': TypeError: at import",
        "app.mjs:1:7",
    ),
    ("process.exit(0);", {}, "Runtime.ExitError", "Module 'app' called process.exit(0) while it was imported", ""),
    ("await new Promise(() => {});", {}, "Runtime.InitTimeout", "nothing is left that could settle it", ""),
    (
        "await new Promise((r) => setTimeout(r, 60000));",
        {"WISP_INIT_TIMEOUT_SECONDS": "0.2"},
        "Runtime.InitTimeout",
        "Module 'app' was not imported within 0.2 seconds",
        "",
    ),
    (
        "setTimeout(() => { throw new Error('aside'); }); await new Promise((r) => setTimeout(r, 60000));",
        {},
        "Runtime.ImportModuleError",
        "Error: aside",
        "app.mjs",
    ),
    ("export const handler = () => {};", {"WISP_SIGNATURE": "asgi"}, "Runtime.HandlerSignatureError", "not asgi", ""),
    (
        "export const handler = { fetch() {} };",
        {"WISP_SIGNATURE": "lambda"},
        "Runtime.HandlerSignatureError",
        "which is signature http",
        "",
    ),
]
SIGNATURES = [
    ("(event) => {}", "lambda"),
    ("() => {}", "lambda"),
    ("async ({ body }, context) => {}", "lambda"),
    ("function named(e, ctx, done) {}", "lambda"),
    ("awslambda.streamifyResponse(async (request, stream) => {})", "lambda"),
    ("async (cloudEvent) => {}", "cloudevent"),
    ("async function (ce) {}", "cloudevent"),
    ("(request) => {}", "http"),
    ("request => {}", "http"),
    ("async request => {}", "http"),
    ("async function handle(/* the request */ req, res) {}", "http"),
    ("{ handle(request = {}) {} }.handle", "http"),
    ("{ async fetch(r) {} }", "http"),
]


@pytest.mark.parametrize(("files", "handler", "wanted"), FOUND)
def test_found(run: Callable[..., WorkerProcess], files: dict[str, str], handler: str, wanted: str) -> None:
    """Each kind of module, nested folders and names, and packages beside the code are found as Lambda finds them."""
    worker = run(files, WISP_HANDLER=handler)
    frame = worker.call()
    assert (frame.kind, frame.json) == (RESULT, wanted)
    assert worker.log() == []


@pytest.mark.parametrize(("code", "environment", "error_type", "message", "stack"), BROKEN)
def test_broken(
    start: Callable[..., WorkerProcess],
    code: str,
    environment: dict[str, str],
    error_type: str,
    message: str,
    stack: str,
) -> None:
    """What keeps the handler from starting is told with its place, and ends the worker."""
    worker = start(code, **environment)
    frame = worker.receive()
    assert (frame.kind, frame.number, frame.head["errorType"]) == (FAILED, 0, error_type)
    assert message in frame.head["errorMessage"]
    assert stack in "".join(frame.head["stackTrace"])
    assert "function-runtime" not in json.dumps(frame.head)
    assert worker.end() == 1


@pytest.mark.parametrize(("handler", "wanted"), SIGNATURES)
def test_signature(start: Callable[..., WorkerProcess], handler: str, wanted: str) -> None:
    """With signature auto the handler's parameters tell its form, and what may be a Lambda handler is one."""
    frame = start(f"export const handler = {'(' if handler[0] == '{' else ''}{handler}".replace("} }", "} })")).ready()
    assert frame.head == {"signature": wanted, "concurrency": 1, "spare": True}


def test_layers(run: Callable[..., WorkerProcess], tmp_path: object) -> None:
    """CommonJS and ES modules find the packages of layers, which NODE_PATH names, behind those beside the code."""
    for name in ("layer", "both"):
        folder = f"{tmp_path}/opt/nodejs/node_modules/{name}"
        run_files = {
            "package.json": f'{{"name": "{name}", "main": "index.js"}}',
            "index.js": "module.exports = 'layer';",
        }
        write(folder, run_files)
    own = {"node_modules/both/index.js": "module.exports = 'own';"}
    environment = {"NODE_PATH": f"/nowhere/node_modules:{tmp_path}/opt/nodejs/node_modules"}
    imports = "import layer from 'layer'; import both from 'both'; export const handler = () => layer + both;"
    assert run({"app.mjs": imports, **own}, **environment).call().json == "layerown"
    requires = "exports.handler = () => require('layer') + require('both');"
    assert run({"app.js": requires, **own}, **environment).call().json == "layerown"


def write(folder: str, files: dict[str, str]) -> None:
    """Write files into a new folder."""
    from pathlib import Path  # noqa: PLC0415

    Path(folder).mkdir(parents=True)
    for name, text in files.items():
        (Path(folder) / name).write_text(text)
