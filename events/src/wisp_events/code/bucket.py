"""The store's own bucket: archives by `<namespace>/<sha256>`. All calls block; they raise `S3Error`, `OSError` or `HTTPException`."""

import http.client
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Final
from xml.etree import ElementTree as ET

from wisp_api.code import StoredArchive, StoredPage
from wisp_api.signing import Access

from wisp_events.code.objects import S3Error, request

FAILURES: Final = (S3Error, OSError, http.client.HTTPException)
DOWNLOAD_SECONDS: Final = 120
"""How long a pod may use the URL that it was sent to."""
_PAGE: Final = "1000"


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

    def has(self, namespace: str, sha256: str) -> bool:
        """Whether an archive is there."""
        try:
            with request(self.access, "HEAD", self._path(namespace, sha256)):
                return True
        except S3Error as error:
            if error.status == http.client.NOT_FOUND:
                return False
            raise

    def download_url(self, namespace: str, sha256: str) -> str:
        """A URL from which this one archive can be read for a while; asks nobody."""
        return self.access.presign("GET", self._path(namespace, sha256), {}, DOWNLOAD_SECONDS)

    def put(self, namespace: str, sha256: str, file: IO[bytes], size: int) -> None:
        """Store an archive; readers see all of it or none."""
        headers = {"content-length": str(size), "content-type": "application/zip"}
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

    def page(self, after: str) -> StoredPage:
        """The archives whose keys come after this one, at most 1000."""
        query = {"list-type": "2", "max-keys": _PAGE} | ({"start-after": after} if after else {})
        with request(self.access, "GET", self.name, query) as answer:
            document = ET.fromstring(answer.read())  # noqa: S314 - the platform's own server
        archives, last = [], ""
        for item in document.iterfind("{*}Contents"):
            last = item.findtext("{*}Key") or ""
            namespace, _, sha256 = last.partition("/")
            changed = datetime.fromisoformat(item.findtext("{*}LastModified") or "")
            age = (datetime.now(UTC) - changed).total_seconds()
            archives.append(StoredArchive(namespace=namespace, sha256=sha256, age_seconds=age))
        return StoredPage(archives=archives, next=last if document.findtext("{*}IsTruncated") == "true" else "")

    def _path(self, namespace: str, sha256: str) -> str:
        return f"{self.name}/{namespace}/{sha256}"
