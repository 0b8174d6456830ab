"""Signs S3 requests: AWS Signature Version 4, "Authenticating Requests: Using Query Parameters"."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlencode, urlsplit


@dataclass(frozen=True, slots=True)
class Access:
    """A server, and the key that signs requests to it."""

    endpoint: str
    """`http(s)://host[:port]`."""
    key: str
    secret: str = field(repr=False)
    region: str = "us-east-1"

    def presign(
        self, method: str, path: str, query: dict[str, str], seconds: int, headers: Mapping[str, str] | None = None
    ) -> str:
        """The URL of a request, signed; whoever holds it may make it for `seconds`, with these headers, in lower case, as they are.

        `path` is `bucket` or `bucket/key`, unescaped.
        """
        where = urlsplit(self.endpoint)
        now = datetime.now(UTC)
        stamp, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
        scope = f"{day}/{self.region}/s3/aws4_request"
        path = "/" + quote(path, safe="/-_.~")
        held = {"host": where.netloc, **(headers or {})}
        signed = query | {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.key}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": ";".join(sorted(held)),
        }
        parameters = urlencode(sorted(signed.items()), quote_via=quote, safe="-_.~")
        lines = "".join(f"{name}:{held[name]}\n" for name in sorted(held))
        request = f"{method}\n{path}\n{parameters}\n{lines}\n{';'.join(sorted(held))}\nUNSIGNED-PAYLOAD"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        secret = f"AWS4{self.secret}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            secret = hmac.digest(secret, part.encode(), "sha256")
        signature = hmac.digest(secret, to_sign.encode(), "sha256").hex()
        return f"{where.scheme}://{where.netloc}{path}?{parameters}&X-Amz-Signature={signature}"
