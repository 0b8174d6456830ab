"""Signing, against the minio package as the other implementation."""

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from minio.credentials.credentials import Credentials
from minio.signer import presign_v4
from wisp_api import conditions
from wisp_events.sources.reader import Trouble
from wisp_events.sources.s3_client import S3Client, origin


@pytest.mark.parametrize(
    ("method", "query"), [("HEAD", {}), ("GET", {"notification": ""}), ("PUT", {"notification": "", "x": "a b/ü~"})]
)
def test_presigned_urls_are_as_the_minio_package_makes_them(method: str, query: dict[str, str]) -> None:
    """The same signature for the same moment."""
    client = S3Client("http://s3.example:9000", "key/with+signs", "secret/with+signs", "eu-1")
    ours = client.presign(method, "my-bucket", query, 300)
    moment = parse_qs(urlsplit(ours).query)["X-Amz-Date"][0]
    plain = (
        ours.partition("?")[0]
        + "?"
        + "&".join(part for part in urlsplit(ours).query.split("&") if not part.startswith("X-Amz-"))
    )
    theirs = presign_v4(
        method=method,
        url=urlsplit(plain),
        region="eu-1",
        credentials=Credentials("key/with+signs", "secret/with+signs"),
        date=datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        expires=300,
    )
    assert parse_qs(urlsplit(ours).query)["X-Amz-Signature"] == parse_qs(theirs.query)["X-Amz-Signature"]


@pytest.mark.parametrize(
    ("endpoint", "same"),
    [
        ("http://S3.Example", "http://s3.example:80"),
        ("https://s3.example/", "https://s3.example:443"),
        ("HTTP://s3.example:9000", "http://s3.example:9000"),
    ],
)
def test_one_server_has_one_origin(endpoint: str, same: str) -> None:
    """However its address is spelled."""
    assert origin(endpoint) == same


@pytest.mark.parametrize(
    "endpoint",
    ["", "s3.example", "ftp://s3.example", "http://me:pw@s3.example", "http://s3.example/path", "http://h:x"],
)
def test_what_is_no_address_is_refused(endpoint: str) -> None:
    """With what to write instead."""
    with pytest.raises(Trouble, match="write http") as refused:
        origin(endpoint)
    assert refused.value.reason == conditions.INVALID_CONNECTION


def test_a_client_does_not_show_its_secret() -> None:
    """Not even in a traceback."""
    assert "hidden" not in repr(S3Client("http://s3.example", "key", "hidden"))
