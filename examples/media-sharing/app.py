"""Keeps, beside what people upload, a thumbnail and the facts of each picture, and an index of each person's pictures.

The bucket of uploads is the truth: an event only says where to look. What is derived from an object follows from the object as it is now, so
events that come twice, late or in another order leave the same as one, a deleted object leaves nothing, and all of it can be thrown
away and made again from the bucket: the payload `{"rebuild": "ada"}`, or `"*"` for everybody.

One call at a time (`scale.max: 1` in function.yaml), because two that write one index could each miss the other's picture.
"""

import hashlib
import io
import json
import os
from typing import Any
from urllib.parse import urlsplit

from minio import Minio, S3Error
from PIL import Image, ImageOps

PIXELS = 256
"""The longer side of a thumbnail, at most."""
TAKEN = 0x0132
"""EXIF's tag of the time at which a picture was taken."""


def handler(event: dict[str, Any], context: Any) -> Any:
    """Handle a CloudEvent of type com.amazonaws.s3.Object*, whose subject is `person/...`, or the order to rebuild."""
    del context
    media = Media()
    if "rebuild" in event:
        people = media.people() if event["rebuild"] == "*" else [event["rebuild"]]
        return {person: media.rebuild(person) for person in people}
    person, slash, _ = event["subject"].partition("/")
    if not slash:
        return None  # nobody's
    about = media.derive(event["subject"])
    pictures = media.index(person)
    print(json.dumps({"message": "indexed", "object": event["subject"], "is": about, "pictures": pictures}))
    return about


class Media:
    """The bucket of uploads, and the bucket of what is derived from them: `small/`, `about/` and `index/`."""

    def __init__(self) -> None:
        """Take both from the environment."""
        address = urlsplit(os.environ["S3_ENDPOINT"])
        self._uploads, self._derived = os.environ["MEDIA_BUCKET"], os.environ["DERIVED_BUCKET"]
        self._store = Minio(
            address.netloc,
            access_key=os.environ["S3_ACCESS_KEY"],
            secret_key=os.environ["S3_SECRET_KEY"],
            secure=address.scheme == "https",
        )

    def people(self) -> list[str]:
        """Return whoever has uploaded something, or has an index."""
        uploads = {key.partition("/")[0] for key in self._keys(self._uploads) if "/" in key}
        indexed = {key.removeprefix("index/").removesuffix(".json") for key in self._keys(self._derived, "index/")}
        return sorted(uploads | indexed)

    def rebuild(self, person: str) -> int:
        """Derive everything of a person anew; return how many pictures there are."""
        known = {
            key.removeprefix("about/").removesuffix(".json") for key in self._keys(self._derived, f"about/{person}/")
        }
        for key in sorted(known | set(self._keys(self._uploads, f"{person}/"))):
            self.derive(key)
        return self.index(person)

    def derive(self, key: str) -> dict[str, Any] | None:
        """Make what belongs to an object, or take it away where the object is gone; return its facts."""
        content = self._read(self._uploads, key)
        if content is None:
            for derived in (f"small/{key}", f"about/{key}.json"):
                self._store.remove_object(self._derived, derived)
            return None
        small, about = describe(content)
        if small:
            self._write(f"small/{key}", small, "image/jpeg")
        self._write(f"about/{key}.json", json.dumps(about).encode(), "application/json")
        return about

    def index(self, person: str) -> int:
        """Write the index of a person's pictures from their facts; return how many there are."""
        pictures = [
            {"key": key.removeprefix("about/").removesuffix(".json"), **json.loads(facts)}
            for key in self._keys(self._derived, f"about/{person}/")
            if (facts := self._read(self._derived, key)) is not None
        ]
        if pictures:
            self._write(f"index/{person}.json", json.dumps({"pictures": pictures}).encode(), "application/json")
        else:
            self._store.remove_object(self._derived, f"index/{person}.json")
        return len(pictures)

    def _keys(self, bucket: str, prefix: str = "") -> list[str]:
        return [found.object_name for found in self._store.list_objects(bucket, prefix, recursive=True)]

    def _read(self, bucket: str, key: str) -> bytes | None:
        """Return an object's content; None where there is no such object."""
        try:
            with self._store.get_object(bucket, key) as answer:
                content: bytes = answer.read()
                return content
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise

    def _write(self, key: str, content: bytes, kind: str) -> None:
        self._store.put_object(self._derived, key, io.BytesIO(content), len(content), content_type=kind)


def describe(content: bytes) -> tuple[bytes | None, dict[str, Any]]:
    """Return the thumbnail and the facts of an object; one that is no picture has no thumbnail, and is no error."""
    about: dict[str, Any] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    try:
        with Image.open(io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(image)
            about |= {"format": image.format, "width": upright.width, "height": upright.height}
            if taken := image.getexif().get(TAKEN):
                about["taken"] = taken
            upright.thumbnail((PIXELS, PIXELS))
            out = io.BytesIO()
            upright.convert("RGB").save(out, "JPEG", quality=85)
    except (
        OSError,
        ValueError,
        Image.DecompressionBombError,
    ):  # no picture, a broken one, or one made to fill the memory
        return None, about | {"format": None}
    return out.getvalue(), about
