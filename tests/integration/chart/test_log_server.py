"""The log's server as the chart configures it, with the users that the operator mints."""

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats.errors
import pytest
import yaml
from fixtures.process import free_port, listens, server
from nats.aio.client import Client, RawCredentials
from wisp_cluster.build import binary
from wisp_operator import nats_auth

ROOT = Path(__file__).resolve().parents[3]
SEEDS = {name: nats_auth.new_seed(prefix) for name, prefix in nats_auth.SEEDS.items()}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The running server's URL."""
    command = [str(binary("helm")), "template", "wisp", str(ROOT / "charts" / "wisp"), "--kube-version", "1.30.0"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    (config,) = [
        one for one in yaml.safe_load_all(text) if one and one["kind"] == "ConfigMap" and "nats.conf" in one["data"]
    ]
    port = free_port()
    changes = {"4222": str(port), "8222": str(free_port()), "/data": str(tmp_path / "data")}
    rendered = config["data"]["nats.conf"]
    for old, new in changes.items():
        assert rendered.count(old) == 1
        rendered = rendered.replace(old, new)
    (tmp_path / "nats.conf").write_text(rendered)
    (tmp_path / "auth.conf").write_text(nats_auth.make_server_config(SEEDS, str(tmp_path / "accounts")))
    env = os.environ | {"SERVER_NAME": "wisp-nats-0"}
    with server(["nats-server", "-c", str(tmp_path / "nats.conf")], lambda: listens(port), tmp_path / "log", env):
        yield f"nats://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def connected(url: str, credentials: str | None, inbox: str = "_INBOX") -> AsyncIterator[Client]:
    """A connection with these credentials, as a pod makes it; closed also where the server refuses it."""
    client = Client()
    options: dict[str, Any] = {"user_credentials": RawCredentials(credentials)} if credentials else {}
    try:
        await client.connect(url, inbox_prefix=inbox, allow_reconnect=False, **options)
        yield client
    finally:
        await client.close()


async def test_server_takes_the_operators_users(url: str) -> None:
    """Operator, router and ingest connect with their credentials, and the log's storage is open to them."""
    for user in (nats_auth.operator_user(), nats_auth.router_user(), nats_auth.ingest_user()):
        credentials = nats_auth.make_credentials(SEEDS[nats_auth.ACCOUNT], user)
        async with connected(url, credentials, user.inbox) as client:
            assert (await client.jetstream(timeout=60).account_info()).streams == 0


@pytest.mark.parametrize("stranger", [None, "of another installation"])
async def test_server_refuses_others(url: str, stranger: str | None) -> None:
    """Nobody connects without credentials, or with those of another installation."""
    other = nats_auth.new_seed(nats_auth.SEEDS[nats_auth.ACCOUNT])
    credentials = nats_auth.make_credentials(other, nats_auth.operator_user()) if stranger else None
    with pytest.raises(nats.errors.Error):
        async with connected(url, credentials):
            pass
