"""Our rules in a bucket's notification document."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

import pytest
from wisp_api.source import BucketRule
from wisp_events.sources.s3_rules import Change, Rule, change, id_prefix, wanted_rules

ARNS = ["arn:minio:sqs::WISP:webhook", "arn:minio:sqs::WISPQUEUE:webhook"]
PREFIX = id_prefix("media", "my-s3")
TOPIC = "arn:aws:sns:default::wisp"
EMPTY = b'<?xml version="1.0" encoding="UTF-8"?><NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>'
THEIRS = b"""<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<QueueConfiguration><Id>theirs</Id><Queue>arn:minio:sqs:here:WISP:webhook</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration>
<QueueConfiguration><Id>wisp.media.other.a.0</Id><Queue>arn:minio:sqs:here:WISP:webhook</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration>
<QueueConfiguration><Id>wisp.media.my-s3.a.0</Id><Queue>arn:minio:sqs:here:ELSE:webhook</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration>
<TopicConfiguration><Id>t</Id><Topic>arn:x</Topic><Event>s3:ObjectRemoved:*</Event></TopicConfiguration>
<EventBridgeConfiguration/>
</NotificationConfiguration>"""


def wanted(*subscriptions: str, arns: Sequence[str] = ARNS) -> set[Rule]:
    """The rules of these Subscriptions."""
    rules = [
        BucketRule(subscription=name, bucket="b", events=["s3:ObjectCreated:*"], prefix="in/&<", suffix=".jpg")
        for name in subscriptions
    ]
    return wanted_rules(PREFIX, rules, arns)


def merge(document: bytes, wanted: set[Rule], prefix: str, arns: Sequence[str]) -> bytes | None:
    """What is put to a server that replaces the document."""
    needed = change(document, wanted, prefix, arns)
    assert needed is None or not needed.gone
    return needed.document if needed else None


def ids(document: bytes | None) -> list[str | None]:
    """Ids of all rules, in order."""
    return [node.text for node in ET.fromstring(document or b"").iter("{http://s3.amazonaws.com/doc/2006-03-01/}Id")]


def test_topics_of_aws_are_refused() -> None:
    """AWS replaces what there is by what is put, where Ceph's gateway adds: nothing is made for it, with or without a wish."""
    aws = ["arn:aws:sns:eu-west-1:123456789012:wisp"]
    for wish in (wanted("a", arns=aws), set()):
        with pytest.raises(ValueError, match=r"123456789012.*notificationArns"):
            change(THEIRS, wish, PREFIX, aws)


@pytest.mark.parametrize("before", [EMPTY, THEIRS, b"<NotificationConfiguration/>"])
def test_merging_is_idempotent_and_undone_by_wanting_nothing(before: bytes) -> None:
    """A merged document needs no change; with no wish it is what it was before."""
    after = merge(before, wanted("a", "b"), PREFIX, ARNS)
    assert after
    assert merge(after, wanted("a", "b"), PREFIX, ARNS) is None
    undone = merge(after, set(), PREFIX, ARNS)
    assert undone
    assert ET.canonicalize(undone, strip_text=True) == ET.canonicalize(before, strip_text=True)


def test_what_is_not_ours_stays() -> None:
    """Others' rules, another connection's, another installation's, and elements of any other kind."""
    after = merge(THEIRS, wanted("a"), PREFIX, ARNS)
    assert after
    assert b"EventBridgeConfiguration" in after
    assert ids(after)[:4] == ["theirs", "wisp.media.other.a.0", "wisp.media.my-s3.a.0", "t"]


def test_a_region_that_the_server_fills_in_is_no_change() -> None:
    """Else the document would be written at every look."""
    after = merge(EMPTY, wanted("a"), PREFIX, ARNS)
    assert after
    assert merge(after.replace(b"sqs::", b"sqs:us-east-1:"), wanted("a"), PREFIX, ARNS) is None


def test_a_changed_filter_replaces_the_rule() -> None:
    """Under the same id."""
    after = merge(EMPTY, wanted("a"), PREFIX, ARNS)
    changed = {rule._replace(prefix="out/") for rule in wanted("a")}
    replaced = merge(after or b"", changed, PREFIX, ARNS)
    assert ids(replaced) == ids(after)
    assert b"out/" in (replaced or b"")


def test_ids_are_bounded_and_prefixes_never_overlap() -> None:
    """S3 takes 255 characters; a connection `a` must not own what `a.b` made."""
    long = BucketRule(subscription="s" * 253, bucket="b", events=["s3:ObjectCreated:*"])
    assert all(len(rule.id) <= 255 for rule in wanted_rules(id_prefix("n" * 63, "c" * 253), [long], ARNS))
    assert not id_prefix("media", "a.b").startswith(id_prefix("media", "a"))


def test_a_document_that_is_no_xml_is_an_error() -> None:
    """Never a reason to write over it."""
    with pytest.raises(ValueError, match="can't be read"):
        merge(b"<html", wanted("a"), PREFIX, ARNS)


def test_a_topics_rules_are_put_alone() -> None:
    """Ceph's gateway adds what is put, and refuses all of it for a rule of somebody else's whose topic is gone."""
    needed = change(THEIRS, wanted("a", arns=[TOPIC]), PREFIX, [TOPIC])
    assert needed
    assert ids(needed.document) == ["wisp.media.my-s3.a.0"]
    assert TOPIC.encode() in (needed.document or b"")
    assert needed.gone == ()


def test_a_topics_rule_goes_by_its_id() -> None:
    """What is put can't remove it; one whose filter changed is put over."""
    both = change(EMPTY, wanted("a", "b", arns=[TOPIC]), PREFIX, [TOPIC])
    assert both
    assert both.document
    assert change(both.document, wanted("a", "b", arns=[TOPIC]), PREFIX, [TOPIC]) is None
    assert change(both.document, wanted("b", arns=[TOPIC]), PREFIX, [TOPIC]) == Change(None, ("wisp.media.my-s3.a.0",))
    other = {rule._replace(prefix="out/") for rule in wanted("a", arns=[TOPIC])}
    needed = change(both.document, other, PREFIX, [TOPIC])
    assert needed
    assert ids(needed.document) == ["wisp.media.my-s3.a.0"]
    assert needed.gone == ("wisp.media.my-s3.b.0",)
