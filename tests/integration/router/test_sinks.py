"""Deliveries to targets that are no Functions: any host, over TLS, and never where they may not go."""

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fixtures.router_world import event, world
from wisp_api.route import Retry, Target
from wisp_events.router import dial, reach
from wisp_events.router.client import Client
from wisp_events.router.request import address
from wisp_events.router.verdict import Answer, Failure, Outcome


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client."""
    made = Client()
    yield made
    await made.close()


async def post(client: Client, url: str, where: str = "", service: str = "") -> Outcome:
    """One request."""
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    to = address(url, where, service)
    client.send(to, to.head + b"content-length: 0\r\n\r\n", 30, outcome.set_result)
    async with asyncio.timeout(60):
        return await outcome


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


async def test_a_name_is_resolved_once_and_that_address_is_called(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads elsewhere when it is asked again leads nowhere: the checked address is connected to."""
    server = await asyncio.start_server(answer, "127.0.0.2", 0)
    port, asked = server.sockets[0].getsockname()[1], 0

    def rebinding(host: str, _: Any, family: int, *__: Any, **___: Any) -> list[Any]:
        nonlocal asked
        assert host == "hooks.example.com.", "a pod's search list must not complete it"
        if family == socket.AF_INET6:
            raise socket.gaierror(socket.EAI_NODATA, "none of this family")
        asked += 1
        where = "127.0.0.2" if asked == 1 else "127.0.0.3"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (where, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(reach, "refusal", lambda found, _: "" if found == "127.0.0.2" else "refused")
    url = f"http://hooks.example.com:{port}/"
    assert await post(client, url, reach.PUBLIC) == Answer(204)
    outcome = await post(client, url, reach.PUBLIC)
    assert isinstance(outcome, Failure)
    assert "resolves to 127.0.0.3, refused" in outcome.message
    server.close()


Answers = dict[tuple[str, int], tuple[str, str]]


def dns(answers: Answers) -> Any:
    """A name server: the name in the end and its address, by name and family."""

    def look_up(host: str, _: Any, family: int, *__: Any, **___: Any) -> list[Any]:
        if (host, family) not in answers:
            raise socket.gaierror(socket.EAI_NODATA, "no address")
        name, where = answers[host, family]
        return [(family, socket.SOCK_STREAM, 6, name, (where, 0))]

    return look_up


@pytest.mark.parametrize("silent", [socket.AF_INET, socket.AF_INET6])
async def test_a_family_that_is_asked_for_in_vain_hides_no_address(
    client: Client, monkeypatch: pytest.MonkeyPatch, silent: int
) -> None:
    """A name server that answers for the one family of addresses and not for the other costs no delivery."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    ends, name = threading.Event(), "hooks.example.com"
    there = dns({(f"{name}.", family): (name, "127.0.0.1") for family in (socket.AF_INET, socket.AF_INET6)})

    def look_up(host: str, port: Any, family: int, *rest: Any, **named: Any) -> list[Any]:
        if family == silent:
            ends.wait(120)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return list(there(host, port, family, *rest, **named))

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(reach, "refusal", lambda *_: "")
    try:
        for _ in range(2):
            assert await post(client, f"http://{name}:{server.sockets[0].getsockname()[1]}/", reach.PUBLIC) == Answer(
                204
            )
    finally:
        ends.set()
    server.close()


@pytest.mark.parametrize("where", [reach.CLUSTER, reach.FUNCTION])
async def test_a_service_that_became_another_name_is_not_called(
    client: Client, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Even before the operator looks again, also by the one family of addresses alone, and of a Function as of a sink."""
    name, v4, v6 = "hook.shop.svc.cluster.local", socket.AF_INET, socket.AF_INET6
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://{name}:{server.sockets[0].getsockname()[1]}/"
    monkeypatch.setattr(reach, "refusal", lambda *_: "")
    there: Answers = {(f"{name}.", v4): (name, "127.0.0.1")}
    monkeypatch.setattr(socket, "getaddrinfo", dns(there))
    assert await post(client, url, where, name) == Answer(204)
    elsewhere = ("api.corp.example", "127.0.0.1")
    changed: list[Answers] = [{(f"{name}.", v4): elsewhere}, there | {(f"{name}.", v6): (elsewhere[0], "::1")}]
    for answers in changed:
        monkeypatch.setattr(socket, "getaddrinfo", dns(answers))
        outcome = await post(client, url, where, name)
        assert isinstance(outcome, Failure)
        assert f"{name} is another name for api.corp.example" in outcome.message
    server.close()


async def test_an_alias_is_reached_as_the_service_that_the_operator_found(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the alias leads to by now is not asked; the request still names the alias, by which a gateway tells its hosts apart."""
    heads: list[bytes] = []

    async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(gateway, "127.0.0.1", 0)
    port, name = server.sockets[0].getsockname()[1], "gateway.system.svc.cluster.local"
    monkeypatch.setattr(reach, "refusal", lambda *_: "")
    monkeypatch.setattr(socket, "getaddrinfo", dns({(f"{name}.", socket.AF_INET): (name, "127.0.0.1")}))
    assert await post(client, f"http://shop.media.svc:{port}/", reach.CLUSTER, name) == Answer(204)
    assert f"host: shop.media.svc:{port}".encode() in heads[0]
    server.close()


async def test_an_address_that_is_dead_does_not_hide_the_next(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that never answers, whose patience would be that of the whole connection, nor one that refuses."""
    server = await asyncio.start_server(answer, "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    silent = socket.create_server(("127.0.0.3", port), backlog=0)
    full = [socket.socket() for _ in range(4)]  # more than its queue takes: it answers no further SYN
    for one in full:
        one.settimeout(0)
        one.connect_ex(("127.0.0.3", port))

    def several(_: str, __: Any, family: int, *___: Any, **____: Any) -> list[Any]:
        if family == socket.AF_INET6:
            raise socket.gaierror(socket.EAI_NODATA, "none of this family")
        return [(family, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", 0)) for last in (3, 4, 2)]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    monkeypatch.setattr(reach, "refusal", lambda *_: "")
    for where in ("", reach.PUBLIC):
        assert await post(client, f"http://hooks.example.com:{port}/", where) == Answer(204)
    for one in (silent, *full):
        one.close()
    server.close()


async def test_redirects_are_not_followed(client: Client) -> None:
    """An answer that sends elsewhere is an answer, and nobody is called there."""
    called = 0

    async def elsewhere(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal called
        called += 1
        writer.close()

    other = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
    location = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}/"

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = (
            f"HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    outcome = await post(client, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert isinstance(outcome, Answer)
    assert (outcome.status, called) == (307, 0)
    server.close()
    other.close()


async def test_names_that_are_slow_hold_up_nobody_else(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many events are for them: a name is asked for once at a time for each family, and never where a Function's name has to be."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port, asked, told, real = (
        server.sockets[0].getsockname()[1],
        Counter[tuple[str, int]](),
        threading.Event(),
        socket.getaddrinfo,
    )

    def slow(host: str, port: Any, family: int, *args: Any, **more: Any) -> Any:
        asked[host.rstrip("."), family] += 1
        if host.endswith(".test."):
            told.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")
        return real(host, port, family, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    hosts = [f"s{number}.test" for number in range(48)]  # more than there are threads, in any of the pools
    waiting = [asyncio.create_task(post(client, f"http://{host}/", reach.PUBLIC)) for host in hosts for _ in range(2)]
    try:
        async with asyncio.timeout(30):
            await asyncio.sleep(0.1)  # all of them are under way
            assert await post(client, f"http://localhost:{port}/") == Answer(204)
    finally:
        told.set()
    assert all(isinstance(outcome, Failure) for outcome in await asyncio.gather(*waiting))
    assert {asked[host, family] for host in hosts for family in (socket.AF_INET, socket.AF_INET6)} == {1}
    server.close()


async def test_tls(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target with https is spoken to with TLS, and has to show a certificate that is trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    path = tmp_path / "tls.pem"
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain) + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
    outcome = await post(client, url)
    assert isinstance(outcome, Failure)
    assert "certificate" in outcome.message.lower()
    monkeypatch.setattr(dial, "_trust", lambda: ssl.create_default_context(cadata=pem.decode()))
    other = Client()
    assert await post(other, url) == Answer(204)
    await other.close()
    server.close()


async def test_where_a_delivery_may_not_go_it_does_not(tmp_path: Path) -> None:
    """The event waits, its Subscription says why, and when it is too old it is a dead letter; nothing is called."""
    async with world(tmp_path) as w:
        w.router()
        targets = [Target(url=w.function.url, reach=reach.PUBLIC)]
        await w.subscribe(targets=targets, retry=Retry(initial_seconds=0.05, max_seconds=0.2))
        await w.publish(event(1))
        status = await w.status(lambda s: s.state == "Failing")
        assert "127.0.0.1 resolves to 127.0.0.1, which is of the router's own machine or link" in status.message
        retry = Retry(initial_seconds=0.05, max_seconds=0.2, max_age_seconds=1)
        await w.subscribe(targets=targets, retry=retry, generation=2)
        (letter,) = await w.dead_letters(1)
        assert (letter.reason, w.function.connections) == ("MaxAge", 0)


async def test_an_answer_without_the_runtimes_mark_takes_the_event(tmp_path: Path) -> None:
    """A sink is any HTTP server: 2xx takes, 4xx is final, 503 is tried again without counting as an attempt."""
    said = {"1": [200], "2": [400], "3": [503, 503, 503, 202]}
    async with world(tmp_path) as w:
        w.function.answer = lambda request: (said[request.id].pop(0), {}, b"")
        w.router()
        await w.subscribe(retry=Retry(max_attempts=1, initial_seconds=0.05, max_seconds=0.1), order="none")
        await w.publish(event(1), event(2), event(3))
        assert sorted(await w.delivered(2)) == ["1", "3"]
        (letter,) = await w.dead_letters(1)
        assert (letter.reason, letter.last_status) == ("Rejected", 400)
        assert all(request.headers["ce-specversion"] == "1.0" for request in w.function.requests)
