"""The media-sharing example against a real MinIO: what is derived is what the bucket of uploads is, however events come."""

import io
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import minio
import pytest
from fixtures import minio as minio_fixture
from fixtures.examples import EXAMPLES, answers, post_event, sample, served
from fixtures.process import free_port, wait_until
from PIL import Image


@dataclass
class Media:
    """Both buckets, and the function between them."""

    client: minio.Minio
    url: str

    def upload(self, key: str, size: tuple[int, int] = (1200, 800)) -> None:
        """Put a picture into the bucket of uploads."""
        picture = io.BytesIO()
        Image.linear_gradient("L").resize(size).save(picture, "JPEG")
        self.put(key, picture.getvalue())

    def put(self, key: str, content: bytes) -> None:
        """Put anything there."""
        self.client.put_object("media", key, io.BytesIO(content), len(content))

    def tell(self, key: str) -> None:
        """Have the function handle an event about an object."""
        assert post_event(self.url, sample("media-sharing/events/object-created.json") | {"subject": key})[0] == 200

    def rebuild(self, who: str) -> Any:
        """Have it rebuild, as `wisp invoke` does."""
        body = json.dumps({"rebuild": who}).encode()
        headers = {"Content-Type": "application/json", "Wisp-Event-Format": "lambda"}
        with urllib.request.urlopen(urllib.request.Request(self.url, body, headers), timeout=60) as answer:
            return json.loads(answer.read())

    def derived(self) -> dict[str, bytes]:
        """All that is derived, by key."""
        found = {}
        for item in self.client.list_objects("media-derived", recursive=True):
            with self.client.get_object("media-derived", item.object_name) as answer:
                found[item.object_name] = answer.read()
        return found

    def index(self, person: str) -> list[dict[str, Any]]:
        """A person's pictures."""
        pictures: list[dict[str, Any]] = json.loads(self.derived()[f"index/{person}.json"])["pictures"]
        return pictures


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Media]:
    """MinIO and the function, with the environment of its manifest."""
    folder = tmp_path_factory.mktemp("media")
    with minio_fixture.minio_server(folder, f"http://127.0.0.1:{free_port()}/", "unused") as store:
        wait_until(lambda: answers(f"{store.endpoint}/minio/health/cluster"), "MinIO has not loaded its users")
        client = store.client()
        environment = {"MEDIA_BUCKET": "media", "DERIVED_BUCKET": "media-derived", "S3_ENDPOINT": store.endpoint}
        environment |= {"S3_ACCESS_KEY": minio_fixture.USER, "S3_SECRET_KEY": minio_fixture.PASSWORD}
        for bucket in ("media", "media-derived"):
            client.make_bucket(bucket)
        with served("media-sharing", EXAMPLES / "media-sharing", folder / "log", environment) as url:
            yield Media(client, url)


@pytest.fixture
def media(running: Media) -> Media:
    """The same, with empty buckets."""
    for bucket in ("media", "media-derived"):
        for item in running.client.list_objects(bucket, recursive=True):
            running.client.remove_object(bucket, item.object_name)
    return running


def test_an_upload_gets_thumbnail_facts_and_a_place_in_the_index(media: Media) -> None:
    """Under its own name, and the same when its event comes again."""
    media.upload("ada/summer day.jpg")
    media.tell("ada/summer day.jpg")
    first = media.derived()
    with Image.open(io.BytesIO(first["small/ada/summer day.jpg"])) as small:
        assert small.size == (256, 171)
    [picture] = media.index("ada")
    assert (picture["key"], picture["format"], picture["width"], picture["height"]) == (
        "ada/summer day.jpg",
        "JPEG",
        1200,
        800,
    )
    media.tell("ada/summer day.jpg")
    assert media.derived() == first


def test_what_is_deleted_leaves_nothing(media: Media) -> None:
    """Neither thumbnail nor facts nor index, also where the event of the upload comes after that of the removal."""
    for name in ("ada/a.jpg", "ada/b.jpg"):
        media.upload(name)
        media.tell(name)
    media.client.remove_object("media", "ada/a.jpg")
    media.tell("ada/a.jpg")
    assert [picture["key"] for picture in media.index("ada")] == ["ada/b.jpg"]
    media.client.remove_object("media", "ada/b.jpg")
    for _ in range(2):
        media.tell("ada/b.jpg")
    assert media.derived() == {}


def test_everything_is_rebuilt_from_the_bucket(media: Media) -> None:
    """From uploads that had no event, and without what has no upload any more."""
    for name in ("ada/a.jpg", "ada/b.jpg", "bob/c.jpg"):
        media.upload(name)
    media.put("nobodys.jpg", b"")
    media.tell("ada/a.jpg")
    assert media.rebuild("ada") == {"ada": 2}
    assert media.rebuild("*") == {"ada": 2, "bob": 1}
    whole = media.derived()
    assert len(whole) == 3 * 2 + 2
    media.client.remove_object("media", "bob/c.jpg")
    media.client.remove_object("media-derived", "small/ada/a.jpg")
    assert media.rebuild("*") == {"ada": 2, "bob": 0}
    assert media.derived() == {key: content for key, content in whole.items() if "bob" not in key}


def test_what_is_no_picture_is_indexed_without_a_thumbnail(media: Media) -> None:
    """It is no error; neither is an object that belongs to nobody."""
    media.put("ada/notes.txt", b"no picture")
    media.tell("ada/notes.txt")
    [found] = media.index("ada")
    assert (found["format"], found["bytes"]) == (None, 10)
    assert media.derived().keys() == {"about/ada/notes.txt.json", "index/ada.json"}
    media.put("nobodys.jpg", b"")
    media.tell("nobodys.jpg")
    assert len(media.derived()) == 2
