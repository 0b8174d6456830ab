"""An object event as a record of Amazon S3's notifications, as AWS Lambda hands it to a function.

Specification: Amazon S3 User Guide, "Event message structure". The event's data is the record as the S3 server sent it; servers differ
from AWS in names, the escaping of keys and in what they leave empty (see `ingest.s3`).
"""

from typing import Any, Final
from urllib.parse import quote_plus

import msgspec
from wisp_api.cloudevent import Event

from wisp_events.router.formats import REGION, rows

VERSION: Final = "2.1"
NAMES: Final = {"ObjectListed": "ObjectCreated:Put"}
"""Of a listing's events (see `sources.s3_objects`): a handler on AWS knows no other name for an object that is there."""
_decoder = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


def record(_: str, event: Event, stored: float) -> bytes:  # noqa: ARG001 - as the other formats' are called
    """The record, with the event's id as `eventID` besides.

    Raises:
        ValueError: the data is no record of S3's.
        RecursionError: a value is nested too deeply.
    """
    made = _decoder.decode(rows.data(event))
    told = made.get("s3")
    if not isinstance(told, dict) or not isinstance(told.get("bucket"), dict):
        raise ValueError("the event's data is no record of an S3 notification")  # noqa: TRY004 - of data
    bucket, found = told["bucket"], told.get("object")
    key = quote_plus(event.subject or "", safe="/")
    name = str(bucket.get("name", ""))
    entity: dict[str, Any] = {"s3SchemaVersion": "1.0", "configurationId": ""} | told
    entity["bucket"] = {"ownerIdentity": {"principalId": ""}, "arn": f"arn:aws:s3:::{name}"} | bucket
    order = {"sequencer": event.sequence.lstrip("0")} if event.sequence else {}
    entity["object"] = order | (found if isinstance(found, dict) else {}) | {"key": key}
    event_name = str(made.get("eventName", "")).removeprefix("s3:")
    filled = {"userIdentity": {"principalId": ""}, "requestParameters": {}, "responseElements": {}} | made
    return _encode(
        filled
        | {
            "eventVersion": VERSION,
            "eventSource": "aws:s3",
            "awsRegion": made.get("awsRegion") or REGION,
            "eventName": NAMES.get(event_name, event_name),
            "eventID": event.id,
            "s3": entity,
        }
    )
