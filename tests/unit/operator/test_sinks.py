"""What a sink has the operator read, and what it makes of trouble."""

from typing import Any, cast

import pytest
from fixtures.objects import make_subscription
from wisp_operator.api import Api, ApiError
from wisp_operator.config import OperatorConfig
from wisp_operator.event_plane import View, plan
from wisp_operator.sinks import FoundSink, find_sinks
from wisp_operator.sources import Wish, decode

CONFIG = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n")
KINDS = {"resources": [{"name": "brokers", "kind": "Broker", "namespaced": True}]}


class Cluster:
    """Answers of a Kubernetes API: what a path holds, or the error that it raises."""

    def __init__(self, answers: dict[str, Any]) -> None:
        """By path."""
        self._answers = answers
        self.asked: list[str] = []

    async def read(self, path: str) -> Any:
        """One answer."""
        self.asked.append(path)
        answer = self._answers.get(path)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def get(self, resource: Any, namespace: str, name: str) -> Any:
        """One object."""
        return await self.read(resource.path(namespace, name))


def wish(name: str, api_version: str, kind: str = "Broker") -> Wish:
    """A Subscription whose sink is a reference."""
    item = make_subscription(name, "media", source={"bus": {"name": "orders"}})
    del item["spec"]["function"]
    item["spec"]["sink"] = {"ref": {"apiVersion": api_version, "kind": kind, "name": "b"}}
    return decode(item)


async def find(cluster: Cluster, *wishes: Wish) -> dict[str, FoundSink]:
    """What is found."""
    return await find_sinks(cast("Api", cluster), CONFIG, list(wishes))


@pytest.mark.parametrize(
    "api_version",
    ["wisp.dev/v1alpha1/functions", "../api/v1/configmaps", "../api/v1/pods?watch=1&x=", "v1\n", "a/../v1"],
)
async def test_a_reference_does_not_choose_the_path_that_is_read(api_version: str) -> None:
    """One that was stored before the CRD's rule is a kind that there is not, and nothing is asked for."""
    cluster = Cluster({})
    found = await find(cluster, wish("s", api_version))
    assert found["s"].trouble
    assert (found["s"].trouble.reason, cluster.asked) == ("SinkNotFound", [])


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        (KINDS, {"address": {"url": "http://[x.svc"}}),
        (KINDS, {"address": {"url": 7}}),
        (KINDS, {"address": "http://b.media.svc"}),
        (KINDS, "ready"),
        ({"resources": [{"name": "brokers"}]}, {}),
    ],
)
async def test_what_is_no_address_is_told_of_and_stops_no_other_sink(kinds: Any, status: Any) -> None:
    """Whatever an object's status or an API's list of kinds holds."""
    good = {"status": {"address": {"url": "http://b.media.svc.cluster.local/x"}}}
    answers = {
        "/apis/a.dev/v1": kinds,
        "/apis/a.dev/v1/namespaces/media/brokers/b": {"status": status},
        "/apis/b.dev/v1": KINDS,
        "/apis/b.dev/v1/namespaces/media/brokers/b": good,
        "/api/v1/namespaces/media/services/b": {"spec": {}},
    }
    found = await find(Cluster(answers), wish("bad", "a.dev/v1"), wish("good", "b.dev/v1"))
    assert found["bad"].trouble
    assert (found["bad"].target, found["bad"].trouble.reason) == (None, "SinkNotAddressable")
    assert found["good"].target


@pytest.mark.parametrize(
    ("url", "reason", "said"),
    [
        ("http://b.media.svc.cluster.local.", "SinkNotAllowed", "no Service of this cluster"),
        ("http://user@b.media.svc.cluster.local", "SinkNotAddressable", "names a user"),
        ("http://:password@b.media.svc", "SinkNotAddressable", "names a user"),
        ("http://evil.test\\@b.media.svc", "SinkNotAddressable", "names a user"),
        ("http://b%2fproxy.media.svc", "SinkNotAllowed", "no Service of this cluster"),
        ("http://b..media.svc", "SinkNotAllowed", "no Service of this cluster"),
        ("http://.media.svc", "SinkNotAllowed", "no Service of this cluster"),
        ("http://media.svc", "SinkNotAllowed", "no Service of this cluster"),
        ("http://b.media.svc.example.com", "SinkNotAllowed", "no Service of this cluster"),
        ("http://169.254.169.254/", "SinkNotAllowed", "no Service of this cluster"),
        ("http://[::ffff:169.254.169.254]/", "SinkNotAllowed", "no Service of this cluster"),
        ("http://store.wisp-system.svc:8080", "SinkNotAllowed", "another namespace's"),
        ("http://b.media.svc.wisp-system.svc.cluster.local", "SinkNotAllowed", "no Service of this cluster"),
    ],
)
async def test_ways_around_an_address_are_closed(url: str, reason: str, said: str) -> None:
    """However a status writes it; of another namespace's Service nothing is read."""
    cluster = Cluster(
        {
            "/apis/a.dev/v1": KINDS,
            "/apis/a.dev/v1/namespaces/media/brokers/b": {"status": {"address": {"url": url}}},
            "/api/v1/namespaces/media/services/b": {"spec": {}},
        }
    )
    trouble = (await find(cluster, wish("s", "a.dev/v1")))["s"].trouble
    assert trouble
    assert (trouble.reason, said in trouble.message) == (reason, True)
    assert not any("/services/" in path for path in cluster.asked)


async def test_a_name_leads_to_what_the_installation_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a Channel's does to its dispatcher; the route names the Service in the end, and not one that a shared one leads to."""
    monkeypatch.setattr(CONFIG, "shared_services", ["gateway.system", "open.system"])
    services = "/api/v1/namespaces/{}/services/{}"
    cluster = Cluster(
        {
            services.format("media", "b"): {"spec": {"type": "ExternalName", "externalName": "Gateway.system.svc."}},
            services.format("system", "gateway"): {"spec": {"type": "ClusterIP"}},
        }
    )
    target = (await find(cluster, wish("s", "v1", "Service")))["s"].target
    assert target
    assert (target.url, target.service) == ("http://b.media.svc.cluster.local/", "gateway.system.svc.cluster.local")
    private = {"spec": {"type": "ExternalName", "externalName": "private.system.svc.cluster.local"}}
    cluster = Cluster({services.format("media", "b"): private})
    trouble = (await find(cluster, wish("s", "v1", "Service")))["s"].trouble
    assert trouble
    assert "private.system" in trouble.message
    assert len(cluster.asked) == 1


@pytest.mark.parametrize("error", [ApiError(503, b"away"), ConnectionError("no JSON"), TimeoutError()])
async def test_an_api_that_is_down_stops_no_delivery(error: Exception) -> None:
    """The condition says that it can't be asked; the route that there is stays, with other sinks' beside it."""
    known = {
        "/apis/a.dev/v1": KINDS,
        "/apis/a.dev/v1/namespaces/media/brokers/b": {"status": {"address": {"url": "http://b.media.svc"}}},
        "/api/v1/namespaces/media/services/b": {"spec": {"type": "ClusterIP"}},
    }
    wishes = [wish("far", "a.dev/v1"), wish("near", "v1", "Service")]
    view = View("media", wishes, sinks=await find(Cluster(known), *wishes))
    view.routes = plan(view, CONFIG, "cluster").routes
    view.sinks = await find(Cluster(known | {"/apis/a.dev/v1": error}), *wishes)
    trouble = view.sinks["far"].trouble
    assert trouble
    assert trouble.reason == "SinkNotReadable"
    assert plan(view, CONFIG, "cluster").routes == view.routes
    assert all(route.targets for route in view.routes.values())
