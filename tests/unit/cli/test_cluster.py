"""What the command does with an answer that leads elsewhere."""

import http.server
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from wisp.cluster import FUNCTION, Cluster
from wisp.errors import CommandError


class Server(http.server.ThreadingHTTPServer):
    """Answers everything by leading to `target`, or with 200 where there is none."""

    def __init__(self) -> None:
        """Listen."""
        self.asked: list[tuple[str, str]] = []
        self.target = ""
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told = " ".join(filter(None, (self.headers[name] for name in ("authorization", "wisp-authorization"))))
                server.asked.append((self.path, told))
                self.send_response(302 if server.target else 200)
                self.send_header("location", server.target)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    """The cluster's API server, and the one that it leads to."""
    api, other = Server(), Server()
    api.target = f"{other.url}/elsewhere"
    yield api, other
    for server in (api, other):
        server.shutdown()
        server.server_close()


def test_no_answer_leads_elsewhere(
    servers: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function's redirect is its answer; neither its caller's token nor the kubeconfig's goes where it points."""
    api, other = servers
    config = tmp_path / "kubeconfig"
    config.write_text(
        f"{{clusters: [{{name: a, cluster: {{server: '{api.url}'}}}}], users: [{{name: a, user: {{token: mine}}}}], "
        "contexts: [{name: a, context: {cluster: a, user: a}}], current-context: a}"
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    cluster = Cluster("media")
    request = urllib.request.Request("http://function", headers={"Wisp-Authorization": "Bearer its"})
    with cluster.proxy("media", "hello:80", request, "/", 10) as answer:
        assert (answer.status, answer.headers["location"]) == (302, api.target)
    with pytest.raises(CommandError):
        cluster.get(FUNCTION, "hello")
    assert [told for _, told in api.asked] == ["Bearer mine Bearer its", "Bearer mine"]
    assert other.asked == []
