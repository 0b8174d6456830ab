"""What a fetch Job says at its end of a server that says too much."""

import asyncio
import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from wisp_api import conditions
from wisp_api.code import ArchiveTask, FetchResult, FetchTask
from wisp_events.code import fetch
from wisp_operator.code_job import read_result

KUBELET_BYTES = 4096
"""Of a termination message, the end is kept."""
JOB = {"metadata": {"name": "fetch-hello", "uid": "1"}}


@contextlib.contextmanager
def s3(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """A server that always answers so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in (headers | {"content-length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def connection(folder: Path, endpoint: str) -> Path:
    """The mounted Secrets, of which one is for the server."""
    (folder / "my-s3").mkdir()
    for key, value in {"endpoint": endpoint, "accessKey": "user", "secretKey": "hunter2"}.items():
        (folder / "my-s3" / key).write_text(value)
    return folder


def wanted() -> FetchTask:
    """One archive."""
    archive = ArchiveTask(bucket="code", key="hello.zip", connection="my-s3")
    return FetchTask(namespace="shop", store="http://127.0.0.1:1", archives=[archive])


@pytest.mark.parametrize("text", ["x" * 60_000, "\N{SNOWMAN}" * 20_000, "&quot;" * 9_000, "\x7f" * 60_000])
def test_a_verdict_has_room_whatever_a_server_says(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes keeps 4096 bytes of it, and the operator reads what the server said."""
    verdict = tmp_path / "verdict"
    body = f"<Error><Code>MalformedRequest</Code><Message>{text}</Message></Error>".encode()
    with s3(400, body) as endpoint:
        monkeypatch.setenv("WISP_FETCH", msgspec.json.encode(wanted()).decode())
        monkeypatch.setenv("WISP_FETCH_CONNECTIONS", str(connection(tmp_path, endpoint)))
        monkeypatch.setenv("WISP_TERMINATION_LOG", str(verdict))
        with pytest.raises(SystemExit):
            asyncio.run(fetch.main(asyncio.Event()))
    kept = verdict.read_bytes()[-KUBELET_BYTES:].decode(errors="replace")
    terminated = {"state": {"terminated": {"message": kept}}}
    pod = {"metadata": {"ownerReferences": [{"uid": "1"}]}, "status": {"containerStatuses": [terminated]}}
    told = read_result(JOB, [pod], 1)
    assert told.reason == conditions.FETCH_FAILED
    assert "MalformedRequest" in told.message
    assert told.message.endswith("s3://code/hello.zip")


@pytest.mark.parametrize(
    ("etag", "kept"), [('"abc-2"', '"abc-2"'), ("x" * 300, ""), ("\u00ff" * 100, ""), ("\x01", "")]
)
def test_an_etag_is_one_that_the_verdict_has_room_for(
    etag: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one is left out, and the archive is there all the same."""
    monkeypatch.setattr(fetch, "_verify", lambda *_: ("0" * 64, 1))
    monkeypatch.setattr(fetch, "hand_over", lambda *_: None)
    token = tmp_path / "token"
    token.write_text("token")
    with s3(200, b"an archive", etag=etag) as endpoint:
        found = fetch.fetch(wanted(), connection(tmp_path, endpoint), token)
    assert [one.etag for one in found] == [kept]
    encoded = msgspec.json.encode(FetchResult(archives=found))
    assert msgspec.json.decode(encoded, type=FetchResult).archives == found
