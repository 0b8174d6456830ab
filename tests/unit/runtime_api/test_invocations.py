"""The Runtime API as a runtime sees it: statuses, documents and headers are AWS Lambda's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.worker import ERROR, RESULT
from unit.runtime_api.conftest import NEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime_api.conftest import Bridge

INIT_ERROR = "/2018-06-01/runtime/init/error"
STREAMING = {"Lambda_Runtime_Function_Response_Mode": "streaming", "Transfer_Encoding": "chunked"}
PRELUDE_TYPE = "application/vnd.awslambda.http-integration-response"


def test_an_invocation_goes_out_and_comes_back(bridge: Callable[..., Bridge]) -> None:
    """The runtime gets the event with Lambda's headers, and what it responds is the invocation's result."""
    worker = bridge()
    runtime = worker.polling()
    number = worker.invoke(
        b'{"a": 1}', id="one", deadline=1234, xray="Root=1-2-3", clientContext={"custom": {"k": "ø"}}
    )
    event = runtime.receive()
    assert (event.status, event.body) == (200, b'{"a": 1}')
    assert event.headers["content-type"] == "application/json"
    assert event.headers["lambda-runtime-aws-request-id"] == "one"
    assert event.headers["lambda-runtime-deadline-ms"] == "1234"
    assert event.headers["lambda-runtime-invoked-function-arn"] == "arn:wisp:lambda:::function:tests:hello"
    assert event.headers["lambda-runtime-trace-id"] == "Root=1-2-3"
    assert json.loads(event.headers["lambda-runtime-client-context"]) == {"custom": {"k": "ø"}}
    accepted = runtime.respond("one", b'{"b": 2}')
    assert (accepted.status, accepted.json) == (202, {"status": "OK"})
    assert worker.answer(number) == [(RESULT, number, {}, b'{"b": 2}')]


def test_what_is_not_there_has_no_header(bridge: Callable[..., Bridge]) -> None:
    """Without trace and client context their headers are absent, not empty."""
    worker = bridge()
    runtime = worker.polling()
    worker.invoke(b"1")
    assert not {"lambda-runtime-trace-id", "lambda-runtime-client-context", "lambda-runtime-cognito-identity"} & set(
        runtime.receive().headers
    )


@pytest.mark.parametrize(
    ("head", "body", "wanted"),
    [
        ({"data": "json"}, b'{"n": 1.10}', {"id": "1", "data": {"n": 1.1}}),
        ({"data": "text"}, "grüße".encode(), {"id": "1", "data": "grüße"}),
        ({"data": "bytes"}, b"\xff\x00", {"id": "1", "data_base64": "/wA="}),
        ({}, b"", {"id": "1"}),
    ],
)
def test_a_cloudevent_becomes_its_json_format(
    bridge: Callable[..., Bridge], head: dict[str, str], body: bytes, wanted: dict[str, Any]
) -> None:
    """A CloudEvent reaches the runtime as its JSON format, however its data was sent."""
    worker = bridge()
    runtime = worker.polling()
    worker.invoke(body, form="cloudevent", attributes={"id": "1"}, **head)
    assert runtime.receive().json == wanted


def test_a_body_that_is_not_json_never_reaches_the_runtime(bridge: Callable[..., Bridge]) -> None:
    """It is the caller's fault; the runtime's poll goes on waiting for the next event."""
    worker = bridge()
    runtime = worker.polling()
    kind, _, head, _ = worker.answer(worker.invoke(b"{"))[0]
    assert (kind, head["errorType"], head["fault"]) == (ERROR, "InvalidJson", "request")
    worker.invoke(b"1", id="good")
    assert runtime.receive().headers["lambda-runtime-aws-request-id"] == "good"


def test_a_response_that_is_not_json_is_passed_on_as_it_is(bridge: Callable[..., Bridge]) -> None:
    """AWS' own tutorial responds with plain text; the caller gets those bytes."""
    worker = bridge()
    runtime = worker.polling()
    number = worker.invoke(b"1", id="one")
    runtime.receive()
    runtime.respond("one", "Echoing: 1", Content_Type="text/plain")
    head = {"status": 200, "headers": [["content-type", "text/plain"]]}
    assert worker.answer(number) == [(RESULT, number, head, b"Echoing: 1")]


@pytest.mark.parametrize(
    ("body", "header", "wanted"),
    [
        (
            b'{"errorType": "Bad", "errorMessage": "no", "stackTrace": ["a", {"b": 1}]}',
            "Function.Bad",
            {"errorType": "Bad", "errorMessage": "no", "stackTrace": ["a", '{"b": 1}']},
        ),
        (
            b'{"errorMessage": "no", "trace": ["x"]}',
            "Bad",
            {"errorType": "Bad", "errorMessage": "no", "stackTrace": ["x"]},
        ),
        (b"no JSON", "Bad", {"errorType": "Bad", "errorMessage": "no JSON", "stackTrace": []}),
        (b"", "", {"errorType": "Runtime.UnknownReason", "errorMessage": "", "stackTrace": []}),
    ],
)
def test_an_error_of_the_function(
    bridge: Callable[..., Bridge], body: bytes, header: str, wanted: dict[str, Any]
) -> None:
    """What the runtime reports as the function's error is the invocation's, in whichever form it says it."""
    worker = bridge()
    runtime = worker.polling()
    number = worker.invoke(b"1", id="one")
    runtime.receive()
    accepted = runtime.fail("one", body, Lambda_Runtime_Function_Error_Type=header)
    assert (accepted.status, accepted.json) == (202, {"status": "OK"})
    assert worker.answer(number) == [(ERROR, number, wanted, b"")]


def test_answers_to_the_wrong_invocation_are_refused(bridge: Callable[..., Bridge]) -> None:
    """An id that isn't running is 400, a second answer to the same invocation 403, and neither harms the one that runs."""
    worker = bridge()
    runtime = worker.polling()
    first = worker.invoke(b"1", id="one")
    runtime.receive()
    assert runtime.respond("other", b"2").error == (400, "InvalidRequestID")
    assert runtime.fail("other", b"{}").error == (400, "InvalidRequestID")
    assert runtime.respond("one", b"3").status == 202
    again = runtime.respond("one", b"4")
    assert again.error == (403, "InvalidStateTransition")
    assert again.json["errorMessage"] == (
        "State transition from RuntimeResponseSentState to InvocationResponse failed for runtime. "
        "Error: State transition is not allowed"
    )
    assert worker.answer(first) == [(RESULT, first, {}, b"3")]
    runtime.send("GET", NEXT)
    second = worker.invoke(b"5", id="two")
    runtime.receive()
    assert runtime.respond("one", b"6").error == (400, "InvalidRequestID")
    assert runtime.respond("two", b"7").status == 202
    assert worker.answer(second) == [(RESULT, second, {}, b"7")]


def test_asking_again_without_an_answer_gives_the_same_invocation(bridge: Callable[..., Bridge]) -> None:
    """A runtime that lost its invocation gets it again; it can't take two."""
    worker = bridge()
    runtime = worker.polling()
    worker.invoke(b'"x"', id="one")
    assert runtime.receive().body == b'"x"'
    again = runtime.next()
    assert (again.body, again.headers["lambda-runtime-aws-request-id"]) == (b'"x"', "one")


def test_a_response_over_the_limit(bridge: Callable[..., Bridge]) -> None:
    """It is 413 for the runtime, Lambda's error for the caller, and the next invocation runs."""
    worker = bridge(WISP_MAX_BODY_BYTES="1000")
    runtime = worker.polling()
    number = worker.invoke(b"1", id="one")
    runtime.receive()
    assert runtime.respond("one", b'"' + b"x" * 2000 + b'"').error == (413, "RequestEntityTooLarge")
    kind, _, head, _ = worker.answer(number)[0]
    message = "Response payload size (2002 bytes) exceeded maximum allowed payload size (1000 bytes)."
    assert (kind, head) == (ERROR, {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message})
    runtime.send("GET", NEXT)
    worker.invoke(b"2", id="two")
    assert runtime.receive().body == b"2"


def test_a_runtime_that_asks_before_it_sends(bridge: Callable[..., Bridge]) -> None:
    """Curl holds a large body back until it is told to continue; it is."""
    worker = bridge()
    runtime = worker.polling()
    number = worker.invoke(b"1", id="one")
    runtime.receive()
    sock = runtime.raw()
    path = "/2018-06-01/runtime/invocation/one/response"
    sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n".encode())
    assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(b"2")
    assert worker.answer(number)[0].body == b"2"


def test_six_mebibytes_pass_in_both_directions(bridge: Callable[..., Bridge]) -> None:
    """Event and response may be as long as Lambda allows."""
    worker = bridge()
    runtime = worker.polling()
    body = b'"' + b"x" * ((6 << 20) - 2) + b'"'
    number = worker.invoke(body, id="one")
    assert runtime.receive().body == body
    runtime.send("POST", "/2018-06-01/runtime/invocation/one/response", body)
    assert worker.answer(number)[0].body == body
    assert runtime.receive().status == 202


def test_a_response_that_breaks_off(bridge: Callable[..., Bridge]) -> None:
    """The caller gets an error, not a part of the response."""
    worker = bridge()
    runtime = worker.polling()
    number = worker.invoke(b"1", id="one")
    runtime.receive()
    path = "/2018-06-01/runtime/invocation/one/response"
    with runtime.raw() as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".encode())
    kind, _, head, _ = worker.answer(number)[0]
    assert (kind, head["errorType"]) == (ERROR, "Runtime.TruncatedResponse")


def test_paths_and_methods_that_are_not_there(bridge: Callable[..., Bridge]) -> None:
    """They are 404 and 405, on the same connection."""
    runtime = bridge().client()
    assert runtime.call("GET", "/").status == 404
    assert runtime.call("GET", "/2018-06-01/runtime/invocation/x/nothing").status == 404
    assert runtime.call("POST", NEXT).status == 405
    assert runtime.call("GET", INIT_ERROR).status == 405


def test_an_unknown_response_mode(bridge: Callable[..., Bridge]) -> None:
    """There is only streaming."""
    worker = bridge()
    runtime = worker.polling()
    number = worker.invoke(b"1", id="one")
    runtime.receive()
    refused = runtime.respond("one", b"1", Lambda_Runtime_Function_Response_Mode="sideways")
    assert refused.error == (400, "InvalidFunctionResponseMode")
    assert worker.answer(number)[0][2]["errorType"] == "Runtime.InvalidResponseModeHeader"


def test_a_runtime_in_another_container(bridge: Callable[..., Bridge], free_port: int) -> None:
    """With WISP_RUNTIME_API nothing is started, and an answer to what nobody waits for any more is taken and dropped."""
    address = f"127.0.0.1:{free_port}"
    worker = bridge(None, WISP_RUNTIME_API=address)
    runtime = worker.external(address)
    assert runtime.respond("of-an-earlier-bridge", b"late").status == 202
    runtime.send("GET", NEXT)
    worker.ready()
    number = worker.invoke(b"1", id="one")
    assert runtime.receive().body == b"1"
    assert runtime.respond("one", b"2").status == 202
    assert worker.answer(number) == [(RESULT, number, {}, b"2")]


def test_a_second_poll_from_another_container(bridge: Callable[..., Bridge], free_port: int) -> None:
    """Its client has been started anew: what the one before had fails, and isn't given out again."""
    address = f"127.0.0.1:{free_port}"
    worker = bridge(None, WISP_RUNTIME_API=address)
    first, second = worker.external(address), worker.external(address)
    first.send("GET", NEXT)
    worker.ready()
    number = worker.invoke(b"1", id="one")
    assert first.receive().body == b"1"
    second.send("GET", NEXT)
    assert worker.answer(number)[0].head["errorType"] == "Runtime.ExitError"
    number = worker.invoke(b"2", id="two")
    assert second.receive().body == b"2"
    assert second.respond("two", b"3").status == 202
    assert worker.answer(number) == [(RESULT, number, {}, b"3")]


def test_a_poll_that_ends_in_another_container(bridge: Callable[..., Bridge], free_port: int) -> None:
    """The bridge ends too, so that the pod isn't ready, unless another poll comes at once."""
    address = f"127.0.0.1:{free_port}"
    worker = bridge(None, WISP_RUNTIME_API=address)
    first, second = worker.external(address), worker.external(address)
    first.send("GET", NEXT)
    worker.ready()
    second.send("GET", NEXT)
    first.connection.close()
    number = worker.invoke(b"1", id="one")
    assert second.receive().body == b"1"
    assert second.respond("one", b"2").status == 202
    assert worker.answer(number) == [(RESULT, number, {}, b"2")]
    second.connection.close()
    third = worker.connect(address)
    third.send("GET", NEXT)
    third.connection.close()
    assert worker.end() == 0


def test_big_events_leave_nothing_behind(bridge: Callable[..., Bridge]) -> None:
    """What an event and its answer took is free when it is answered, not when the garbage collector next comes by."""
    worker = bridge()
    runtime = worker.polling()
    for number in range(1, 21):
        worker.invoke(b'"' + b"x" * 5_000_000 + b'"')
        event = runtime.receive().body
        runtime.send("POST", f"/2018-06-01/runtime/invocation/r-{number}/response", event)
        assert worker.receive().body == event
        assert runtime.receive().status == 202
        runtime.send("GET", NEXT)
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    assert int(status.partition("RssAnon:")[2].split()[0]) < 80_000
