"""What the operator tells a Function's pods of who may call."""

import json
from typing import Any

import msgspec
import pytest
from fixtures.objects import make_function
from wisp_api.caller import Auth
from wisp_api.function import FunctionSpec
from wisp_operator.callers import Keys, make_auth_config_map, public_jwk
from wisp_operator.function_objects import make_knative_service
from wisp_operator.route import _targets

KEYS = Keys({"keys": [{"kid": "p"}]}, {"keys": [{"kid": "c"}]}, "https://cluster")
CLIENT_IMAGE = {"runtime": "container", "signature": "lambda", "handler": None, "code": {"image": "a"}}


def issuers(**auth: Any) -> dict[str, dict[str, Any]]:
    """The issuers of a Function with this `auth`, by name."""
    made = make_auth_config_map(make_function(auth=auth), msgspec.convert(auth, Auth), KEYS)
    assert made["metadata"]["name"] == "hello-auth"
    return {one["issuer"]: one for one in json.loads(made["data"]["auth.json"])["issuers"]}


def pod(**spec: Any) -> dict[str, Any]:
    """The pod's template of a Function."""
    function = make_function(**spec)
    service = make_knative_service(function, msgspec.convert(function["spec"], FunctionSpec), "runtime")
    made: dict[str, Any] = service["spec"]["template"]
    return made


def test_token_admits_the_platform_its_namespace_and_whom_it_lists() -> None:
    """All for an audience that names this Function; the platform needs no listing."""
    callers = [{"namespace": "shop", "serviceAccount": "till"}, {"namespace": "ops"}]
    found = issuers(type="token", callers=callers)
    assert found.keys() == {"wisp.dev", "https://cluster"}
    assert {tuple(one["audiences"]) for one in found.values()} == {("wisp.dev/media/hello",)}
    assert found["https://cluster"]["callers"] == [
        "system:serviceaccount:media:",
        "system:serviceaccount:shop:till",
        "system:serviceaccount:ops:",
    ]
    assert "callers" not in found["wisp.dev"]


def test_jwt_admits_the_platform_and_the_issuer() -> None:
    """Deliveries of its Subscriptions go on; what the issuer's tokens say is handed to the function."""
    jwt = {"issuer": "https://login", "audiences": ["api"], "jwksUrl": "https://login/keys", "scopes": ["read"]}
    assert issuers(type="jwt", **jwt)["https://login"] == jwt | {"claims": True}
    assert issuers(type="jwt", **jwt)["wisp.dev"]["keys"] == KEYS.platform
    assert "https://cluster" not in issuers(type="jwt", **jwt)


@pytest.mark.parametrize("spec", [{}, CLIENT_IMAGE])
def test_the_file_is_in_the_container_of_the_front(spec: dict[str, Any]) -> None:
    """Which is the first one, also where the image brings its own client of the Runtime API."""
    made = pod(auth={"type": "token"}, **spec)["spec"]
    first, *others = made["containers"]
    mount = {"name": "auth", "mountPath": "/etc/wisp/auth", "readOnly": True}
    assert mount in first["volumeMounts"]
    assert {"name": "WISP_AUTH_FILE", "value": "/etc/wisp/auth/auth.json"} in first["env"]
    assert all(mount not in other["volumeMounts"] for other in others)
    assert {"name": "auth", "configMap": {"name": "hello-auth"}} in made["volumes"]


def test_another_caller_or_key_makes_no_new_revision() -> None:
    """Only whether a token is asked for does: who may call holds for every revision at once."""
    assert pod(auth={"type": "token"}) == pod(auth={"type": "token", "callers": [{"namespace": "shop"}]})
    assert pod(auth={"type": "token"}) != pod(auth={"type": "none"}) == pod()


def test_deliveries_are_signed_where_a_token_is_asked_for() -> None:
    """The route says for whom; no other function gets the platform's token."""
    status = {"traffic": [{"revision": "hello-1", "percent": 100}]}
    for auth, audience in (({"type": "token"}, "wisp.dev/media/hello"), ({"type": "none"}, ""), (None, "")):
        (target,) = _targets(make_function(auth=auth) | {"status": status}, None, "cluster.local")
        assert target.audience == audience


def test_a_key_that_is_none_is_told_without_its_content() -> None:
    """The Secret's name is."""
    assert public_jwk("00" * 32)["crv"] == "Ed25519"
    for wrong in ("", "zz" * 32, "00" * 31):
        with pytest.raises(ValueError, match="wisp-caller-keys"):
            public_jwk(wrong)
