"""Subscriptions become readers, streams, routes and bindings; what is not wanted any more goes, whatever happened in between."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from fixtures.objects import bucket, deleted, make_function, make_subscription, mongodb, mysql, postgres, schedule
from wisp_api import names
from wisp_api.route import Batch, Route, RouteStatus
from wisp_api.source import BucketBinding, BucketRule, ItemStatus, ReaderConfig, ReaderStatus, S3Server, TableConfig
from wisp_operator.config import OperatorConfig
from wisp_operator.event_plane import Plan, View, leftovers, plan
from wisp_operator.outlets import Outlets
from wisp_operator.proof import Proof
from wisp_operator.reader import CONNECTED
from wisp_operator.route import make_route
from wisp_operator.sources import ReaderKey, Wish, decode, rebind, server_id, server_of, slot_name

SERVER = S3Server(name="minio", endpoint="http://minio:9000", notification_arns=["arn:1", "arn:2"])
CONFIG = OperatorConfig(
    namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n", s3_servers=[SERVER]
)
MINIO, SHOP = ReaderKey("s3", "minio"), ReaderKey("postgres", "shop-db")
PHOTOS_STREAM, SHOP_STREAM = "events_media_s3_minio_photos", "events_media_postgres_shop-db"


def wishes(*items: dict[str, Any]) -> list[Wish]:
    """Decoded Subscriptions."""
    return [decode(item) for item in items]


def report(version: str = "", **fields: Any) -> ReaderStatus:
    """A reader that is well."""
    return msgspec.structs.replace(ReaderStatus(version=version, ready=True, server="minio"), **fields)


def settled(*items: dict[str, Any], **fields: Any) -> tuple[View, Plan]:
    """A namespace after its first plan was carried out, and that plan."""
    view = View("media", wishes(*items), **fields)
    view.reports = {
        wish.reader: report() if wish.reader == MINIO else report(server="") for wish in view.wishes if wish.reader
    }
    view.proofs = {("minio", "photos"): Proof.GRANTED}
    made = plan(view, CONFIG, "cluster")
    view.tasks, view.routes = made.readers, made.routes
    view.streams = {name: {} for name in made.streams}
    view.bindings = rebind("media", made.bindings, {})
    return view, made


def test_database_gets_reader_stream_and_route() -> None:
    """One Subscription to two tables: a task with both, one stream, a subject for each table."""
    made = plan(
        View("media", wishes(make_subscription(source=postgres("public.orders", "public.items")))), CONFIG, "cluster"
    )
    task = made.readers[SHOP].postgres
    assert task
    assert [table.name for table in task.tables] == ["public.items", "public.orders"]
    assert task.stream == SHOP_STREAM
    assert made.streams == {SHOP_STREAM: "wisp.events.media.postgres.shop-db.>"}
    assert made.routes["on-upload"].subjects[:-1] == [
        "wisp.events.media.postgres.shop-db.public.items.*",
        "wisp.events.media.postgres.shop-db.public.orders.*",
    ]
    assert made.routes["on-upload"].order == "key"


@pytest.mark.parametrize("source", [mysql, mongodb])
def test_a_forgetful_database_gets_reader_stream_route_and_leaves_no_position(
    source: Callable[..., dict[str, Any]],
) -> None:
    """As a database does, under its own kind; how far its reader was goes with the reader."""
    key = ReaderKey(source.__name__, "shop-db")
    item = make_subscription(source=source("shop.orders", operations=["delete"]))
    view = View("media", wishes(item), positions={key})
    made = plan(view, CONFIG, "cluster")
    task = made.readers[key].database
    assert task
    assert task.tables == [TableConfig(name="shop.orders", operations=["delete"])]
    assert task.stream == f"events_media_{key.kind}_shop-db"
    assert made.streams == {task.stream: f"wisp.events.media.{key.kind}.shop-db.>"}
    route = made.routes["on-upload"]
    assert (route.subjects[0], route.order) == (f"wisp.events.media.{key.kind}.shop-db.shop.orders.*", "key")
    assert route.filters == [{"type": [f"dev.wisp.{key.kind}.{kind}" for kind in ("delete", "truncate", "gap")]}]
    assert leftovers(view, made) == []
    view.tasks, view.reports = made.readers, {key: report(server="")}
    view.wishes = wishes(deleted(item))
    draining = plan(view, CONFIG, "cluster")
    assert draining.readers[key].draining
    assert task.stream in draining.streams
    view.tasks = draining.readers
    view.reports = {key: report(version=draining.readers[key].version, drained=True)}
    gone = plan(view, CONFIG, "cluster")
    assert gone.readers == {}
    assert (names.KV_STATUS, f"position.media.{key.kind}.shop-db") in leftovers(view, gone)


def test_server_ids_are_high_and_differ() -> None:
    """Replicas that people number by hand are far away; each connection has its own."""
    found = {server_id(cluster, "a", connection) for cluster in "12" for connection in "bc"}
    assert len(found) == 4
    assert all(2**31 <= number < 2**32 for number in found)


def test_subscriptions_share_a_reader() -> None:
    """The task of a connection is the union of what its Subscriptions want."""
    made = plan(
        View(
            "media",
            wishes(
                make_subscription("a", source=postgres("public.orders", operations=["delete"])),
                make_subscription("b", source=postgres("public.orders", "public.items", operations=["insert"])),
                make_subscription("c", source=postgres(connection="other")),
            ),
        ),
        CONFIG,
        "cluster",
    )
    task = made.readers[SHOP].postgres
    assert task
    assert task.tables == [
        TableConfig(name="public.items", operations=["insert"]),
        TableConfig(name="public.orders", operations=["insert", "delete"]),
    ]
    assert set(made.readers) == {SHOP, ReaderKey("postgres", "other")}


def test_task_changes_version_with_its_content_only() -> None:
    """The order in which Subscriptions are listed is no change; a new one is."""
    one, two = make_subscription("a", source=postgres("public.a")), make_subscription("b", source=postgres("public.b"))

    def version(*items: dict[str, Any]) -> str:
        return plan(View("media", wishes(*items)), CONFIG, "cluster").readers[SHOP].version

    assert version(one, two) == version(two, one) != version(one)


def test_bucket_waits_for_its_server() -> None:
    """Until the reader has said which server the key belongs to there is a task, but no stream, route or binding."""
    made = plan(View("media", wishes(make_subscription())), CONFIG, "cluster")
    task = made.readers[MINIO].s3
    assert task
    assert task.rules == [BucketRule(subscription="on-upload", bucket="photos", events=["s3:ObjectCreated:*"])]
    assert task.servers == [SERVER]
    assert (made.streams, made.routes, made.bindings) == ({}, {}, {})


def test_bucket_gets_stream_route_and_binding() -> None:
    """With server and proof known the events can flow."""
    view, made = settled(
        make_subscription(
            source=bucket(prefix="in/", suffix=".jpg", events=["ObjectRemoved:Delete", "ObjectCreated:*"])
        )
    )
    assert made.streams == {PHOTOS_STREAM: "wisp.events.media.s3.minio_photos.>"}
    assert made.routes["on-upload"].subjects[:-1] == [
        "wisp.events.media.s3.minio_photos.ObjectCreated.*.*",
        "wisp.events.media.s3.minio_photos.ObjectRemoved.Delete.*",
    ]
    assert made.routes["on-upload"].filters == [{"subject": [{"prefix": "in/"}]}, {"subject": [{"suffix": ".jpg"}]}]
    assert made.routes["on-upload"].order == "none"
    assert view.bindings["bucket.minio.photos"].namespaces == ["media"]


def test_types_of_a_family_are_read_once() -> None:
    """NATS makes no consumer whose subjects overlap: a type that its family's `*` covers is none of its own."""
    events = ["ObjectCreated:*", "ObjectCreated:PutTagging", "ObjectRemoved:Delete"]
    _, made = settled(make_subscription(source=bucket(events=events)))
    assert made.routes["on-upload"].subjects[:-1] == [
        "wisp.events.media.s3.minio_photos.ObjectCreated.*.*",
        "wisp.events.media.s3.minio_photos.ObjectRemoved.Delete.*",
    ]


@pytest.mark.parametrize(
    ("operations", "types"),
    [
        (["insert", "update", "delete"], None),
        (["insert"], ["insert"]),
        (["delete", "insert"], ["delete", "insert", "truncate"]),
    ],
)
def test_operations_become_a_filter(operations: list[str], types: list[str] | None) -> None:
    """A Subscription to some operations filters by type; one that wants deletes wants TRUNCATE too."""
    made = plan(View("media", wishes(make_subscription(source=postgres(operations=operations)))), CONFIG, "cluster")
    wanted = [{"type": [f"dev.wisp.postgres.{name}" for name in [*types, "gap"]]}] if types else []
    assert made.routes["on-upload"].filters == wanted


def test_targets_are_the_functions_traffic() -> None:
    """Deliveries go to each revision's own Service with its share; without the Function there is no target and the route stays."""
    function = make_function(timeoutSeconds=7)
    function["status"] = {"traffic": [{"revision": "hello-2", "percent": 80}, {"revision": "hello-1", "percent": 20}]}
    item = make_subscription(source=postgres())
    route = plan(View("media", wishes(item), functions={"hello": function}), CONFIG, "cluster").routes["on-upload"]
    assert [(target.url, target.percent) for target in route.targets] == [
        ("http://hello-2.media.svc.cluster.local/", 80),
        ("http://hello-1.media.svc.cluster.local/", 20),
    ]
    assert route.timeout_seconds == 7
    assert plan(View("media", wishes(item)), CONFIG, "cluster").routes["on-upload"].targets == []


def test_tag_sends_all_to_its_revision() -> None:
    """A tag's revision gets all events, whatever share it has, once Knative knows the tag; until then they wait."""
    function = make_function(tags={"stable": {"revision": "hello-1"}})
    function["status"] = {"traffic": [{"revision": "hello-2", "percent": 100}], "tags": {"stable": "http://stable"}}
    item = make_subscription(source=postgres())
    item["spec"]["function"]["tag"] = "stable"
    view = View("media", wishes(item), functions={"hello": function})
    (target,) = plan(view, CONFIG, "cluster").routes["on-upload"].targets
    assert (target.url, target.percent) == ("http://hello-1.media.svc.cluster.local/", 100)
    assert (target.reach, target.service) == ("function", "hello-1.media.svc.cluster.local")
    del function["status"]["tags"]
    assert plan(view, CONFIG, "cluster").routes["on-upload"].targets == []


def test_a_route_reads_what_is_redriven_to_it_alone() -> None:
    """What comes again from dead letters has a subject of this very Subscription, in the source's own stream and in nobody else's filter."""
    item = make_subscription(source=postgres("public.orders"))
    route = plan(View("media", wishes(item)), CONFIG, "cluster").routes["on-upload"]
    assert route.subjects[-1] == names.redrive_subject(SHOP_STREAM, route.uid)
    assert route.subjects[-1].startswith("wisp.events.media.postgres.shop-db.redrive.")
    assert len(route.subjects[-1].split(".")) != len(route.subjects[0].split("."))


def test_rows_of_tables_are_for_who_asks_and_has_a_place_in_the_log() -> None:
    """Rows have a subject of the Subscription's own; the reader writes them when the Subscription's place in the log is fixed, not before."""
    asking = make_subscription(source=postgres(snapshot="initial", operations=["insert"]))
    view = View("media", wishes(asking, make_subscription("other", source=postgres())))
    made = plan(view, CONFIG, "cluster")
    route, other = made.routes["on-upload"], made.routes["other"]
    subject = names.snapshot_subject("media", "shop-db", "public", "orders", route.uid)
    assert subject in route.subjects
    assert subject not in other.subjects
    assert names.entity(subject) == names.entity(names.row_subject("media", "shop-db", "public", "orders", 3))
    assert {"type": [f"dev.wisp.postgres.{kind}" for kind in ("insert", "snapshot", "gap")]} in route.filters
    assert _snapshots(made) == [[]]
    view.cursors = {route.uid, other.uid}
    assert _snapshots(plan(view, CONFIG, "cluster")) == [[]], "the router may not have taken the route"
    view.route_reports = {
        name: RouteStatus(uid=made.routes[name].uid, generation=1, state="Active") for name in made.routes
    }
    assert _snapshots(plan(view, CONFIG, "cluster")) == [[route.uid]]
    view.cursors = set()
    assert _snapshots(plan(view, CONFIG, "cluster")) == [[]]


@pytest.mark.parametrize(("kind", "tables"), [("mysql", "tables"), ("mongodb", "collections")])
def test_rows_of_other_databases_are_asked_for_as_well(kind: str, tables: str) -> None:
    """The subject, the type and the task are those of the connection's kind."""
    source = {
        "connection": {"name": "shop-db"},
        tables: ["shop.orders"],
        "operations": ["insert"],
        "snapshot": "initial",
    }
    item = make_subscription(source={kind: source})
    uid = item["metadata"]["uid"]
    report = RouteStatus(uid=uid, generation=1, state="Active")
    view = View("media", wishes(item), cursors={uid}, route_reports={"on-upload": report})
    made = plan(view, CONFIG, "cluster")
    route = made.routes["on-upload"]
    assert names.snapshot_subject("media", "shop-db", "shop", "orders", uid, kind=kind) in route.subjects
    assert {"type": [f"dev.wisp.{kind}.{done}" for done in ("insert", "snapshot", "gap")]} in route.filters
    (task,) = [task.database for task in made.readers.values() if task.database]
    assert [table.snapshots for table in task.tables] == [[uid]]
    view.tasks, view.cursors = made.readers, set()
    (task,) = [task.database for task in plan(view, CONFIG, "cluster").readers.values() if task.database]
    assert [table.snapshots for table in task.tables] == [[uid]], "rows that leave the task come twice"


def test_rows_of_a_table_that_is_added_wait_for_the_route_that_reads_them() -> None:
    """The cursor is there and the router reads an older route: the new table's rows would pass it by. The others' stay asked for meanwhile."""
    item = make_subscription(source=postgres(snapshot="initial"))
    uid = item["metadata"]["uid"]
    report = RouteStatus(uid=uid, generation=1, state="Active")
    view, made = settled(item, cursors={uid}, route_reports={"on-upload": report})
    assert _snapshots(made) == [[uid]]
    item = make_subscription(source=postgres("public.items", "public.orders", snapshot="initial"))
    item["metadata"]["generation"] = 2
    view.wishes = wishes(item)
    view.tasks = (made := plan(view, CONFIG, "cluster")).readers
    assert _snapshots(made) == [[], [uid]]
    report.uid, report.generation = "uid of an earlier one", 2
    assert _snapshots(plan(view, CONFIG, "cluster")) == [[], [uid]]
    report.uid, report.generation = uid, 2
    assert _snapshots(plan(view, CONFIG, "cluster")) == [[uid], [uid]]
    item["spec"]["source"]["postgres"]["snapshot"] = "never"
    view.wishes = wishes(item)
    assert _snapshots(plan(view, CONFIG, "cluster")) == [[], []]


def test_a_bucket_is_listed_to_who_asked_from_the_first_and_only_when_nothing_is_missed_behind() -> None:
    """The reader is told when the route reads the listing's subject and the ingest stores the bucket's events, and stays told."""
    item = make_subscription(start="earliest")
    uid = item["metadata"]["uid"]
    view, made = settled(item, cursors={uid})
    assert names.listing_subject("media", "minio", "photos", uid) in made.routes["on-upload"].subjects
    view.route_reports = {"on-upload": RouteStatus(uid=uid, generation=1, state="Active")}
    bound, view.bindings = view.bindings, {}
    assert _listings(plan(view, CONFIG, "cluster")) == [""], "uploads would be missed"
    view.bindings = bound
    made = plan(view, CONFIG, "cluster")
    assert _listings(made) == [uid]
    view.tasks, view.cursors = made.readers, set()
    assert _listings(plan(view, CONFIG, "cluster")) == [uid], "a listing that leaves the task comes twice"
    item["spec"]["start"] = "latest"
    view.wishes = wishes(item)
    assert _listings(plan(view, CONFIG, "cluster")) == [""]


def test_no_bucket_is_listed_to_who_did_not_ask_from_the_first() -> None:
    """Neither `latest` nor a time, nor `earliest` of a Subscription that was there before or wants no uploads, reads a listing or has it made."""
    uid = make_subscription()["metadata"]["uid"]
    started = {"on-upload": RouteStatus(uid=uid, generation=1, state="Active")}
    for item in (
        make_subscription(),
        make_subscription(start="2026-01-01T00:00:00Z"),
        make_subscription(start="earliest", source=bucket(events=["ObjectRemoved:*"])),
    ):
        view, made = settled(item, cursors={uid}, route_reports=started)
        for changed in ({}, {"start": "earliest"} if "start" not in item["spec"] else {}):
            view.wishes = wishes(item | {"spec": item["spec"] | changed})
            made = plan(view, CONFIG, "cluster")
            assert _listings(made) == [""]
            assert not any(names.is_listing_of(subject, uid) for subject in made.routes["on-upload"].subjects)


def _listings(made: Plan) -> list[str]:
    return [rule.listing for task in made.readers.values() if task.s3 for rule in task.s3.rules]


def _snapshots(made: Plan) -> list[list[str]]:
    return [table.snapshots for task in made.readers.values() if task.postgres for table in task.postgres.tables]


@pytest.mark.parametrize(
    ("wanted", "source", "found"),
    [
        ({}, postgres(), "cloudevent"),
        ({"format": "cloudevent"}, bucket(), "cloudevent"),
        ({"format": "aws"}, bucket(), "s3"),
        ({"format": "aws"}, postgres(), "dynamodb"),
        ({"format": "aws"}, mysql("shop.orders"), "dynamodb"),
        ({"format": "aws"}, mongodb("shop.orders"), "dynamodb"),
        ({"format": "aws"}, schedule(), "tick"),
        ({"format": "aws"}, {"bus": {"name": "default"}}, "eventbridge"),
        ({"format": "debezium"}, mongodb("shop.orders"), "debezium"),
    ],
)
def test_format_is_the_sources(wanted: dict[str, Any], source: dict[str, Any], found: str) -> None:
    """What AWS has for a source is what the router makes of its events; it need not know the source."""
    [wish] = wishes(make_subscription(source=source, **wanted))
    outlets = Outlets("media", (), {})
    assert make_route(wish, PHOTOS_STREAM, "minio", None, "cluster.local", outlets).format == found


def test_batch_and_retry_are_the_subscriptions() -> None:
    """A route batches and bisects as the Subscription says; without `batch` each event goes alone."""
    item = make_subscription(
        source=postgres(), batch={"size": 7, "windowSeconds": 2, "tumblingWindowSeconds": 60}, retry={"bisect": True}
    )
    route = plan(View("media", wishes(item)), CONFIG, "cluster").routes["on-upload"]
    assert route.batch
    assert route.batch == Batch(size=7, window_seconds=2, tumbling_seconds=60)
    assert route.retry.bisect
    item = make_subscription(source=postgres())
    route = plan(View("media", wishes(item)), CONFIG, "cluster").routes["on-upload"]
    assert (route.batch, route.retry.bisect) == (None, False)


@pytest.mark.parametrize(
    ("annotation", "order"),
    [
        ("2026-01-31T12:00:00Z ab12", ("2026-01-31T12:00:00Z", "ab12")),
        ("2026-01-31T12:00:00Z", ("2026-01-31T12:00:00Z",) * 2),
        (" ", None),
    ],
)
def test_replay_is_ordered_by_annotation(annotation: str, order: tuple[str, str] | None) -> None:
    """The order goes to the router as it is written; without a request of its own it is named by its time."""
    item = make_subscription(source=postgres())
    item["metadata"]["annotations"] = {"wisp.dev/replay": annotation}
    found = plan(View("media", wishes(item)), CONFIG, "cluster").routes["on-upload"].replay
    assert (found and (found.since, found.request)) == order


def test_wrong_filter_keeps_the_last_good_route() -> None:
    """A mistake in an edited pattern does not stop what ran before; a new Subscription with one has no route."""
    view, before = settled(make_subscription(source=postgres()))
    view.wishes = wishes(make_subscription(source=postgres(), filter={"data": {"total": [{"numeric": ["?", 1]}]}}))
    assert plan(view, CONFIG, "cluster").routes == before.routes
    view.routes = {}
    assert plan(view, CONFIG, "cluster").routes == {}


def test_nothing_changes_where_nothing_changed() -> None:
    """Planning again what was carried out gives the same plan, and nothing is left over."""
    view, made = settled(make_subscription(), make_subscription("rows", source=postgres()))
    again = plan(view, CONFIG, "cluster")
    assert again == made
    assert rebind("media", again.bindings, view.bindings) == {}
    assert leftovers(view, again) == []


def test_last_subscription_drains_its_reader_first() -> None:
    """Route and cursor go at once; reader and stream stay, and so does the Subscription, until the reader reports that it is done."""
    view, _ = settled(make_subscription(source=postgres()))
    view.wishes = wishes(deleted(make_subscription(source=postgres())))
    view.cursors = {"uid-of-on-upload"}
    made = plan(view, CONFIG, "cluster")
    assert made.readers[SHOP].draining
    assert made.routes == {}
    assert made.streams.keys() == {SHOP_STREAM}
    assert made.released == set()
    assert leftovers(view, made) == [(names.KV_CURSORS, "media.uid-of-on-upload")]

    view.tasks, view.reports = made.readers, {SHOP: report("an older task", drained=True)}
    assert plan(view, CONFIG, "cluster").readers == made.readers

    view.reports = {SHOP: report(made.readers[SHOP].version, drained=True)}
    done = plan(view, CONFIG, "cluster")
    assert (done.readers, done.streams, done.released) == ({}, {}, {"on-upload"})
    assert (names.KV_STATUS, "reader.media.postgres.shop-db") in leftovers(view, done)


def test_reader_that_does_not_drain_is_given_up() -> None:
    """After its time a silent reader is taken away, and the Subscription may go."""
    view, _ = settled(make_subscription(source=postgres()))
    view.wishes, view.gave_up = wishes(deleted(make_subscription(source=postgres()))), {SHOP}
    made = plan(view, CONFIG, "cluster")
    assert (made.readers, made.streams, made.released) == ({}, {}, {"on-upload"})


@pytest.mark.parametrize(
    ("case", "annotations", "ready", "gone"),
    [
        ("never connected, still can't", {}, False, True),
        ("connects now", {}, True, False),
        ("has connected before", {CONNECTED: "true"}, False, False),
    ],
)
def test_reader_that_never_connected_has_nothing_to_drain(
    case: str,
    annotations: dict[str, str],
    ready: bool,  # noqa: FBT001 - a table's column
    gone: bool,  # noqa: FBT001 - a table's column
) -> None:
    """A Subscription with a wrong password goes at once, but only when its reader has answered the draining task."""
    view, _ = settled(make_subscription(source=postgres()))
    view.wishes = wishes(deleted(make_subscription(source=postgres())))
    view.deployments = {SHOP: {"metadata": {"annotations": annotations}}}
    view.tasks = plan(view, CONFIG, "cluster").readers
    view.reports = {SHOP: report("an older task", ready=False)}
    assert plan(view, CONFIG, "cluster").released == set(), case
    view.reports = {SHOP: report(view.tasks[SHOP].version, ready=ready)}
    assert plan(view, CONFIG, "cluster").released == ({"on-upload"} if gone else set()), case


def test_one_of_two_goes_without_draining() -> None:
    """The other Subscription of the connection keeps its reader, which gets a new task."""
    one, two = make_subscription("a", source=postgres("public.a")), make_subscription("b", source=postgres("public.b"))
    view, _ = settled(one, two)
    view.wishes = wishes(deleted(one), two)
    made = plan(view, CONFIG, "cluster")
    task = made.readers[SHOP]
    assert not task.draining
    assert task.postgres
    assert [table.name for table in task.postgres.tables] == ["public.b"]
    assert made.released == {"a"}
    assert made.routes.keys() == {"b"}


def test_new_subscription_stops_the_draining() -> None:
    """A reader that is wanted again is not drained any more."""
    view, before = settled(make_subscription("a", source=postgres()))
    view.wishes = wishes(deleted(make_subscription("a", source=postgres())))
    view.tasks = plan(view, CONFIG, "cluster").readers
    view.wishes.append(decode(make_subscription("b", source=postgres())))
    assert plan(view, CONFIG, "cluster").readers[SHOP] == before.readers[SHOP]


def test_everything_of_a_vanished_namespace_goes() -> None:
    """What a namespace without Subscriptions left in the log is drained and taken away."""
    view, _ = settled(make_subscription(source=postgres()))
    view.wishes = []
    view.route_reports = {"on-upload": RouteStatus(uid="u", generation=1, state="Active")}
    made = plan(view, CONFIG, "cluster")
    assert made.readers[SHOP].draining
    assert made.routes == {}
    assert (names.KV_STATUS, "route.media.on-upload") in leftovers(view, made)


@pytest.mark.parametrize(
    ("case", "proof", "item", "before", "bound"),
    [
        ("proven", Proof.GRANTED, None, False, True),
        ("never proven", Proof.UNKNOWN, None, False, False),
        ("proven before, server away now", Proof.UNKNOWN, None, True, True),
        ("the server says no", Proof.REFUSED, None, True, False),
        ("the reader says no", Proof.UNKNOWN, ItemStatus(ready=False, reason="PermissionDenied"), True, False),
        ("the reader can't reach it", Proof.UNKNOWN, ItemStatus(ready=False, reason="ServerUnreachable"), True, True),
    ],
)
def test_binding_follows_the_proof(case: str, proof: Proof, item: ItemStatus | None, before: bool, bound: bool) -> None:  # noqa: FBT001 - a table's columns
    """A namespace has a bucket's events from a proof on until something definite says no."""
    view, _ = settled(make_subscription())
    if not before:
        view.bindings = {}
    view.proofs = {("minio", "photos"): proof}
    view.reports[MINIO] = report(items={"photos": item} if item else {})
    held = rebind("media", plan(view, CONFIG, "cluster").bindings, view.bindings) or view.bindings
    assert [binding.namespaces for binding in held.values()] == ([["media"]] if bound else [[]] if before else []), case


def test_binding_leaves_other_namespaces_alone() -> None:
    """A namespace adds and takes away only itself."""
    others = BucketBinding(server="minio", bucket="photos", namespaces=["audit"])
    wanted = BucketBinding(server="minio", bucket="photos", namespaces=[])
    both = rebind("media", {"k": wanted}, {"k": others})["k"]
    assert both.namespaces == ["audit", "media"]
    assert rebind("media", {}, {"k": both})["k"].namespaces == ["audit"]


def test_secret_pointed_elsewhere_keeps_the_stream() -> None:
    """A connection that suddenly belongs to another server does not move, and so does not lose, what waits in the stream."""
    view, before = settled(make_subscription())
    view.reports[MINIO] = report(server="other")
    view.proofs = {}
    made = plan(view, CONFIG, "cluster")
    assert made.streams == before.streams
    assert made.routes == before.routes


def test_stream_of_a_bucket_stays_while_its_server_is_unknown() -> None:
    """A lost route and a silent reader are no reason to delete events."""
    view, _ = settled(make_subscription())
    view.routes, view.reports = {}, {}
    view.streams["events_media_s3_minio_other"] = {}
    assert plan(view, CONFIG, "cluster").streams.keys() == {PHOTOS_STREAM}


def test_route_of_an_earlier_namesake_is_replaced() -> None:
    """A Subscription made anew under the same name has its own uid in the route, so the router starts a new cursor."""
    view, _ = settled(make_subscription(source=postgres()))
    view.routes["on-upload"] = msgspec.structs.replace(view.routes["on-upload"], uid="older")
    assert plan(view, CONFIG, "cluster").routes["on-upload"].uid == "uid-of-on-upload"


def test_unreadable_values_are_replaced() -> None:
    """A task or route that an older version wrote in another form is written anew."""
    view, before = settled(make_subscription(source=postgres()))
    view.tasks = {SHOP: ReaderConfig(namespace="media", kind="postgres", connection="shop-db", version="")}
    view.routes = {
        "on-upload": Route(namespace="media", name="on-upload", uid="", generation=0, stream="", subjects=[])
    }
    assert plan(view, CONFIG, "cluster") == before


def test_server_is_read_back_from_a_stream() -> None:
    """A stream's name gives its bucket's server, and nothing for another bucket or namespace."""
    assert server_of("media", "events_media_s3_minio_my%2Ephotos", "my.photos") == "minio"
    assert server_of("media", "events_media_s3_minio_photos", "other") == ""
    assert server_of("media", "events_media-2_s3_minio_photos", "photos") == ""


def test_slot_names_are_unique_and_valid() -> None:
    """At most 63 of PostgreSQL's characters, different for each cluster, namespace and connection."""
    found = {
        slot_name(cluster, namespace, connection)
        for cluster in "12"
        for namespace in ("a", "a-b" * 20)
        for connection in ("b", "b-c")
    }
    assert len(found) == 8
    assert all(len(name) <= 63 and name.replace("_", "").isalnum() and name == name.lower() for name in found)
