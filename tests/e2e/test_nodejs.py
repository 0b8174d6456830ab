"""A Function in Node.js on the cluster: its answers, and a worker that ends costs its own event only."""

import json
from pathlib import Path

from fixtures.functions import call, function
from wisp_cluster.kubectl import Kubectl

EXAMPLES = Path(__file__).parents[2] / "examples"
CODE = """
export const handler = async ({ rawPath }) => {
  if (rawPath === "/reject") Promise.reject(new Error("nobody handles it"));
  if (rawPath === "/hang") await new Promise((resolve) => setTimeout(resolve, 60_000));
  return { version: process.versions.node };
};
"""


def test_hello_node_answers(namespace: Kubectl) -> None:
    """The example of the guide's chapter greets by name."""
    namespace.apply(EXAMPLES / "hello-node")
    url = namespace.wait_ready("functions", "hello-node")["status"]["url"]
    status, body = call(url, "/?name=Ada")
    assert (status, json.loads(body)["message"]) == (200, "Hello, Ada!")


def test_what_goes_wrong_costs_one_event(namespace: Kubectl) -> None:
    """A rejection that nobody handles and a timeout are answered as in AWS Lambda, and the same pod serves the next event."""
    code = {"files": {"app.mjs": CODE}}
    namespace.apply(function("shaky", code, runtime="nodejs24", timeoutSeconds=5, scale={"max": 1}))
    url = namespace.wait_ready("functions", "shaky")["status"]["url"]
    for path, wanted in (("/reject", "Runtime.UnhandledPromiseRejection"), ("/hang", "Sandbox.Timedout")):
        assert json.loads(call(url, path)[1])["errorType"] == wanted
        status, body = call(url)
        assert (status, json.loads(body)["version"].split(".")[0]) == (200, "24")
