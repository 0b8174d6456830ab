"""The door for tickets to upload code: for the namespace's own ServiceAccounts, by a token that no pod has mounted."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.code_store import TICKETS
from fixtures.dataplane import DataPlane
from fixtures.tokens import Issuer, token_keys
from fixtures.webhook import Webhook, webhook_on
from wisp_api import names
from wisp_api.code import is_ticket

DIGEST = "0" * 64


@pytest.fixture
def issuer(plane: DataPlane) -> Issuer:
    """The cluster's key, known to the ingest."""
    made = Issuer()
    plane.put(names.KV_SOURCES, names.TOKEN_KEYS, token_keys(made))
    return made


@pytest.fixture
def door(plane: DataPlane, issuer: Issuer, tmp_path: Path) -> Iterator[Webhook]:
    """An ingest of an installation with a code store."""
    assert issuer
    with webhook_on(plane, tmp_path, environment={"WISP_STORE_TICKETS": TICKETS}) as made:
        yield made


def ask(door: Webhook, token: str, namespace: str = "media", method: str = "POST") -> tuple[int, str]:
    """Status and answer of a request for a ticket."""
    url = f"http://127.0.0.1:{door.port}/v1/namespaces/{namespace}/archives/{DIGEST}"
    request = urllib.request.Request(url, headers={"wisp-authorization": f"Bearer {token}"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_ticket_is_for_the_callers_namespace(door: Webhook, issuer: Issuer) -> None:
    """It opens the archive that was asked for, there and nowhere else, for ten minutes."""
    own = issuer.token("media", aud=[names.CODE_AUDIENCE])
    status, said = ask(door, own)
    assert status == 200, said
    ticket = json.loads(said)["ticket"]
    assert is_ticket(TICKETS, ticket, "media", DIGEST, time.time())
    assert not is_ticket(TICKETS, ticket, "shop", DIGEST, time.time())
    assert not is_ticket(TICKETS, ticket, "media", "1" * 64, time.time())
    assert not is_ticket(TICKETS, ticket, "media", DIGEST, time.time() + 700)
    status, said = ask(door, own, "shop")
    assert (status, "for its own ServiceAccounts to bring, not media's" in said) == (403, True), said
    assert ask(door, own, method="GET")[0] == 405


def test_a_pods_tokens_open_nothing(door: Webhook, issuer: Issuer) -> None:
    """Neither the one for events nor the one for log lines: code in a pod can't store code. The answer names the right audience."""
    for audience in (names.AUDIENCE, names.LOG_AUDIENCE):
        status, said = ask(door, issuer.token("media", aud=[audience]))
        assert (status, f"its audience is not {names.CODE_AUDIENCE}" in said) == (401, True), said
        assert f"--audience {names.CODE_AUDIENCE}`" in said
    assert ask(door, "")[0] == 401


def test_without_a_code_store_there_are_no_tickets(webhook: Webhook, issuer: Issuer) -> None:
    """The answer says what else there is."""
    status, said = ask(webhook, issuer.token("media", aud=[names.CODE_AUDIENCE]))
    assert (status, "this installation has no code store" in said) == (404, True), said
