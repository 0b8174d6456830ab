"""The webhook refuses what a condition would complain of, never stands in the way of anything else, and its certificate never runs out."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from cryptography import x509
from fixtures.objects import bucket, deleted, make_function, make_subscription, postgres, schedule
from wisp_operator.config import OperatorConfig, Runtime
from wisp_operator.webhook import _Bodies, review
from wisp_operator.webhook_certificate import VALID, ends, make_certificate

CONFIG = OperatorConfig(
    namespace="wisp-system",
    runtimes={"python3.13": Runtime(image="python")},
    events_image="events",
    nats_url="nats://log",
)
INVOKED: dict[str, Any] = {"async": {"onFailure": {"uri": "https://evil.test/x"}}}
HOOKED = make_function(**INVOKED)
FOLDER = make_function(code={"files": {"lib/app.py": ""}})


def ask(item: dict[str, Any], before: dict[str, Any] | None = None) -> tuple[bool, str]:
    """Whether the object may be written, and what is wrong with it."""
    answer = review({"uid": "1", "object": item, "oldObject": before}, CONFIG)
    assert answer["uid"] == "1"
    return answer["allowed"], answer.get("status", {}).get("message", "")


@pytest.mark.parametrize(
    ("case", "item", "word"),
    [
        ("folder", FOLDER, "lib/app.py"),
        ("bytes of code", make_function(code={"files": {"app.py": "ø" * 98_305}}), "192 KiB"),
        ("the platform's own namespace", make_function(namespace="wisp-system"), "create it in another"),
        ("runtime without image", make_function(runtime="nodejs24"), "no image for it"),
        ("pattern", make_subscription(source=bucket(), filter={"type": "text"}), "spec.filter"),
        ("cron", make_subscription(source=schedule("61 * * * *")), "spec.source.schedule.cron"),
        ("time zone", make_subscription(source=schedule(timezone="Europe/Atlantis")), "no time zone"),
        ("a time that is over", make_subscription(source=schedule(None, at="2020-01-01T00:00:00Z")), "was over"),
        (
            "a hook that is not admitted",
            make_subscription(source=bucket(), deadLetter={"uri": "https://evil.test/x"}),
            "spec.deadLetter.uri: https://evil.test is not among the hosts",
        ),
        (
            "one of an invocation",
            HOOKED,
            "spec.async.onFailure.uri: https://evil.test is not among the hosts",
        ),
        ("bytes of a table", make_subscription(source=postgres("public." + "ø" * 40)), "80 bytes"),
    ],
)
def test_refused(case: str, item: dict[str, Any], word: str) -> None:
    """Each mistake that the schema can't see is refused with its field."""
    allowed, message = ask(item)
    assert not allowed, case
    assert word in message, case


@pytest.mark.parametrize(
    ("case", "item", "before"),
    [
        ("right", make_function(), None),
        ("right Subscription", make_subscription(source=schedule()), None),
        ("spec as before", FOLDER, FOLDER),
        ("being deleted", deleted(FOLDER), make_function()),
    ],
)
def test_taken(case: str, item: dict[str, Any], before: dict[str, Any] | None) -> None:
    """What is right is taken, and what was wrong before can still be labelled and deleted."""
    assert ask(item, before) == (True, ""), case


def test_certificate_is_for_the_service_and_a_year() -> None:
    """It names the Service, and ends when it says."""
    now = datetime.now(UTC)
    made = make_certificate("wisp-operator.wisp-system.svc", now)
    assert abs(ends(made.certificate) - now - VALID) < timedelta(minutes=1)
    known = x509.load_pem_x509_certificate(made.bundle.encode())
    hosts = known.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "wisp-operator.wisp-system.svc" in hosts.get_values_for_type(x509.DNSName)
    assert ends("no certificate") < now


class _Content:
    """A body that comes in chunks."""

    def __init__(self, chunks: int) -> None:
        self._left = chunks

    async def readany(self) -> bytes:
        await asyncio.sleep(0)
        self._left -= 1
        return bytes(1024 * 1024) if self._left >= 0 else b""


async def test_bodies_have_one_bound_together() -> None:
    """Twenty of 7 MiB at once: what there is no room for is refused, and what is done with gives its room back."""
    bodies = _Bodies()
    held: list[int] = []

    async def ask(chunks: int) -> str:
        try:
            async with bodies.read(cast("web.Request", SimpleNamespace(content=_Content(chunks)))) as body:
                held.append(len(body))
                await asyncio.sleep(0.05)
        except web.HTTPException as refused:
            return str(refused.status)
        return "200"

    answers = await asyncio.gather(*(ask(7) for _ in range(20)))
    assert "503" in answers
    assert sum(held) <= 32 * 1024 * 1024
    assert [await ask(9), await ask(7)] == ["413", "200"]
