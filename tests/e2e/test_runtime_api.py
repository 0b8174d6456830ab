"""Code that speaks Lambda's Runtime API itself, on the cluster: an executable, and an image with a client of its own."""

import json
from pathlib import Path

from fixtures.functions import call
from fixtures.process import wait_until
from wisp_cluster.demo import manifests
from wisp_cluster.images import built_images
from wisp_cluster.kubectl import Kubectl

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_bootstrap_in_the_manifest_answers(namespace: Kubectl) -> None:
    """The example's shell script greets by name."""
    namespace.apply(EXAMPLES / "hello-provided")
    url = namespace.wait_ready("functions", "hello-provided")["status"]["url"]
    status, body = call(url, "/?name=Ada")
    assert (status, json.loads(body)["message"]) == (200, "Hello, Ada!")


def test_an_image_made_for_lambda_answers_and_survives_a_timeout(namespace: Kubectl) -> None:
    """The client finds the front beside it; the caller of an event that hangs has the timeout, and the container is started anew."""
    namespace.apply(manifests("hello-image", built_images()))
    url = namespace.wait_ready("functions", "hello-image")["status"]["url"]
    status, body = call(url, "/?name=Ada")
    assert (status, json.loads(body)["message"]) == (200, "Hello, Ada!")
    status, failed = call(url, "/?seconds=600")
    assert (status, json.loads(failed)["errorType"]) == (504, "Sandbox.Timedout")

    def anew() -> bool:
        status, again = call(url)
        return status == 200 and json.loads(again)["started"] > json.loads(body)["started"]

    wait_until(anew, "the image's container is started anew and answers", 180)
