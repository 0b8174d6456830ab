"""Formats, from the log through a real router to handlers as people write them for AWS Lambda, in the real runtime."""

import json
import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from fixtures.powertools import packages
from fixtures.router_world import NAMESPACE, World, event, eventually
from unit.runtime.conftest import SOURCE, FunctionProcess, serve, start
from wisp_api import cloudevent, names, route
from wisp_api.cloudevent import Event
from wisp_api.route import Batch, Retry, Target

Serve = Callable[..., FunctionProcess]
__all__ = ["serve", "start"]

QUICK = Retry(max_attempts=10, initial_seconds=0.02, max_seconds=0.05)
S3_HANDLER = """
import json
import urllib.parse


def handler(event, context):
    bucket = event['Records'][0]['s3']['bucket']['name']
    key = urllib.parse.unquote_plus(event['Records'][0]['s3']['object']['key'], encoding='utf-8')
    print(json.dumps({"got": [bucket, key, len(event['Records']), context.aws_request_id]}))
    return key
"""
DYNAMODB_HANDLER = """
import json

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
from boto3.dynamodb.types import TypeDeserializer

processor, read, tried = BatchProcessor(event_type=EventType.DynamoDBStreams), TypeDeserializer().deserialize, set()


def handle(record: DynamoDBRecord):
    image = {name: read(value) for name, value in record["dynamodb"]["NewImage"].items()}
    assert image == record.dynamodb.new_image
    if image["n"] == 3 and 3 not in tried:
        tried.add(3)
        raise ValueError("not yet")
    table = record.event_source_arn.split("/")[1]
    print(json.dumps({"got": [table, record.event_name.name, int(image["n"]), int(record.dynamodb.keys["id"])]}))


def handler(event, context):
    return process_partial_response(event, handle, processor, context)
"""


def told(function: FunctionProcess) -> list[Any]:
    """What the handler has printed so far."""
    return [line["got"] for line in map(json.loads, list(function.raw_lines)) if "got" in line]


def row(number: int, **fields: Any) -> Event:
    """A row's insert."""
    data = {"op": "insert", "key": {"id": number}, "old": None, "new": {"id": number, "n": number}}
    return event(number, f"public.orders:[{number % 3}]", data=data | fields)


async def test_s3_handler_of_awss_documentation(w: World, serve: Serve) -> None:
    """A handler written for S3's events runs unchanged: bucket, decoded key, one record, and the event's id as its request's."""
    function = serve(S3_HANDLER)
    target = Target(url=f"http://127.0.0.1:{function.port}/")
    await w.subscribe(format=route.S3, targets=[target], timeout_seconds=60)
    found = {
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": "photos"}, "object": {"key": "in%2Fa+b.jpg"}},
    }
    await w.publish(msgspec.structs.replace(event(7, data=found), subject="in/a b.jpg"))
    await eventually(lambda: bool(told(function)), "the handler's line")
    assert told(function) == [["photos", "in/a b.jpg", 1, "7"]]


async def test_dynamodb_handler_with_powertools(w: World, serve: Serve) -> None:
    """Powertools reads the records of a batch, and what its batch processor calls failed comes again, that alone."""
    function = serve(DYNAMODB_HANDLER, PYTHONPATH=f"{SOURCE}{os.pathsep}{packages()}", AWS_REGION="eu-north-1")
    target = Target(url=f"http://127.0.0.1:{function.port}/")
    fields: dict[str, Any] = {
        "batch": Batch(size=10, window_seconds=1),
        "retry": QUICK,
        "targets": [target],
        "timeout_seconds": 60,
    }
    await w.subscribe(format=route.DYNAMODB, **fields)
    subject = names.row_subject(NAMESPACE, "db", "public", "orders", 0)
    await w.publish_raw(subject, cloudevent.encode_frame([cloudevent.encode(row(n)) for n in range(5)]))
    await eventually(lambda: len(told(function)) == 5, "the handler's lines")
    assert sorted(told(function)) == [["public.orders", "INSERT", n, n] for n in range(5)]


async def test_batches_stay_below_six_megabytes_as_they_are_sent(w: World) -> None:
    """What counts is the length of the records, which is several times that of the rows; none of these is left behind."""
    await w.subscribe(format=route.DYNAMODB, batch=Batch(size=10_000, window_seconds=1), parallelism=1)
    for n in range(16):
        await w.publish(row(n, new={"n": [1] * 50_000}))
    await eventually(lambda: sum(one.body.count(b'"eventID"') for one in w.function.finished) == 16, "all rows")
    assert sorted(map(int, records(w))) == list(range(16))
    assert all(len(one.body) <= 6 * 1024 * 1024 for one in w.function.requests)
    assert all(one.headers["wisp-event-format"] == "lambda" for one in w.function.requests)


@pytest.mark.parametrize("batch", [None, Batch(size=10), Batch(size=10, tumbling_seconds=900)])
async def test_what_can_not_be_told_is_a_dead_letter(w: World, batch: Batch | None) -> None:
    """An event that no record can be made of is dead-lettered as it stands in the log, and takes no other one along."""
    w.function.answer = lambda _: (200, {"wisp-request-id": "r"}, b'{"state":{}}')
    await w.subscribe(format=route.DYNAMODB, batch=batch)
    await w.publish(row(0), event(1, data=[]), row(2), row(3))
    [letter] = await w.dead_letters(1)
    assert (letter.reason, letter.event and cloudevent.decode(letter.event).id) == ("Malformed", "1")
    await eventually(lambda: sorted(records(w)) == ["0", "2", "3"], "the other rows")


def records(w: World) -> list[str]:
    """The events that were delivered."""
    return [one["dynamodb"]["SequenceNumber"] for request in w.function.finished for one in request.json()["Records"]]


async def test_windows_have_records_of_the_format(w: World) -> None:
    """A call of a window is Lambda's event itself, with DynamoDB's records; the answer's state is the next one's."""
    w.function.answer = lambda _: (200, {"wisp-request-id": "r"}, b'{"state":{"n":1}}')
    await w.subscribe(format=route.DYNAMODB, batch=Batch(size=1, tumbling_seconds=2))
    await w.publish(row(0), row(3))
    await eventually(lambda: any(one.json()["isFinalInvokeForWindow"] for one in w.function.finished), "the last call")
    assert sorted(records(w)) == ["0", "3"]
    calls = [one.json() for one in w.function.finished]
    assert calls[0].keys() >= {"Records", "window", "state", "shardId", "isWindowTerminatedEarly"}
    [last, *_] = [call for call in calls if call["isFinalInvokeForWindow"]]
    assert (last["Records"], last["state"]) == ([], {"n": 1})


async def test_format_may_be_changed(w: World) -> None:
    """What comes after another format was written is told in that; what failed before comes again in it."""
    w.function.answer = lambda request: (200 if "Records" in request.json() else 503, {}, b"")
    await w.subscribe(format=route.DEBEZIUM, retry=QUICK)
    await w.publish(row(1))
    await eventually(lambda: bool(w.function.requests), "an attempt")
    assert w.function.requests[0].json()["op"] == "c"
    await w.subscribe(format=route.DYNAMODB, retry=QUICK, generation=2)
    await eventually(lambda: records(w) == ["1"], "the delivery")
