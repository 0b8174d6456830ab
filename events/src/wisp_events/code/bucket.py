"""The store's own bucket: archives by `<namespace>/<sha256>`. All calls block; they raise `S3Error`, `OSError` or `HTTPException`."""

import http.client
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import IO, Final
from xml.etree import ElementTree as ET

from wisp_api.code import StoredArchive, StoredPage
from wisp_api.signing import Access

from wisp_events.code.objects import S3Error, request

FAILURES: Final = (S3Error, OSError, http.client.HTTPException)
DOWNLOAD_SECONDS: Final = 120
"""How long a pod may use the URL that it was sent to."""
FRESH_SECONDS: Final = 60
"""What is younger needs no new date: a tenth of the shortest retention that the chart takes, by which an answer may then be short."""
_PAGE: Final = "1000"
_TYPE: Final = "application/zip"
_TOLD: Final = 65536


@dataclass(frozen=True)
class Bucket:
    """A bucket and the right to use it."""

    access: Access
    name: str

    def create(self) -> None:
        """Make the bucket where it isn't there."""
        try:
            with request(self.access, "HEAD", self.name):
                return
        except S3Error as error:
            if error.status != http.client.NOT_FOUND:
                raise
        with request(self.access, "PUT", self.name):
            pass

    def age(self, namespace: str, sha256: str) -> float | None:
        """How many seconds ago an archive was stored; None where it is not there."""
        try:
            with request(self.access, "HEAD", self._path(namespace, sha256)) as answer:
                return _age(parsedate_to_datetime(answer.headers["last-modified"]))
        except S3Error as error:
            if error.status == http.client.NOT_FOUND:
                return None
            raise

    def keep(self, namespace: str, sha256: str) -> bool:
        """Whether an archive is there, which then is as young as one that was stored just now."""
        age = self.age(namespace, sha256)
        if age is None:
            return False
        if age < FRESH_SECONDS:
            return True
        path = self._path(namespace, sha256)
        headers = {"x-amz-copy-source": f"/{path}", "x-amz-metadata-directive": "REPLACE", "content-type": _TYPE}
        with request(self.access, "PUT", path, headers=headers) as answer:
            told = answer.read(_TOLD)
        if b"<Error>" in told:  # S3 answers 200 before it has copied
            raise S3Error(answer.status, "", told.decode(errors="replace"))
        return True

    def download_url(self, namespace: str, sha256: str) -> str:
        """A URL from which this one archive can be read for a while; asks nobody."""
        return self.access.presign("GET", self._path(namespace, sha256), {}, DOWNLOAD_SECONDS)

    def put(self, namespace: str, sha256: str, file: IO[bytes], size: int) -> None:
        """Store an archive; readers see all of it or none."""
        headers = {"content-length": str(size), "content-type": _TYPE}
        with request(self.access, "PUT", self._path(namespace, sha256), body=file, headers=headers):
            pass

    def delete(self, namespace: str, sha256: str) -> None:
        """Delete an archive; fine where it is gone."""
        try:
            with request(self.access, "DELETE", self._path(namespace, sha256)):
                pass
        except S3Error as error:
            if error.status != http.client.NOT_FOUND:
                raise

    def size(self, namespace: str, without: str) -> int:
        """The bytes of a namespace's archives, but for this one."""
        total, after, prefix = 0, "", f"{namespace}/"
        while True:
            document = self._list(after, prefix)
            keys = []
            for item in document.iterfind("{*}Contents"):
                keys.append(item.findtext("{*}Key") or "")
                total += int(item.findtext("{*}Size") or 0) if keys[-1] != prefix + without else 0
            if document.findtext("{*}IsTruncated") != "true" or not keys:
                return total
            after = keys[-1]

    def page(self, after: str) -> StoredPage:
        """The archives whose keys come after this one, at most 1000."""
        document = self._list(after, "")
        archives, last = [], ""
        for item in document.iterfind("{*}Contents"):
            last = item.findtext("{*}Key") or ""
            namespace, _, sha256 = last.partition("/")
            age = _age(datetime.fromisoformat(item.findtext("{*}LastModified") or ""))
            archives.append(StoredArchive(namespace=namespace, sha256=sha256, age_seconds=age))
        return StoredPage(archives=archives, next=last if document.findtext("{*}IsTruncated") == "true" else "")

    def _list(self, after: str, prefix: str) -> ET.Element:
        """S3's answer: the keys after this one, and with this prefix."""
        query = {"list-type": "2", "max-keys": _PAGE, "prefix": prefix, "start-after": after}
        with request(self.access, "GET", self.name, {name: value for name, value in query.items() if value}) as answer:
            return ET.fromstring(answer.read())  # noqa: S314 - the platform's own server

    def _path(self, namespace: str, sha256: str) -> str:
        return f"{self.name}/{namespace}/{sha256}"


def _age(changed: datetime) -> float:
    return (datetime.now(UTC) - changed).total_seconds()
