"""Writes a thumbnail of each uploaded photo into a second bucket.

Idempotent: the thumbnail's name is the photo's and its content follows from the photo's, so an event that comes twice
writes the same object again. The second bucket matters: a thumbnail in the first one would be an upload of its own.
"""

import io
import json
import os
from typing import Any
from urllib.parse import urlsplit

from minio import Minio, S3Error
from PIL import Image, ImageOps

PIXELS = 256
"""The longer side of a thumbnail, at most."""


def handler(event: Any) -> dict[str, Any] | None:
    """Handle a CloudEvent of type com.amazonaws.s3.ObjectCreated:*; the photo is its subject.

    Raises:
        PIL.UnidentifiedImageError: The object is no image; after its retries the event is a dead letter.
    """
    bucket, key = event.get_data()["s3"]["bucket"]["name"], event.get_subject()
    store = connect(os.environ["S3_ENDPOINT"])
    try:
        with store.get_object(bucket, key) as answer:
            small = thumbnail(answer.read())
    except S3Error as error:
        if error.code == "NoSuchKey":
            return None  # deleted again before its event came: nothing to show
        raise
    target = os.environ["THUMBNAIL_BUCKET"]
    store.put_object(target, key, io.BytesIO(small), len(small), content_type="image/jpeg")
    done = {"photo": f"{bucket}/{key}", "thumbnail": f"{target}/{key}", "bytes": len(small)}
    print(json.dumps(done))
    return done


def thumbnail(photo: bytes) -> bytes:
    """Return a JPEG of at most PIXELS x PIXELS, upright and in the photo's proportions; never larger than the photo."""
    with Image.open(io.BytesIO(photo)) as image:
        small = ImageOps.exif_transpose(image)
        small.thumbnail((PIXELS, PIXELS))
        out = io.BytesIO()
        small.convert("RGB").save(out, "JPEG", quality=85)
    return out.getvalue()


def connect(endpoint: str) -> Minio:
    """Return a client for the store at `http(s)://host:port`, with the keys from the environment."""
    address = urlsplit(endpoint)
    return Minio(
        address.netloc,
        access_key=os.environ["S3_ACCESS_KEY"],
        secret_key=os.environ["S3_SECRET_KEY"],
        secure=address.scheme == "https",
    )
