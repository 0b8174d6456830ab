"""The Deployment of a reader."""

from wisp_operator.config import OperatorConfig
from wisp_operator.nats_auth import User
from wisp_operator.reader import make_deployment
from wisp_operator.sources import ReaderKey

CONFIG = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n")


def test_a_lost_node_holds_no_reader() -> None:
    """There is one reader for a source: it is made elsewhere seconds after its node is known to be gone."""
    made = make_deployment(
        "shop", ReaderKey("postgres", "shop-db"), User("r", []), "credentials", CONFIG, connected=False
    )
    found = made["spec"]["template"]["spec"]["tolerations"]
    waits = {item["key"]: item["tolerationSeconds"] for item in found if item["effect"] == "NoExecute"}
    assert waits == {"node.kubernetes.io/not-ready": 5, "node.kubernetes.io/unreachable": 5}
