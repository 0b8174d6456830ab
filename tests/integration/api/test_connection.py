"""The connection to the log against real servers: rights that change under it, and a server that says nothing any more."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from fixtures.nats import NatsServer, nats_server
from nats.aio.client import Client
from nats.js.api import Header
from wisp_api import jetstream
from wisp_operator import nats_auth

SECONDS = 60


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that waits waits shortly."""
    for name, value in {"LOOK_SECONDS": 0.05, "SPREAD_SECONDS": 0.2, "PING_SECONDS": 1, "SILENT_SECONDS": 3}.items():
        monkeypatch.setattr(jetstream, name, value)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition, looking again and again."""
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110 - what it asks is another process
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[Client]:
    """A connection as all parts have it."""
    client = await jetstream.connect("test", **options)
    try:
        yield client
    finally:
        await client.close()


@contextlib.contextmanager
def mounted(directory: Path, content: str) -> Any:
    """A file as the kubelet mounts a Secret's, and what changes it: a link to a folder that is another then."""
    versions = iter(range(100))

    def write(content: str) -> None:
        version = directory / f"..{next(versions)}"
        version.mkdir()
        (version / "creds").write_text(content)
        link = directory / "..new"
        link.symlink_to(version.name)
        link.rename(directory / "..data")

    write(content)
    (directory / "creds").symlink_to("..data/creds")
    yield directory / "creds", write


def rights(*subjects: str) -> nats_auth.User:
    """A user who may publish these."""
    return nats_auth.User("part", list(subjects))


async def stored(client: Client, subject: str, identity: str = "") -> bool:
    """Publish a record; whether the log has acknowledged it."""
    headers = {Header.MSG_ID.value: identity} if identity else None
    try:
        await client.jetstream().publish(subject, b"", timeout=1, headers=headers)
    except (nats.errors.Error, OSError):
        return False
    return True


async def test_added_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights that the file has from now on work without a restart, and what is published meanwhile is stored, each record once."""
    seeds = {name: nats_auth.new_seed(prefix) for name, prefix in nats_auth.SEEDS.items()}
    seed, operator = seeds[nats_auth.ACCOUNT], nats_auth.operator_user()
    administrator = tmp_path / "operator.creds"
    administrator.write_text(nats_auth.make_credentials(seed, operator))
    before, after = (nats_auth.make_credentials(seed, rights(*allowed)) for allowed in (("a.>",), ("a.>", "b.>")))
    (tmp_path / "mount").mkdir()
    with (
        nats_server(tmp_path, nats_auth.make_server_config(seeds)) as server,
        mounted(tmp_path / "mount", before) as (file, write),
    ):
        monkeypatch.setenv("WISP_NATS_URL", server.url)
        own = {"user_credentials": str(administrator), "inbox_prefix": operator.inbox.encode()}
        monkeypatch.setenv("WISP_NATS_CREDS", str(file))
        monkeypatch.setenv("WISP_NATS_INBOX", rights().inbox)
        async with connected(**own) as admin, connected() as client:
            js = admin.jetstream(timeout=SECONDS)
            await js.add_stream(name="log", subjects=["a.>", "b.>"])
            assert not await stored(client, "b.1")
            over, published = asyncio.Event(), 0

            async def publish() -> None:
                nonlocal published
                while not over.is_set():
                    published += 1
                    while not await stored(client, "a.1", str(published)):
                        pass

            publishing = asyncio.create_task(publish())
            write(after)
            await eventually(lambda: stored(client, "b.1"))
            over.set()
            await publishing
            assert (await js.stream_info("log", subjects_filter="a.1")).state.subjects == {"a.1": published}


async def test_a_file_that_says_the_same(nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was written anew, was away, or is cut off leaves the connection alone."""
    monkeypatch.setenv("WISP_NATS_URL", nats.url)
    looks = 0
    look = jetstream._content  # noqa: SLF001 - how often it looked tells that it has

    def counted(file: Path) -> bytes:
        nonlocal looks
        looks += 1
        return look(file)

    async def looked_at(before: int) -> bool:
        return looks >= before + 3

    monkeypatch.setattr(jetstream, "_content", counted)
    file = tmp_path / "creds"
    content = nats_auth.make_credentials(nats_auth.new_seed(nats_auth.SEEDS[nats_auth.ACCOUNT]), rights())
    file.write_text(content)
    monkeypatch.setenv("WISP_NATS_CREDS", str(file))
    async with connected() as client:
        for change in (lambda: file.write_text(content), file.unlink, lambda: file.write_text(content[:200])):
            change()
            before = looks
            await eventually(lambda before=before: looked_at(before))  # type: ignore[misc]
        assert client.stats["reconnects"] == 0


async def test_a_silent_server(nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that neither reads nor ends the connection is left for another, however much waits to be sent to it."""

    async def send(client: Client) -> None:
        for _ in range(2):
            await client.publish("subject", bytes(20_000))

    async def moved() -> bool:
        return client.is_connected and client.connected_url is not None and client.connected_url.port == other.port

    (tmp_path / "other").mkdir()
    with nats_server(tmp_path / "other") as other:
        monkeypatch.setenv("WISP_NATS_URL", f"{nats.url},{other.url}")
        async with connected(dont_randomize=True) as client:
            assert client.connected_url
            assert client.connected_url.port == nats.port
            nats.pause()
            try:  # more than both ends of a connection hold, from more senders than nats-py's queue to its writer takes
                async with asyncio.timeout(SECONDS):
                    await asyncio.gather(*(send(client) for _ in range(1200)))
                await eventually(moved)
            finally:
                nats.resume()
