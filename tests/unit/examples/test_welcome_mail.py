"""The welcome-mail example: its inline code served by the real runtime, its mails taken by a mail server."""

import json
import urllib.error
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml
from fixtures.examples import EXAMPLES, function_spec, post_event, sample, served
from fixtures.smtp import MailServer, mail_server
from wisp_api import cloudevent, pattern

EVENT = "welcome-mail/events/insert.json"


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    """A mail server."""
    with mail_server() as running:
        yield running


@pytest.fixture(scope="module")
def url(mail: MailServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The function, with the environment of its manifest, but for where the mail server is."""
    folder = tmp_path_factory.mktemp("welcome-mail")
    spec = function_spec("welcome-mail")
    for name, text in spec["code"]["files"].items():
        (folder / name).write_text(text)
    environment = {variable["name"]: variable["value"] for variable in spec["env"]}
    environment |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(mail.port)}
    with served("welcome-mail", folder, folder / "log", environment) as running:
        yield running


@pytest.fixture(autouse=True)
def empty(mail: MailServer) -> None:
    """A mail server that has taken nothing yet."""
    mail.raw.clear()
    mail.recipients.clear()
    mail.refusal = b""


def customer(**fields: Any) -> dict[str, Any]:
    """The sample with other values in its row."""
    event = sample(EVENT)
    event["data"]["new"] |= fields
    return event


def test_a_new_customer_gets_a_mail(url: str, mail: MailServer) -> None:
    """To the address of the row, with the name as it is written."""
    assert post_event(url, sample(EVENT))[0] in (200, 204)
    [taken] = mail.mails
    assert (taken["To"], taken["From"], taken["Subject"]) == (
        "ase@example.org",
        "shop@example.com",
        "Welcome, Åse Lund!",
    )
    assert taken.get_content().splitlines()[0] == "Dear Åse Lund,"
    assert mail.recipients == ["ase@example.org"]


def test_an_event_that_comes_twice_is_the_same_mail(url: str, mail: MailServer) -> None:
    """Byte for byte, under the Message-ID that follows from the event's id: a mailbox shows it once."""
    for _ in range(2):
        post_event(url, sample(EVENT))
    first, second = mail.raw
    assert first == second
    assert mail.mails[0]["Message-ID"] == f"<{sample(EVENT)['id']}@example.com>"


def test_a_refusal_makes_the_event_come_again(url: str, mail: MailServer) -> None:
    """A mail that the server doesn't take fails the invocation, so the router tries it again."""
    mail.refusal = b"451 try later"
    with pytest.raises(urllib.error.HTTPError) as raised:
        post_event(url, sample(EVENT))
    with raised.value as error:
        assert error.code >= 500
        assert json.loads(error.read())["errorType"] == "SMTPRecipientsRefused"
    mail.refusal = b""
    post_event(url, sample(EVENT))
    assert len(mail.raw) == 1


def test_a_name_adds_no_header(url: str, mail: MailServer) -> None:
    """A line break in a row's value is refused, and nothing is sent."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        post_event(url, customer(name="Eve\nBcc: all@example.org"))
    raised.value.close()
    assert mail.raw == []


def test_customers_without_an_address_wake_nobody() -> None:
    """The Subscription's filter lets those through that can get a mail."""
    manifest = yaml.safe_load((EXAMPLES / "welcome-mail" / "subscription.yaml").read_text())
    matches = pattern.compile(manifest["spec"]["filter"])
    for address, wanted in (("ase@example.org", True), (None, False), ("", False), ("none", False)):
        event = cloudevent.decode(msgspec.json.encode(customer(email=address)))
        assert matches(event) is wanted, address
