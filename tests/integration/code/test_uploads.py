"""Archives that people upload to the store, with a ticket for one of them: what is taken, what is refused, and how long it stays."""

import hashlib
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from fixtures.code_store import CodeStore, Tenant, make_zip
from fixtures.minio import PASSWORD, USER, MinioServer
from fixtures.process import wait_until
from unit.runtime.conftest import FunctionProcess
from wisp_api.code import MANAGE, WRITE, capability
from wisp_api.signing import Access
from wisp_events.code import bucket
from wisp_events.code.job import hand_over
from wisp_events.sources.reader import Trouble

APP = make_zip({"app.py": "def handler(event, context):\n    return 'uploaded'\n"})
SHA256 = hashlib.sha256(APP).hexdigest()


def bomb() -> bytes:
    """A small archive of 64 MiB of nothing."""
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("app.py", bytes(64 << 20))
    return made.getvalue()


def test_an_uploaded_archive_runs(tenant: Tenant, store: CodeStore, serve: Callable[..., FunctionProcess]) -> None:
    """It is missing, is stored with a ticket, is there, and a pod of the namespace serves it."""
    place, ticket = f"{tenant.namespace}/{SHA256}", store.ticket(tenant.namespace, SHA256)
    assert store.ask("POST", place, ticket) == (404, "")
    assert store.ask("PUT", place, ticket, APP) == (201, "")
    assert store.ask("POST", place, ticket) == (200, "")
    assert serve({}, **tenant.code_env(SHA256)).invoke({}).json == "uploaded"


def test_a_ticket_opens_one_place_for_a_while(tenant: Tenant, store: CodeStore) -> None:
    """Not another namespace, not another archive, not after its time, and neither to read nor to delete; a forged one nothing."""
    good, other = store.ticket(tenant.namespace, SHA256), "0" * 64
    place = f"{tenant.namespace}/{SHA256}"
    wrong = [
        store.ticket(f"{tenant.namespace}-x", SHA256),
        store.ticket(tenant.namespace, other),
        store.ticket(tenant.namespace, SHA256, seconds=-1),
        str(int(time.time()) + 9000) + good[good.index(".") :],
        "",
        "9" * 5000,
        "\xb2." + good.partition(".")[2],
    ]
    for token in wrong:
        for method in ("PUT", "POST"):
            assert store.ask(method, place, token, APP)[0] == 401, token
    assert store.ask("PUT", f"{tenant.namespace}-x/{SHA256}", good, APP)[0] == 401
    assert store.ask("PUT", f"{tenant.namespace}/{other}", good, APP)[0] == 401
    for method in ("GET", "HEAD", "DELETE"):
        assert store.ask(method, f"{place}?older=0", good)[0] == 401
    assert not [key for key in store.archives() if key.startswith(tenant.namespace)]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bomb(), "UnsafeArchive: "),
        (make_zip({"../evil": ""}), "UnsafeArchive: "),
        (b"no archive", "InvalidArchive: "),
    ],
)
def test_what_breaks_a_rule_is_not_stored(tenant: Tenant, store: CodeStore, data: bytes, says: str) -> None:
    """The answer is the rule's reason and sentence."""
    sha256 = hashlib.sha256(data).hexdigest()
    status, said = store.ask("PUT", f"{tenant.namespace}/{sha256}", store.ticket(tenant.namespace, sha256), data)
    assert (status, said.startswith(says)) == (422, True), said
    assert f"{tenant.namespace}/{sha256}" not in store.archives()


def test_a_namespace_keeps_so_much(tenant: Tenant, store: CodeStore, minio: MinioServer, tmp_path: Path) -> None:
    """What is beyond is refused with what to do, to Jobs, too; what is there may come again, and another namespace has its own."""
    namespace, size = tenant.namespace, len(APP)
    bounded = CodeStore(tmp_path, minio, most=size + size // 2)
    other = make_zip({"app.py": "def handler(event, context):\n    return 'up to date'\n"})
    second = hashlib.sha256(other).hexdigest()

    def put(name: str, sha256: str, data: bytes, token: str) -> tuple[int, str]:
        return bounded.ask("PUT", f"{name}/{sha256}", token, data)

    bounded.start()
    try:
        for _ in range(2):
            assert put(namespace, SHA256, APP, bounded.ticket(namespace, SHA256)) == (201, "")
        for token in (bounded.ticket(namespace, second), capability(store.key, WRITE, namespace)):
            status, said = put(namespace, second, other, token)
            assert (status, said.startswith(f"CodeStorageExceeded: the archives of namespace {namespace} take")) == (
                507,
                True,
            )
        assert put(f"{namespace}-b", second, other, bounded.ticket(f"{namespace}-b", second)) == (201, "")
        with pytest.raises(Trouble, match="refuses the archive: the archives of namespace") as refused:
            hand_over(
                f"{bounded.url}/v1/code/{namespace}/{second}", capability(store.key, WRITE, namespace), BytesIO(other)
            )
        assert refused.value.reason == "CodeStorageExceeded"
    finally:
        bounded.stop()
    assert f"{namespace}/{second}" not in store.archives()


def test_bytes_of_another_digest_are_not_stored(tenant: Tenant, store: CodeStore) -> None:
    """Whoever names an archive and sends another one has stored neither."""
    sha256 = "1" * 64
    status, said = store.ask("PUT", f"{tenant.namespace}/{sha256}", store.ticket(tenant.namespace, sha256), APP)
    assert (status, SHA256 in said) == (422, True), said
    assert not [key for key in store.archives() if key.startswith(tenant.namespace)]


def test_what_was_stored_lately_is_not_deleted(tenant: Tenant, store: CodeStore) -> None:
    """Though the operator asks for it, that has seen it older or looked before it was named; the old goes."""
    place, operator = f"{tenant.namespace}/{SHA256}", capability(store.key, MANAGE)
    assert store.ask("PUT", place, store.ticket(tenant.namespace, SHA256), APP)[0] == 201
    assert store.ask("DELETE", place, operator)[0] == 400
    assert store.ask("DELETE", f"{place}?older=3600", operator)[0] == 409
    assert place in store.archives()
    wait_until(lambda: store.ask("DELETE", f"{place}?older=0", operator)[0] == 204, "it is older than that")
    assert place not in store.archives()
    assert store.ask("DELETE", f"{place}?older=3600", operator)[0] == 204


def test_what_is_asked_for_is_young_again(
    tenant: Tenant, store: CodeStore, minio: MinioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it stays until who asked has named it, with the same bytes."""
    monkeypatch.setattr(bucket, "FRESH_SECONDS", 2)
    held = bucket.Bucket(Access(minio.endpoint, USER, PASSWORD), "wisp-code")
    place = f"{tenant.namespace}/{SHA256}"
    assert store.ask("PUT", place, store.ticket(tenant.namespace, SHA256), APP)[0] == 201

    def stored() -> float:
        found = minio.client().stat_object("wisp-code", place).last_modified
        assert found
        return found.timestamp()

    first = stored()
    wait_until(lambda: (held.age(tenant.namespace, SHA256) or 0) > 3, "it is old")
    assert held.keep(tenant.namespace, SHA256)
    assert stored() > first
    answer = minio.client().get_object("wisp-code", place)
    try:
        assert answer.read() == APP
    finally:
        answer.close()
        answer.release_conn()
    assert not held.keep(tenant.namespace, "2" * 64)
