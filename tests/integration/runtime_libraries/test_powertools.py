"""Powertools for AWS Lambda from PyPI, unchanged, in a function as people write it for AWS Lambda."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.powertools import packages
from unit.runtime.conftest import SOURCE, serve, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

    Serve = Callable[..., FunctionProcess]
    Powertools = Callable[[str], FunctionProcess]

__all__ = ["serve", "start"]

APP = """
import json

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, LambdaFunctionUrlResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent
from aws_lambda_powertools.utilities.idempotency.persistence.base import BasePersistenceLayer, DataRecord
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyItemAlreadyExistsError, IdempotencyItemNotFoundError)
from aws_lambda_powertools.utilities.parser import BaseModel, ValidationError, event_parser
from aws_lambda_powertools.utilities.typing import LambdaContext

logger, metrics, tracer = Logger(service="orders"), Metrics(namespace="shop", service="orders"), Tracer(service="orders")


@tracer.capture_lambda_handler
@logger.inject_lambda_context(log_event=False)
@metrics.log_metrics(capture_cold_start_metric=True)
def observed(event, context: LambdaContext):
    logger.append_keys(order=event["order"])
    logger.info("taken", extra={"amount": 1.5})
    metrics.add_metric(name="Orders", unit=MetricUnit.Count, value=1)
    if event["order"] < 0:
        logger.exception("refused") if False else logger.error("refused")
        raise ValueError("no such order")
    return {"order": event["order"], "id": context.aws_request_id}


def routes(app):
    @app.get("/orders/<order>")
    def get_order(order: str):
        if order == "0":
            raise NotFoundError("no order 0")
        return {"order": order, "q": app.current_event.get_query_string_value("q", "none")}

    @app.post("/orders")
    def post_order():
        return Response(201, "application/json", json.dumps(app.current_event.json_body), cookies=[])

    return app


api, url = routes(APIGatewayHttpResolver()), routes(LambdaFunctionUrlResolver())


def by_api(event, context):
    return api.resolve(event, context)


def by_url(event, context):
    return url.resolve(event, context)


def record_handler(record):
    body = record.raw_event.get("body") or json.dumps(record.raw_event.get("dynamodb") or record.raw_event["kinesis"])
    if "bad" in body:
        raise ValueError("bad record")


def batch(event, context):
    kind = {"aws:sqs": EventType.SQS, "aws:kinesis": EventType.KinesisDataStreams, "aws:dynamodb": EventType.DynamoDBStreams}
    processor = BatchProcessor(event_type=kind[event["Records"][0]["eventSource"]])
    return process_partial_response(event, record_handler, processor, context)


class Order(BaseModel):
    id: int
    items: list[str]


@event_parser(model=Order)
def parsed(event: Order, context):
    return {"total": len(event.items), "id": event.id}


class InMemory(BasePersistenceLayer):
    def __init__(self):
        self.records = {}
        super().__init__()

    def _get_record(self, idempotency_key):
        if idempotency_key not in self.records:
            raise IdempotencyItemNotFoundError
        return self.records[idempotency_key]

    def _put_record(self, data_record):
        if data_record.idempotency_key in self.records:
            raise IdempotencyItemAlreadyExistsError(old_data_record=self.records[data_record.idempotency_key])
        self.records[data_record.idempotency_key] = data_record

    def _update_record(self, data_record):
        self.records[data_record.idempotency_key] = data_record

    def _delete_record(self, data_record):
        del self.records[data_record.idempotency_key]


store, charged = InMemory(), []


@idempotent(persistence_store=store, config=IdempotencyConfig(event_key_jmespath="id", raise_on_no_idempotency_key=True))
def charge(event, context):
    charged.append(event["id"])
    return {"charged": charged[:]}
"""


@pytest.fixture
def powertools(serve: Serve) -> Callable[[str], FunctionProcess]:
    """Serve one of the handlers."""
    env = {"POWERTOOLS_TRACE_DISABLED": "true", "AWS_REGION": "eu-north-1"}
    return lambda handler: serve(APP, f"app.{handler}", PYTHONPATH=f"{SOURCE}{os.pathsep}{packages()}", **env)


def test_logger_and_metrics(powertools: Powertools) -> None:
    """A log line of the Logger's is a log line here, with its own fields and the request's; metrics pass as they are."""
    function = powertools("observed")
    answer = function.invoke({"order": 7})
    request_id = answer.headers["wisp-request-id"]
    assert answer.json == {"order": 7, "id": request_id}
    line = function.log(lambda line: line.get("message") == "taken")
    assert line["requestId"] == line["function_request_id"] == request_id
    assert (line["service"], line["order"], line["amount"], line["level"]) == ("orders", 7, 1.5, "INFO")
    assert (line["function_name"], line["cold_start"]) == ("hello", True)
    metric = function.log(lambda line: "Orders" in line)
    assert (metric["Orders"], metric["_aws"]["CloudWatchMetrics"][0]["Namespace"]) == ([1.0], "shop")
    failed = function.invoke({"order": -1})
    assert (failed.status, failed.json["errorType"]) == (500, "ValueError")
    assert function.log(lambda line: line.get("message") == "refused")["level"] == "ERROR"


@pytest.mark.parametrize("handler", ["by_api", "by_url"])
def test_event_handlers(powertools: Powertools, handler: str) -> None:
    """Routes, path and query parameters, bodies and errors, from real HTTP requests."""
    function = powertools(handler)
    answer = function.request("/orders/7?q=a%20b")
    assert (answer.status, answer.json) == (200, {"order": "7", "q": "a b"})
    made = function.request("/orders", '{"a": "ø"}'.encode(), {"content-type": "application/json"})
    assert made.status == 201, made.body
    assert made.json == {"a": "ø"}
    missing = function.request("/orders/0")
    assert (missing.status, missing.json["message"]) == (404, "no order 0")
    assert function.request("/nothing").status == 404


def sqs(number: int, body: str) -> dict[str, Any]:
    """A record of a queue."""
    return {"messageId": f"m-{number}", "body": body, "eventSource": "aws:sqs", "receiptHandle": "r"}


def kinesis(number: int, body: str) -> dict[str, Any]:
    """A record of a stream."""
    data = {"sequenceNumber": f"m-{number}", "partitionKey": "k", "data": body}
    return {"kinesis": data, "eventSource": "aws:kinesis", "eventID": f"e-{number}"}


def dynamodb(number: int, body: str) -> dict[str, Any]:
    """A record of a table's stream."""
    data = {"SequenceNumber": f"m-{number}", "Keys": {"id": {"S": body}}, "StreamViewType": "KEYS_ONLY"}
    return {"dynamodb": data, "eventSource": "aws:dynamodb", "eventName": "INSERT", "eventID": f"e-{number}"}


@pytest.mark.parametrize("record", [sqs, kinesis, dynamodb])
def test_batch_processors(powertools: Powertools, record: Callable[[int, str], dict[str, Any]]) -> None:
    """The failed records are named in batchItemFailures; when all fail, that is the function's error."""
    function = powertools("batch")
    records = [record(number, "bad" if number == 2 else "good") for number in range(4)]
    assert function.invoke({"Records": records}).json == {"batchItemFailures": [{"itemIdentifier": "m-2"}]}
    assert function.invoke({"Records": records[:2]}).json == {"batchItemFailures": []}
    failed = function.invoke({"Records": records[2:3]})
    assert (failed.status, failed.json["errorType"]) == (500, "BatchProcessingError")


def test_parser(powertools: Powertools) -> None:
    """A valid event is a model, an invalid one pydantic's error."""
    function = powertools("parsed")
    assert function.invoke({"id": 1, "items": ["a", "b"]}).json == {"total": 2, "id": 1}
    failed = function.invoke({"id": "x", "items": None})
    assert (failed.status, failed.json["errorType"]) == (500, "ValidationError")


def test_idempotency(powertools: Powertools) -> None:
    """The second event with the same key gets the first one's result, and the handler isn't run for it."""
    function = powertools("charge")
    first = function.invoke({"id": "a"}).json
    assert function.invoke({"id": "a"}).json == first == {"charged": ["a"]}
    assert function.invoke({"id": "b"}).json == {"charged": ["a", "b"]}
    failed = function.invoke({})
    assert (failed.status, failed.json["errorType"]) == (500, "IdempotencyKeyError")
    assert json.loads(failed.body)["stackTrace"]
