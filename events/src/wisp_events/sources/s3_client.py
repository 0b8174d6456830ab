"""The six S3 requests that the reader needs, each by a presigned URL.

One way of signing serves both: the reader's own requests, and the HEAD request that it hands to the operator as proof.
Buckets are addressed by path; redirects are not followed, so that a key is used at the endpoint that the Secret names and
nowhere else.
"""

import base64
import hashlib
import http.client
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from wisp_api import conditions
from wisp_api.signing import Access

from wisp_events.sources.reader import Trouble, Wish

TIMEOUT_SECONDS: Final = 10
LARGEST_ANSWER: Final = 4 * 1024 * 1024
PAGE_KEYS: Final = 1000
"""The most that servers give."""
PROOF_SECONDS: Final = 300
"""How long a proof can be used."""

_KEY_REFUSED: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"})
_ADDRESS = re.compile(r"https?://[^/?#@\s]+/?", re.IGNORECASE)


class Refused(Exception):  # noqa: N818 - the server's decision
    """Raised when the server answers a request with an error about one bucket."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """`code` is S3's error code; empty where the answer has none."""
        super().__init__(f"{status} {code}: {message}".rstrip(": "))
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class S3Client:
    """A server and a key."""

    endpoint: str
    """`http(s)://host[:port]`."""
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"

    @classmethod
    def of(cls, wish: Wish) -> "S3Client":
        """The server and the key of a reader's connection.

        Raises:
            Trouble: the Secret lacks something.
        """
        return cls(
            wish.value("endpoint").rstrip("/"),
            wish.value("accessKey"),
            wish.value("secretKey"),
            wish.connection.get("region") or "us-east-1",
        )

    def head_bucket(self, bucket: str) -> None:
        """Check that the key may read the bucket.

        Raises:
            Refused, Trouble: as `_request`.
        """
        self._request("HEAD", bucket, {})

    def proof(self, bucket: str) -> str:
        """A HEAD request for the bucket as a URL, good for PROOF_SECONDS."""
        return self.presign("HEAD", bucket, {}, PROOF_SECONDS)

    def get_notification(self, bucket: str) -> bytes:
        """The bucket's notification configuration, XML.

        Raises:
            Refused, Trouble: as `_request`.
        """
        return self._request("GET", bucket, {"notification": ""})

    def put_notification(self, bucket: str, document: bytes) -> None:
        """Replace the bucket's notification configuration.

        Raises:
            Refused, Trouble: as `_request`.
        """
        self._request("PUT", bucket, {"notification": ""}, document)

    def delete_notification(self, bucket: str, rule: str) -> None:
        """Remove one rule of a bucket by its id: a request of Ceph's gateway. For other servers it could mean to delete the bucket.

        Raises:
            Refused, Trouble: as `_request`.
        """
        self._request("DELETE", bucket, {"notification": rule})

    def list_objects(self, bucket: str, prefix: str, after: str) -> bytes:
        """The next objects after a key, PAGE_KEYS at most: XML with the keys escaped.

        Raises:
            Refused, Trouble: as `_request`.
        """
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix, "start-after": after}
        query["max-keys"] = str(PAGE_KEYS)
        return self._request("GET", bucket, {name: value for name, value in query.items() if value})

    def list_buckets(self) -> list[str]:
        """The buckets that the key sees.

        Raises:
            Refused, Trouble: as `_request`.
        """
        document = self._request("GET", "", {})
        return [node.text or "" for node in ET.fromstring(document).findall(".//{*}Bucket/{*}Name")]  # noqa: S314 - a server that the administrator listed

    def presign(self, method: str, bucket: str, query: dict[str, str], seconds: int) -> str:
        """The URL of a request, signed; whoever holds it may make it for `seconds`."""
        access = Access(self.endpoint, self.access_key, self.secret_key, self.region)
        return access.presign(method, bucket, query, seconds)

    def _request(self, method: str, bucket: str, query: dict[str, str], body: bytes | None = None) -> bytes:
        """Make a request; returns the answer's body.

        Raises:
            Refused: the server answered with an error about the bucket.
            Trouble: it could not be reached, or refuses the key whatever the bucket.
        """
        url = urlsplit(self.presign(method, bucket, query, 60))
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        headers = {}
        if body is not None:
            digest = hashlib.md5(body, usedforsecurity=False).digest()  # S3 asks for this checksum
            headers = {"Content-Type": "application/xml", "Content-MD5": base64.b64encode(digest).decode()}
        try:
            connection = kind(url.netloc, timeout=TIMEOUT_SECONDS)
            try:
                connection.request(method, f"{url.path}?{url.query}", body, headers)
                answer = connection.getresponse()
                content = answer.read(LARGEST_ANSWER)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise Trouble(
                conditions.SERVER_UNREACHABLE, f"{self.endpoint} does not answer: {reason}; trying again"
            ) from None
        if answer.status in (http.client.OK, http.client.NO_CONTENT):
            return content
        raise self._refusal(answer.status, content)

    def _refusal(self, status: int, content: bytes) -> Exception:
        """What an error answer means."""
        code, message = _error(content)
        if code in _KEY_REFUSED:
            return Trouble(
                conditions.AUTHENTICATION_FAILED,
                f"{self.endpoint} refuses the key: {code}; put the right accessKey and secretKey into the connection's Secret",
            )
        if code in ("AuthorizationHeaderMalformed", "AuthorizationQueryParametersError"):
            return Trouble(
                conditions.INVALID_CONNECTION, f"{code}: {message}; set key region of the connection's Secret"
            )
        if status >= http.client.INTERNAL_SERVER_ERROR:
            return Trouble(
                conditions.SERVER_UNREACHABLE,
                f"{self.endpoint} answers {status} {code} {message}".rstrip() + "; trying again",
            )
        return Refused(status, code, message)


def _error(content: bytes) -> tuple[str, str]:
    """Code and message of S3's error document; empty where there is none."""
    try:
        document = ET.fromstring(content)  # noqa: S314 - a server that the administrator listed
    except ET.ParseError:
        return "", ""
    return document.findtext("{*}Code") or "", document.findtext("{*}Message") or ""


def origin(endpoint: str) -> str:
    """`scheme://host:port` in one spelling, for comparison.

    Raises:
        Trouble: it is no such address.
    """
    url = urlsplit(endpoint)
    try:
        port = url.port or (443 if url.scheme.lower() == "https" else 80)
    except ValueError:
        port = 0
    if not _ADDRESS.fullmatch(endpoint) or not url.hostname or not port:
        raise Trouble(
            conditions.INVALID_CONNECTION,
            "key endpoint of the connection's Secret is no address; write http(s)://host:port",
        )
    return f"{url.scheme.lower()}://{url.hostname.lower()}:{port}"
