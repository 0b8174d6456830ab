"""From a zip in the user's bucket to a function that answers: fetch Job, store and runtime as real processes."""

import contextlib
import hashlib
import http.server
import io
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fixtures.code_store import CodeStore, Tenant, code_store, make_zip
from fixtures.minio import MinioServer
from fixtures.node import worker_command
from unit.runtime.conftest import FunctionProcess

Start = Callable[..., FunctionProcess]
Upload = Callable[[str, bytes], None]
BOOTSTRAP = f"""#!{sys.executable} -S
import http.client, os
api, path = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"]), "/2018-06-01/runtime/invocation/"
while True:
    api.request("GET", path + "next")
    event = api.getresponse()
    answer = event.read()
    api.request("POST", path + event.headers["lambda-runtime-aws-request-id"] + "/response", answer)
    api.getresponse().read()
"""
APP = "def handler(event, context):\n    return 'from the zip'\n"


def source(key: str, **fields: Any) -> dict[str, Any]:
    """An object of the user's bucket, as a fetch Job is told of it."""
    return {"bucket": "code", "key": key, "connection": "my-s3", **fields}


def fetched(tenant: Tenant, upload: Upload, files: Mapping[str, str | bytes], **options: Any) -> str:
    """Upload an archive and have it fetched; its SHA-256."""
    data = make_zip(files, **options)
    upload("app.zip", data)
    result = tenant.fetch(source("app.zip"))
    assert result["status"] == 0, result
    sha256: str = result["archives"][0]["sha256"]
    assert sha256 == hashlib.sha256(data).hexdigest()
    return sha256


def test_zip_runs(tenant: Tenant, upload: Upload, serve: Start) -> None:
    """A handler in a zip answers, and finds its folder under LAMBDA_TASK_ROOT, with packages and files in folders."""
    code = (
        "import os, pkg.inner\ndef handler(event, context):\n"
        "    return [pkg.inner.WHO, open(os.environ['LAMBDA_TASK_ROOT'] + '/data/x.txt').read(), oct(os.stat('app.py').st_mode)]\n"
    )
    files = {"app.py": code, "pkg/__init__.py": "", "pkg/inner.py": "WHO = 'inner'", "data/x.txt": "text"}
    digest = fetched(tenant, upload, files)
    answer = serve({}, **tenant.code_env(digest)).invoke({})
    assert answer.json == ["inner", "text", "0o100444"]


def test_zip_runs_on_node(tenant: Tenant, upload: Upload, serve: Start) -> None:
    """A Node.js handler in a zip answers, and imports what lies beside it and in node_modules."""
    code = "import {a} from './lib/a.mjs'; import b from 'b';\nexport const handler = async () => [a, b];\n"
    package = {"node_modules/b/package.json": '{"main": "b.js"}', "node_modules/b/b.js": "module.exports = 'b'"}
    digest = fetched(tenant, upload, {"app.mjs": code, "lib/a.mjs": "export const a = 'a'"} | package)
    answer = serve({}, **tenant.code_env(digest), WISP_WORKER=shlex.join(worker_command())).invoke({})
    assert answer.json == ["a", "b"]


@pytest.mark.parametrize("where", ["code", "layer"])
def test_zip_runs_on_provided(tenant: Tenant, upload: Upload, serve: Start, tmp_path: Path, where: str) -> None:
    """A bootstrap is executed where a zip brings it, with the code or in a layer."""
    digests = [
        fetched(tenant, upload, files, executable=frozenset({"bootstrap"}))
        for files in ({"bootstrap": BOOTSTRAP}, {"other.txt": ""})
    ]
    code, layer = digests if where == "code" else digests[::-1]
    (tmp_path / "opt").mkdir()
    environment = tenant.code_env(code, (layer,), tmp_path / "opt")
    answer = serve({}, **environment, WISP_WORKER=f"{sys.executable} -m wisp_runtime.bridge").invoke({"n": 1})
    assert answer.json == {"n": 1}


def test_layers_lie_in_order(tenant: Tenant, upload: Upload, serve: Start, tmp_path: Path) -> None:
    """Layers are unpacked one over the other: the later one's file counts, both are importable, executables are on PATH."""
    first = {"python/one.py": "N = 1", "python/both.py": "N = 1", "bin/tool": "#!/bin/sh\necho first"}
    second = {"python/two.py": "N = 2", "python/both.py": "N = 2", "bin/tool": "#!/bin/sh\necho second", "lib/x.so": ""}
    layers = [fetched(tenant, upload, files, executable=frozenset({"bin/tool"})) for files in (first, second)]
    opt = tmp_path / "opt"
    opt.mkdir()
    code = (
        "import one, two, both, os, subprocess\ndef handler(event, context):\n"
        "    told = subprocess.run(['tool'], capture_output=True, text=True).stdout.strip()\n"
        "    return [one.N, two.N, both.N, told, os.environ['LD_LIBRARY_PATH']]\n"
    )
    answer = serve(code, **tenant.code_env("", tuple(layers), opt)).invoke({})
    assert answer.json == [1, 2, 2, "second", f"{opt}/lib"]


def test_what_an_earlier_container_left_is_replaced(tenant: Tenant, upload: Upload, serve: Start) -> None:
    """A container that starts again in the same pod finds the code as it was, not what the function added beside it."""
    digest = fetched(tenant, upload, {"app.py": APP, "deep/er/x.py": ""})
    first = serve({}, **tenant.code_env(digest))
    first.stop()
    (first.folder / "left.py").write_text("")
    second = FunctionProcess(
        first.folder, {"WISP_HANDLER": "app.handler"} | tenant.code_env(digest), ("-m", "wisp_runtime"), ()
    )
    try:
        assert second.ready().invoke({}).json == "from the zip"
        assert not (first.folder / "left.py").exists()
    finally:
        second.stop()


def test_another_namespace_reads_nothing(tenant: Tenant, upload: Upload, store: CodeStore, start: Start) -> None:
    """A pod with another namespace's capability is refused, and so is one without any; the reason names the Secret."""
    digest = fetched(tenant, upload, {"app.py": APP})
    stranger = Tenant(tenant.directory.parent / "stranger", store, f"{tenant.namespace}-stranger")
    environment = tenant.code_env(digest) | {"WISP_CODE_TOKEN": str(stranger.path("read"))}
    function = start({}, **environment)
    assert function.exit_status() == 1
    said = function.termination_log.read_text()
    assert said.startswith("Runtime.CodeRefused: ")
    assert "wisp-code" in said
    own = start({}, **stranger.code_env(digest))
    assert own.exit_status() == 1
    assert own.termination_log.read_text().startswith("Runtime.CodeNotFound: ")


def test_changed_bytes_are_never_unpacked(tenant: Tenant, upload: Upload, minio: MinioServer, start: Start) -> None:
    """Bytes in the store's bucket that don't have the digest end the start before anything is written."""
    digest = fetched(tenant, upload, {"app.py": APP})
    other = make_zip({"app.py": "other"})
    minio.client().put_object("wisp-code", f"{tenant.namespace}/{digest}", io.BytesIO(other), len(other))
    function = start({}, **tenant.code_env(digest))
    assert function.exit_status() == 1
    assert function.termination_log.read_text().startswith("Runtime.CodeMismatch: ")
    assert list(function.folder.iterdir()) == []


def test_store_that_is_away_is_waited_for(tenant: Tenant, upload: Upload, minio: MinioServer, start: Start) -> None:
    """A pod that starts while the store is away goes on when it is back."""
    digest = fetched(tenant, upload, {"app.py": APP})
    with code_store(tenant.directory / "second", minio) as second:
        second.stop()
        environment = tenant.code_env(digest) | {"WISP_CODE_URL": f"{second.url}/v1/code/{tenant.namespace}"}
        function = start({}, **environment)
        time.sleep(1)  # the function's first tries find nobody
        second.start()
        assert function.ready().invoke({}).json == "from the zip"


def test_answer_that_breaks_off_is_asked_for_again(tenant: Tenant, start: Start) -> None:
    """A download that ends before its end is no wrong archive: the pod tries again."""
    data = make_zip({"app.py": APP})
    parts = [data[:10], data]

    class HalfFirst(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(parts.pop(0))

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), HalfFirst) as server:
        threading.Thread(target=server.serve_forever).start()
        digest = hashlib.sha256(data).hexdigest()
        environment = tenant.code_env(digest) | {"WISP_CODE_URL": f"http://127.0.0.1:{server.server_port}"}
        try:
            assert start({}, **environment).ready().invoke({}).json == "from the zip"
        finally:
            server.shutdown()
    assert parts == []


def begin_upload(tenant: Tenant) -> socket.socket:
    """A connection on which the beginning of an archive was sent."""
    request = (
        f"PUT /v1/code/{tenant.namespace}/{'0' * 64} HTTP/1.1\r\nhost: store\r\ncontent-length: 100000\r\n"
        f"authorization: Bearer {tenant.path('write').read_text()}\r\n\r\nPK"
    )
    connection = socket.create_connection(("127.0.0.1", tenant.store.port))
    connection.sendall(request.encode())
    return connection


def test_slow_uploads_of_one_namespace_hold_up_no_other(tenant: Tenant, upload: Upload, store: CodeStore) -> None:
    """A namespace that sends archives slowly takes one of the store's turns, not all."""
    slow = Tenant(tenant.directory.parent / "slow", store, f"{tenant.namespace}-slow")
    with contextlib.ExitStack() as held:
        for _ in range(4):
            held.enter_context(begin_upload(slow))
        fetched(tenant, upload, {"app.py": APP})


def test_uploads_that_trickle_give_their_turns_to_who_waits(tenant: Tenant, upload: Upload, store: CodeStore) -> None:
    """However many namespaces keep them alive with a byte now and then."""
    names = [f"{tenant.namespace}-slow{number}" for number in range(2)]
    slow = [Tenant(tenant.directory.parent / name, store, name) for name in names]
    ended = threading.Event()

    def trickle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not ended.wait(0.5):
                connection.sendall(b"x")

    with contextlib.ExitStack() as held:
        connections = [held.enter_context(begin_upload(one)) for one in slow]
        threads = [threading.Thread(target=trickle, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        try:
            fetched(tenant, upload, {"app.py": APP})
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def test_sigterm_while_waiting_ends_at_once(tenant: Tenant, start: Start) -> None:
    """A pod that is taken away while its code is being fetched does not wait for the store."""
    environment = tenant.code_env("0" * 64) | {"WISP_CODE_URL": "http://127.0.0.1:1/v1/code/x"}
    function = start({}, **environment)
    children = Path(f"/proc/{function.process.pid}/task/{function.process.pid}/children")
    deadline = time.monotonic() + 60
    while not children.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    function.process.terminate()
    assert function.exit_status() in {0, -15}


def test_same_object_is_not_fetched_twice(tenant: Tenant, upload: Upload) -> None:
    """A fetch that is told the ETag of last time leaves it at asking; a changed object is another archive."""
    upload("moving.zip", make_zip({"app.py": APP}))
    first = tenant.fetch(source("moving.zip"))["archives"][0]
    known = source("moving.zip", etag=first["etag"], fetched=first["sha256"], unpacked=first["unpacked"])
    again = tenant.fetch(known)
    assert again["archives"] == [first]
    assert "is unchanged" in again["log"]
    upload("moving.zip", make_zip({"app.py": "changed"}))
    changed = tenant.fetch(known)["archives"][0]
    assert changed["sha256"] != first["sha256"]


def test_a_version_is_fetched_though_a_newer_one_is_there(tenant: Tenant, minio: MinioServer) -> None:
    """With versionId it is that version."""
    from minio.commonconfig import ENABLED  # noqa: PLC0415 - used here only
    from minio.versioningconfig import VersioningConfig  # noqa: PLC0415

    client = minio.client()
    if not client.bucket_exists("versions"):
        client.make_bucket("versions")
    client.set_bucket_versioning("versions", VersioningConfig(ENABLED))
    old, new = make_zip({"app.py": "old"}), make_zip({"app.py": "new"})
    version = client.put_object("versions", "a b+c.zip", io.BytesIO(old), len(old)).version_id
    client.put_object("versions", "a b+c.zip", io.BytesIO(new), len(new))
    wanted = {"bucket": "versions", "key": "a b+c.zip", "connection": "my-s3"}
    digests = [tenant.fetch(wanted | extra)["archives"][0]["sha256"] for extra in ({}, {"versionId": version})]
    assert digests == [hashlib.sha256(data).hexdigest() for data in (new, old)]


@pytest.mark.parametrize(
    ("reason", "wanted", "says"),
    [
        ("CodeNotFound", source("missing.zip"), "upload it"),
        ("BucketNotFound", source("x.zip") | {"bucket": "nobody-has-it"}, "nobody-has-it"),
        ("SecretNotFound", source("x.zip") | {"connection": "gone"}, "create it with endpoint"),
        ("HashMismatch", source("good.zip", sha256="0" * 64), "has SHA-256"),
        ("InvalidArchive", source("text.zip"), "zip archive"),
        ("UnsafeArchive", source("evil.zip"), "leads out"),
        ("AuthenticationFailed", source("good.zip") | {"connection": "wrong"}, "Secret wrong"),
        ("InvalidConnection", source("good.zip") | {"connection": "empty"}, "endpoint"),
        ("InvalidConnection", source("good.zip") | {"connection": "leaky"}, "write http(s)://host:port"),
        ("InvalidConnection", source("good.zip") | {"connection": "nameless"}, "write http(s)://host:port"),
    ],
)
def test_what_is_wrong_is_told(tenant: Tenant, upload: Upload, reason: str, wanted: dict[str, Any], says: str) -> None:
    """Each fault has its constant and a sentence with the cure, and nothing reaches the store."""
    upload("good.zip", make_zip({"app.py": APP}))
    upload("text.zip", b"this is text")
    upload("evil.zip", make_zip({"../evil.py": ""}))
    tenant.connect("wrong", secretKey="not-the-key")
    tenant.connect("empty", endpoint="")
    tenant.connect("nameless", endpoint=f"http://{'a' * 64}.example.com:9000")
    tenant.connect("leaky", endpoint="http://me:not-the-key@host:9000")
    result = tenant.fetch(wanted)
    assert (result["reason"], result["status"]) == (reason, 1), result
    assert says in result["message"]
    assert not [key for key in tenant.store.archives() if key.startswith(f"{tenant.namespace}/")]
    assert "not-the-key" not in result["log"] + result["message"]


def test_archives_share_the_limit(tenant: Tenant, upload: Upload) -> None:
    """Code and layers together may take 250 MiB, as in AWS Lambda, be they fetched now or known from before."""
    noise = os.urandom(1 << 14) * 64
    upload("half.zip", make_zip({f"{number}.bin": noise for number in range(130)}))
    result = tenant.fetch(source("half.zip"), source("half.zip"))
    assert result["reason"] == "CodeTooLarge"
    assert "120 MiB" in result["message"]
    first = tenant.fetch(source("half.zip"))["archives"][0]
    assert first["unpacked"] == 130 << 20
    known = source("half.zip", etag=first["etag"], fetched=first["sha256"], unpacked=first["unpacked"])
    assert tenant.fetch(known, source("half.zip"))["reason"] == "CodeTooLarge"
