"""A reader's proof counts only if the configured server itself says yes to a request for that very bucket."""

import tracemalloc
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from fixtures.process import free_port
from wisp_api.source import S3Server
from wisp_operator.proof import Proof, Proofs, expired


class Storage:
    """An S3 server that answers HEAD as told and notes what it was asked."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.status = 200
        self.port = free_port()
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        """One answer; 302 points at the bucket that would say yes."""
        self.asked.append(request.path_qs)
        return web.Response(status=self.status, headers={"Location": "/photos"} if self.status == 302 else {})


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    """A running server."""
    made = Storage()
    app = web.Application()
    app.router.add_route("HEAD", "/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    yield made
    await runner.cleanup()


def proofs(storage: Storage) -> Proofs:
    """Proofs for that server."""
    return Proofs([S3Server(name="minio", endpoint=f"http://127.0.0.1:{storage.port}", notification_arns=[])])


@pytest.mark.parametrize(
    ("status", "wanted"),
    [(200, Proof.GRANTED), (403, Proof.REFUSED), (404, Proof.REFUSED), (302, Proof.UNKNOWN), (503, Proof.UNKNOWN)],
)
async def test_answers(storage: Storage, status: int, wanted: Proof) -> None:
    """200 grants, a definite no refuses, anything else says nothing; a redirect is not followed."""
    storage.status = status
    assert (
        await proofs(storage).check("minio", "photos", f"http://127.0.0.1:{storage.port}/photos?X-Amz-Signature=1")
        is wanted
    )
    assert len(storage.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/photos",
        "http://127.0.0.2:{port}/photos",
        "https://127.0.0.1:{port}/photos",
        "http://user@127.0.0.1:{port}/photos",
        "http://127.0.0.1:{port}/other",
        "http://127.0.0.1:{port}/photos/key",
        "http://127.0.0.1:{port}/",
        "http://127.0.0.1:notaport/photos",
        "file:///photos",
    ],
)
async def test_only_the_configured_server_and_bucket_are_asked(storage: Storage, url: str) -> None:
    """A tenant's proof can't make the operator call anything else."""
    assert await proofs(storage).check("minio", "photos", url.format(port=storage.port)) is Proof.REFUSED
    assert storage.asked == []


async def test_unknown_server_is_refused(storage: Storage) -> None:
    """A server that is not configured is never asked."""
    assert await proofs(storage).check("other", "photos", f"http://127.0.0.1:{storage.port}/photos") is Proof.REFUSED


async def test_server_away_says_nothing() -> None:
    """A network error neither grants nor refuses."""
    away = Storage()
    assert await proofs(away).check("minio", "photos", f"http://127.0.0.1:{away.port}/photos") is Proof.UNKNOWN


async def test_a_proof_is_sent_once(storage: Storage) -> None:
    """Looking at the same proof again does not ask the server again; a new one does."""
    checks = proofs(storage)
    for query in ("1", "1", "2"):
        assert await checks.check("minio", "photos", f"http://127.0.0.1:{storage.port}/photos?{query}") is Proof.GRANTED
    assert len(storage.asked) == 2


@pytest.mark.parametrize(("later", "past"), [(0, False), (200, False), (300, True), (10_000, True)])
def test_expired_proof_says_nothing(later: int, past: bool) -> None:  # noqa: FBT001 - a table
    """A presigned request past its time is no refusal: its reader is away, and its binding stays."""
    url = "http://s3/photos?X-Amz-Date=20260101T000000Z&X-Amz-Expires=300&X-Amz-Signature=1"
    assert expired(url, 1767225600 + later) is past


async def test_a_proof_that_is_none_is_not_remembered(storage: Storage) -> None:
    """Megabytes that a tenant gives out for a request are refused, and not held for a minute as others are."""
    made = proofs(storage)
    url = f"http://127.0.0.1:{storage.port}/photos?X-Amz-Signature="
    tracemalloc.start()
    try:
        for number in range(20):
            assert await made.check("minio", "photos", f"{url}{number}{'a' * 1_000_000}") is Proof.REFUSED
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()
    assert storage.asked == []
