"""Dead letters of several namespaces, with the streams that the operator makes and the ingest's own credentials."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import nats
import pytest
from fixtures.nats import ONE_ACCOUNT, nats_server
from nats.aio.client import Client, RawCredentials
from nats.js.api import DiscardPolicy, StreamConfig
from nats.js.errors import APIError, NotFoundError
from wisp_api import names
from wisp_api.route import DeadLetter
from wisp_events import log
from wisp_events.ingest.letters import Letters
from wisp_operator import nats_auth
from wisp_operator.config import OperatorConfig
from wisp_operator.log import EventLog

QUOTA = 200_000


@dataclass
class Post:
    """A log with accounts, as the operator, the router and the ingest are connected to it."""

    operator: Client
    router: Client
    letters: Letters
    control: EventLog

    async def bury(self, namespace: str, number: int, padding: int = 0) -> None:
        """Store a letter as the router does."""
        letter = DeadLetter(
            reason="r",
            message="x" * padding,
            time=str(number),
            namespace=namespace,
            subscription="sub",
            input=str(number),
        )
        await log.dead_letter(self.router.jetstream(timeout=60), letter)

    async def times(self, namespace: str) -> list[str]:
        """What `bury` numbered, as `wisp dead list` finds it."""
        return [letter.content.time async for letter in self.letters.following(namespace, None, 0)]

    async def share(self, *namespaces: str) -> None:
        """Make the stream of earlier versions, with a letter of each of these."""
        js = self.operator.jetstream(timeout=60)
        own = StreamConfig(subjects=["wisp.dead.>"], allow_direct=True, discard=DiscardPolicy.OLD, max_bytes=1 << 20)
        await js.add_stream(own, name=names.SHARED_LETTERS)
        for namespace in namespaces:
            letter = DeadLetter(reason="r", message="m", time=f"old {namespace}", namespace=namespace)
            subject = names.dead_letter_subject(namespace, "subscription", "sub")
            await js.publish(subject, msgspec.json.encode(letter))


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    """Before the operator has made anything."""
    seeds = {name: nats_auth.new_seed(prefix) for name, prefix in nats_auth.SEEDS.items()}
    with nats_server(tmp_path, nats_auth.make_server_config(seeds)) as server:
        clients = []
        for user in (nats_auth.operator_user(), nats_auth.router_user(), nats_auth.ingest_user()):
            credentials = RawCredentials(nats_auth.make_credentials(seeds[nats_auth.ACCOUNT], user))
            inbox = user.inbox.encode()
            clients.append(await nats.connect(server.url, user_credentials=credentials, inbox_prefix=inbox))
        operator, router, ingest = clients
        config = OperatorConfig(
            namespace="wisp-system", runtimes={}, events_image="", nats_url="", dead_letter_max_bytes=QUOTA
        )
        yield Post(operator, router, Letters(ingest), EventLog(operator, config))
        for client in clients:
            await client.close()


async def test_a_flood_of_letters_pushes_out_nobody_elses(post: Post) -> None:
    """One namespace writes many times what it may keep: its own oldest go, the other's letters stay."""
    for namespace in ("media", "shop"):
        await post.control.ensure_letters(namespace)
        await post.bury(namespace, 0)
    for number in range(1, 200):
        await post.bury("media", number, 10_000)
    assert await post.times("shop") == ["0"]
    kept = await post.times("media")
    assert 10 < len(kept) < 25
    assert kept[-1] == "199"


async def test_a_letter_that_is_too_large_pushes_out_none(post: Post) -> None:
    """The server refuses it, so that its writer keeps it until the stream is larger: taken, it would be dropped with all before it."""
    await post.control.ensure_letters("media")
    await post.bury("media", 0)
    with pytest.raises(log.LogUnavailable, match="size"):
        await post.bury("media", 1, QUOTA)
    assert await post.times("media") == ["0"]


async def test_a_full_log_keeps_fewer_letters(tmp_path: Path) -> None:
    """Where there is no room for the quota a stream is as large as there is room for, keeps what it holds, and grows when there is more."""
    quota = 16 << 20
    limited = f'jetstream {{ store_dir: "/data/small", max_file_store: 64MB }}\n{ONE_ACCOUNT}'
    with nats_server(tmp_path, limited) as server:
        client = await nats.connect(server.url)
        js = client.jetstream(timeout=60)
        await js.add_stream(name="events", subjects=["events"], max_bytes=55 << 20)
        config = OperatorConfig(
            namespace="wisp-system", runtimes={}, events_image="", nats_url="", dead_letter_max_bytes=quota
        )
        control, name = EventLog(client, config), names.dead_letter_stream("media")

        async def size() -> int | None:
            await control.ensure_letters("media")
            return (await js.stream_info(name)).config.max_bytes

        assert [await size(), await size()] == [4 << 20] * 2
        await js.delete_stream("events")
        assert await size() == quota
        await js.add_stream(name="events", subjects=["events"], max_bytes=48 << 20)
        with pytest.raises(APIError):
            await control.ensure_letters("shop")
        await client.close()


async def test_letters_of_before_stay_until_they_are_gone(post: Post) -> None:
    """After an upgrade each namespace has its old letters before its new ones, each under one number, and can drop them; their stream goes with the last."""
    await post.share("media", "shop", "media")
    for _ in range(2):  # the operator's start, and its restart
        await post.control.ensure_base()
    for namespace in ("media", "shop"):
        await post.control.ensure_letters(namespace)
        await post.bury(namespace, 1)
    assert await post.times("media") == ["old media", "old media", "1"]
    assert [letter.id async for letter in post.letters.following("media", "sub", 0)] == [1, 3, 4]
    assert [letter.id async for letter in post.letters.following("media", None, 1, until=3)] == [3]
    assert [await post.letters.last(namespace) for namespace in ("media", "none")] == [4, 3]
    assert await post.letters.one("media", 2) is None
    for number in (1, 3, 4):
        assert await post.letters.one("media", number)
        await post.letters.remove("media", number)
        await post.letters.remove("media", number)
    assert await post.times("media") == []
    assert await post.times("shop") == ["old shop", "1"]
    await post.letters.remove("shop", 2)
    await post.control.ensure_base()
    with pytest.raises(NotFoundError):
        await post.operator.jetstream(timeout=60).stream_info(names.SHARED_LETTERS)
    assert await post.times("shop") == ["1"]


async def test_a_namespaces_letters_outlive_its_subscriptions(post: Post) -> None:
    """Its stream goes when it is empty, or with the namespace; without one there are no letters."""
    await post.control.ensure_base()
    await post.control.ensure_letters("media")
    await post.bury("media", 1)
    await post.control.drop_letters("media", held=False)
    assert (await post.times("media"), await post.control.lettered()) == (["1"], {"media"})
    await post.letters.remove("media", 1)
    await post.control.drop_letters("media", held=False)
    assert (await post.times("media"), await post.control.lettered()) == ([], set())
    await post.control.ensure_letters("media")
    await post.bury("media", 2)
    await post.control.drop_letters("media", held=True)
    assert await post.letters.last("media") == 0
    await post.control.drop_letters("wisp-system", held=True)
    await post.bury("wisp-system", 1)
