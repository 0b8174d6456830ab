"""The hello-image example's handler, and what its image is made of."""

from types import SimpleNamespace

from fixtures.examples import EXAMPLES, load, sample


def test_sample_event_is_greeted() -> None:
    """The sample is an event as the handler receives it; one without a query is greeted too."""
    handler, context = load("hello-image").handler, SimpleNamespace(aws_request_id="r-1")
    greeting = handler(sample("hello-image/events/function-url.json"), context)
    assert (greeting["message"], greeting["requestId"]) == ("Hello, Ada!", "r-1")
    assert handler({}, context)["message"] == "Hello, world!"


def test_the_image_knows_nothing_of_the_platform() -> None:
    """Its Dockerfile is one for AWS Lambda: no base, path or variable of ours."""
    text = (EXAMPLES / "hello-image/Dockerfile").read_text().partition("\n")[2]
    assert 'ENTRYPOINT ["/usr/bin/python3", "-m", "awslambdaric"]' in text
    assert "wisp" not in text.lower()
