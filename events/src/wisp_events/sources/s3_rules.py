"""A bucket's notification document: ours merged in, everything else left as it is.

Invariant: elements that are not ours come out as they went in, whatever they are. Ours are known by their id, which names
namespace and connection, together with a destination of this installation, so that neither another connection nor
another installation on the same server takes them for its own.

Two kinds of server (docs/decisions/0056): most replace the document by what is put. Ceph's gateway, whose destinations are topics, adds what
is put to what it has, and removes a rule by its id; there only ours are put, for a rule of somebody else's whose topic is gone would be refused.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple
from xml.etree import ElementTree as ET

from wisp_api import names
from wisp_api.source import BucketRule

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
LONGEST_PART: Final = 60
"""Of an id, whose three parts have to fit into the 255 characters that S3 takes."""

_TOPIC_ARN: Final = "arn:aws:sns:"
_AWS_TOPIC = re.compile(r"arn:aws:sns:[^:]*:[0-9]{12}:")
"""AWS replaces the document: what Ceph's gateway is sent would erase everybody else's rules there."""
_KINDS: Final = {"QueueConfiguration": "Queue", "TopicConfiguration": "Topic"}
"""The elements that hold rules, and where each has its destination."""
_NOT_AWS: Final = (
    "topics are for Ceph's gateway only; an administrator has to correct notificationArns in the chart's s3.servers"
)
_MINIO_REGION = re.compile(r"^(arn:minio:sqs):[^:]*:")

ET.register_namespace("", NAMESPACE)


class Rule(NamedTuple):
    """One notification rule."""

    id: str
    arn: str
    events: frozenset[str]
    prefix: str
    suffix: str


def id_prefix(namespace: str, connection: str) -> str:
    """What the ids of one reader's rules begin with."""
    return f"wisp.{_short(namespace)}.{_short(connection)}."


def wanted_rules(prefix: str, rules: Collection[BucketRule], arns: Collection[str]) -> set[Rule]:
    """The rules of one bucket: each Subscription's wish to each destination."""
    return {
        Rule(
            f"{prefix}{_short(rule.subscription)}.{number}",
            _plain(arn),
            frozenset(rule.events),
            rule.prefix,
            rule.suffix,
        )
        for rule in rules
        for number, arn in enumerate(arns)
    }


class Change(NamedTuple):
    """What brings a bucket's rules in line."""

    document: bytes | None
    """To be put."""
    gone: tuple[str, ...]
    """Ids to be removed one by one."""


def change(document: bytes, wanted: set[Rule], prefix: str, arns: Collection[str]) -> Change | None:
    """What makes the bucket's document hold our rules as wanted; None where it does.

    Raises:
        ValueError: the document is not XML, or a destination is a topic of AWS.
    """
    if wrong := [arn for arn in arns if _AWS_TOPIC.match(arn)]:
        raise ValueError(f"{wrong[0]} has an AWS account number: {_NOT_AWS}")
    try:
        root = ET.fromstring(document)  # noqa: S314 - a server that the administrator listed
    except ET.ParseError as error:
        raise ValueError(f"the server's notification document can't be read: {error}") from error
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    missing, unwanted = set(wanted), {}
    for element, rule in _ours(root, space, prefix, arns):
        if rule in missing:
            missing.remove(rule)
        else:
            unwanted[element] = rule.id
    if not missing and not unwanted:
        return None
    if are_topics(arns):
        gone = set(unwanted.values()) - {rule.id for rule in missing}
        return Change(_written(ET.Element(root.tag), space, missing) if missing else None, tuple(sorted(gone)))
    for element in unwanted:
        root.remove(element)
    return Change(_written(root, space, missing), ())


def are_topics(arns: Collection[str]) -> bool:
    """Whether a server's destinations are those of Ceph's gateway."""
    return all(arn.startswith(_TOPIC_ARN) for arn in arns)


def _ours(root: ET.Element, space: str, prefix: str, arns: Collection[str]) -> Iterator[tuple[ET.Element, Rule]]:
    """The rules that are ours."""
    destinations = {_plain(arn) for arn in arns}
    for kind in _KINDS:
        for element in root.findall(f"{space}{kind}"):
            rule = _read(element, space)
            if rule.id.startswith(prefix) and rule.arn in destinations:
                yield element, rule


def _written(root: ET.Element, space: str, rules: set[Rule]) -> bytes:
    """The document with these rules added."""
    for rule in sorted(rules):
        _append(root, space, rule)
    return ET.tostring(root)


def _read(element: ET.Element, space: str) -> Rule:
    filters = {
        (rule.findtext(f"{space}Name") or "").lower(): rule.findtext(f"{space}Value") or ""
        for rule in element.iter(f"{space}FilterRule")
    }
    return Rule(
        element.findtext(f"{space}Id") or "",
        _plain(element.findtext(f"{space}Queue") or element.findtext(f"{space}Topic") or ""),
        frozenset(event.text or "" for event in element.findall(f"{space}Event")),
        filters.get("prefix", ""),
        filters.get("suffix", ""),
    )


def _append(root: ET.Element, space: str, rule: Rule) -> None:
    kind = "TopicConfiguration" if rule.arn.startswith(_TOPIC_ARN) else "QueueConfiguration"
    element = ET.SubElement(root, f"{space}{kind}")
    ET.SubElement(element, f"{space}Id").text = rule.id
    ET.SubElement(element, f"{space}{_KINDS[kind]}").text = rule.arn
    for event in sorted(rule.events):
        ET.SubElement(element, f"{space}Event").text = event
    filters = [(name, value) for name, value in (("prefix", rule.prefix), ("suffix", rule.suffix)) if value]
    if filters:
        key = ET.SubElement(ET.SubElement(element, f"{space}Filter"), f"{space}S3Key")
        for name, value in filters:
            one = ET.SubElement(key, f"{space}FilterRule")
            ET.SubElement(one, f"{space}Name").text = name
            ET.SubElement(one, f"{space}Value").text = value


def _plain(arn: str) -> str:
    """MinIO answers with its region filled in; without it an ARN means the same."""
    return _MINIO_REGION.sub(r"\1::", arn)


def _short(name: str) -> str:
    """A name as a part of an id: without dots, and bounded."""
    escaped = names.token(name)
    return escaped if len(escaped) <= LONGEST_PART else hashlib.sha256(name.encode()).hexdigest()[:LONGEST_PART]
