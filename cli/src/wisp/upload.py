"""Bring a function's archive into the user's bucket, before the manifest that names it is applied.

The connection is the Secret that the fetch Job uses, too. A server of the cluster (`http://NAME.NAMESPACE.svc:PORT`) is reached through
the Kubernetes API server. Invariant: an object is named by the SHA-256 of its content, so nothing that a function runs is ever
overwritten, and what is there already is not sent again.
"""

import base64
import contextlib
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from wisp_api.signing import Access

from wisp import output
from wisp.cluster import SECRET, Cluster
from wisp.errors import CommandError, UnreachableError

_SECONDS: Final = 300
_IN_CLUSTER: Final = re.compile(r"http://([-a-z0-9]+)\.([-a-z0-9]+)\.svc(?:\.[-.a-z0-9]+)?(?::(\d+))?")
_OK: Final = 200
_NOT_FOUND: Final = 404


def upload(cluster: Cluster, zipped: Mapping[str, Any], data: bytes) -> None:
    """Make the object that `code.zip` names, unless it is there.

    Raises:
        CommandError: the Secret is missing or incomplete, or the server refuses or is away.
    """
    access = _access(cluster, zipped["connection"]["name"])
    path = f"{zipped['bucket']}/{zipped['key']}"
    if _ask(cluster, access, "HEAD", path)[0] == _OK:
        return
    status, body = _ask(cluster, access, "PUT", path, data)
    if status != _OK:
        raise CommandError(f"s3://{path}: {access.endpoint} refuses the upload: {_meaning(status, body)}")
    output.tell(f"s3://{path} uploaded, {len(data) / (1 << 20):.1f} MiB")


def _access(cluster: Cluster, name: str) -> Access:
    """What the connection's Secret says.

    Raises:
        CommandError: it is missing or incomplete.
    """
    found = cluster.get(SECRET, name)
    if found is None:
        raise CommandError(
            f"there is no Secret {name} in namespace {cluster.namespace}: create it with endpoint, accessKey and secretKey"
        )
    held = {key: base64.b64decode(value).decode().strip() for key, value in (found.get("data") or {}).items()}
    if missing := [key for key in ("endpoint", "accessKey", "secretKey") if not held.get(key)]:
        raise CommandError(f"Secret {name} has no key {missing[0]}: add it")
    return Access(held["endpoint"].rstrip("/"), held["accessKey"], held["secretKey"], held.get("region") or "us-east-1")


def _ask(cluster: Cluster, access: Access, method: str, path: str, data: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of the server's answer."""
    signed = urlsplit(access.presign(method, path, {}, _SECONDS))
    headers = {"Host": signed.netloc, "Content-Type": "application/zip"}
    request = urllib.request.Request(signed.geturl(), data, headers, method=method)  # noqa: S310 - the user's own server
    inside = _IN_CLUSTER.fullmatch(access.endpoint)
    try:
        if inside:
            service, namespace, port = inside[1], inside[2], inside[3] or "80"
            answer = cluster.proxy(
                namespace, f"{service}:{port}", request, f"{signed.path}?{signed.query}", float(_SECONDS)
            )
        else:
            answer = urllib.request.urlopen(request, timeout=_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        answer = error  # type: ignore[assignment] # it is the answer
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UnreachableError(f"the S3 server {access.endpoint} can't be reached from here: {reason}") from None
    with answer:
        return answer.status, answer.read()


def _meaning(status: int, body: bytes) -> str:
    """The server's words, be they S3's or the Kubernetes API server's, on the way to it."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return f"{status} {json.loads(body)['message']}"
    try:
        document = ET.fromstring(body)  # noqa: S314 - two of its texts are shown
    except ET.ParseError:
        return f"{status} {' '.join(body.decode(errors='replace').split())[:300]}"
    return f"{status} {document.findtext('{*}Code') or ''}: {document.findtext('{*}Message') or ''}"
