"""A cluster of three NATS servers, as the chart's `nats.replicas: 3` makes one, with router and ingest at work while its leaders die."""

import asyncio
import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import nats
import nats.errors
import nats.js.errors
import pytest
from fixtures.function_server import FunctionServer, function_server
from fixtures.nats import NatsServer
from fixtures.process import free_port, listens, server
from fixtures.router_world import Router, eventually
from fixtures.tokens import Issuer, token_keys
from nats.aio.client import Client, RawCredentials
from wisp_api import names
from wisp_api.route import Route, Target
from wisp_api.source import Inbox
from wisp_operator import nats_auth
from wisp_operator.config import OperatorConfig
from wisp_operator.log import EventLog
from wisp_operator.nats_cluster import make_cluster_config

STREAM = names.stream("shop", "bus", "orders")


@dataclass
class Scene:
    """The servers, who works with them, and what was accepted."""

    servers: dict[str, NatsServer]
    control: EventLog
    client: Client
    function: FunctionServer
    url: str
    token: str

    async def leader(self) -> str:
        """Which server leads the bus' stream; waits until one does."""
        async with asyncio.timeout(90):
            while True:
                with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                    info = await self.client.jetstream(timeout=60).stream_info(STREAM)
                    if info.cluster and info.cluster.leader:
                        return str(info.cluster.leader)
                await asyncio.sleep(0.2)

    async def post(self, first: int) -> None:
        """Post ten events, again and again until they are accepted."""
        events = [
            {"specversion": "1.0", "id": str(number), "source": "/shop", "type": "t", "partitionkey": "k"}
            for number in range(first, first + 10)
        ]
        events[0]["data"] = "x" * 1_500_000  # fetched again, from any replica
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/cloudevents-batch+json"}
        request = urllib.request.Request(self.url, json.dumps(events).encode(), headers)
        async with asyncio.timeout(120):
            while not await asyncio.to_thread(accepted, request):  # noqa: ASYNC110 - other processes change what is asked
                await asyncio.sleep(0.2)


def accepted(request: urllib.request.Request) -> bool:
    """Whether the ingest took it; 503 and 429 say to try again."""
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status) == 202
    except urllib.error.HTTPError as error:
        with error:
            if error.code not in {429, 503}:
                raise AssertionError(error.read()) from None
        return False


@contextlib.contextmanager
def cluster(directory: Path, seeds: dict[str, str]) -> Iterator[dict[str, NatsServer]]:
    """Three servers, by name."""
    ports = [free_port() for _ in range(3)]
    peers = [f"127.0.0.1:{port}" for port in ports]
    made = {}
    with contextlib.ExitStack() as running:
        for number, peer in enumerate(peers):
            own = directory / f"nats-{number}"
            own.mkdir()
            routes = make_cluster_config(seeds, peers, peer)
            config = (
                f"server_name: nats-{number}\nserver_tags: nats-{number}\n{nats_auth.make_server_config(seeds)}{routes}"
            )
            made[f"nats-{number}"] = one = NatsServer(own, config)
            one.start()
            running.callback(one.stop)
        yield made


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A Subscription of a bus, what the operator makes for it, a router and an ingest."""
    seeds = {name: nats_auth.new_seed(prefix) for name, prefix in nats_auth.SEEDS.items()}
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    with cluster(tmp_path, seeds) as servers:
        urls, port, issuer = ",".join(one.url for one in servers.values()), free_port(), Issuer()
        env = {"WISP_NATS_URL": urls, "WISP_INGEST_PORT": str(port), "WISP_INGEST_TOKENS": str(tokens)}
        env |= {"WISP_HEALTH_PORT": str(free_port())}
        users = {
            user.name: user for user in (nats_auth.operator_user(), nats_auth.router_user(), nats_auth.ingest_user())
        }
        for name, user in users.items():
            (tmp_path / name).write_text(nats_auth.make_credentials(seeds[nats_auth.ACCOUNT], user))
        client, control = await connect(urls, (tmp_path / "operator").read_text())
        own = {name: {"WISP_NATS_CREDS": str(tmp_path / name), "WISP_NATS_INBOX": users[name].inbox} for name in users}
        router = Router("router-0", urls, tmp_path / "router.log", own["router"])
        command, log = [sys.executable, "-m", "wisp_events", "ingest"], tmp_path / "ingest.log"
        async with function_server() as function:
            await prepare(control, issuer, function)
            with server(command, lambda: listens(port), log, os.environ | env | own["ingest"]):
                router.start()
                url = f"http://127.0.0.1:{port}/v1/namespaces/shop/buses/orders/events"
                yield Scene(servers, control, client, function, url, issuer.token(namespace="shop"))
                router.kill()
        await client.close()


async def connect(urls: str, credentials: str) -> tuple[Client, EventLog]:
    """The operator's connection, once the cluster has made the base."""

    async def quiet(_: Exception) -> None:
        """Outages are the test's own doing."""

    client = await nats.connect(
        urls.split(","),
        user_credentials=RawCredentials(credentials),
        inbox_prefix=nats_auth.operator_user().inbox.encode(),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,
        error_cb=quiet,
    )
    config = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="", nats_url=urls, nats_replicas=3)
    control = EventLog(client, config)
    async with asyncio.timeout(120):
        while True:
            try:
                await control.ensure_base()
            except (nats.errors.Error, nats.js.errors.Error):
                await asyncio.sleep(0.5)
            else:
                return client, control


async def prepare(control: EventLog, issuer: Issuer, function: FunctionServer) -> None:
    """Stream, inbox, route and keys, as the operator writes them."""
    assert await control.ensure_streams("shop", {STREAM: names.stream_subjects("shop", "bus", "orders")}, {}) == {}
    await control.put(names.KV_SOURCES, names.TOKEN_KEYS, msgspec.json.encode(token_keys(issuer)))
    inbox = msgspec.json.encode(Inbox(stream=STREAM))
    await control.put(names.KV_SOURCES, names.inbox_key("bus", "shop", "orders"), inbox)
    route = Route(
        namespace="shop",
        name="sub",
        uid="u1",
        generation=1,
        stream=STREAM,
        subjects=[names.bus_subject("shop", "orders", "*", "*")],
        start="earliest",
        barriers=False,
        targets=[Target(url=function.url)],
    )
    await control.put(names.KV_ROUTES, "shop.sub", msgspec.json.encode(route))


async def test_a_lost_server_loses_nothing(scene: Scene) -> None:
    """What was accepted before, while and after the stream's leader died is delivered, in order; also when the next one dies after the first came back."""
    for first in range(0, 100, 10):
        await scene.post(first)
    lost = await scene.leader()
    posting = asyncio.create_task(scene.post(100))
    scene.servers[lost].kill()
    await posting
    for first in range(110, 200, 10):
        await scene.post(first)
    await eventually(lambda: len(set(scene.function.ids())) == 200, "all are delivered", 120)
    scene.servers[lost].start()
    await caught_up(scene)
    scene.servers[await scene.leader()].kill()
    for first in range(200, 250, 10):
        await scene.post(first)
    await eventually(lambda: len(set(scene.function.ids())) == 250, "all are delivered", 120)
    once = [int(one) for one in dict.fromkeys(scene.function.ids())]
    assert once == list(range(250))


async def caught_up(scene: Scene) -> None:
    """Wait until every replica of the stream has all of it."""
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                info = (await scene.client.jetstream(timeout=60).stream_info(STREAM)).cluster
                if info and info.replicas and all(one.current and not one.offline for one in info.replicas):
                    return
            await asyncio.sleep(0.2)


async def test_a_stream_that_no_server_tells_of_is_not_taken_for_gone(scene: Scene) -> None:
    """While the only server that has a stream is away, the list of streams is refused and not short; back again, it is whole."""
    wanted = {names.stream("lone", "bus", server): server for server in scene.servers}
    for name, own in wanted.items():
        subjects = [f"wisp.events.lone.bus.{own}.>"]
        config = {"name": name, "subjects": subjects, "storage": "file", "placement": {"tags": [own]}}
        answer = await scene.client.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode(), timeout=30)
        assert json.loads(answer.data)["cluster"]["leader"] == own
    assert await listed(scene) == wanted.keys()
    scene.servers["nats-0"].kill()
    async with asyncio.timeout(120):
        while (told := await listed(scene)) != "no server answers":
            assert isinstance(told, str) or told == wanted.keys()
    scene.servers["nats-0"].start()
    async with asyncio.timeout(120):
        while (told := await listed(scene)) != wanted.keys():
            assert isinstance(told, str)


async def listed(scene: Scene) -> set[str] | str:
    """The streams of the namespace `lone`, or why nobody tells."""
    try:
        return set(await scene.control.streams("lone"))
    except nats.errors.Error as error:
        await asyncio.sleep(0.2)
        return "no server answers" if "no server answers" in str(error) else "away"
