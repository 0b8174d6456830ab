"""Who may call a Function, as the runtime's front reads it: a ConfigMap with the issuers whose tokens are taken and their public keys.

The front reads it anew when it changes, so neither a rotated key nor another caller makes a new revision, and both hold for
every revision at once. It holds nothing secret; whoever may write it may write the Function, too.
"""

import asyncio
import base64
import json
import logging
import time
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from wisp_api import caller
from wisp_api.caller import Auth

from wisp_operator.api import Api, ApiError, Object
from wisp_operator.config import OperatorConfig
from wisp_operator.function_objects import AUTH_FILE, auth_config_map_name, make_labels, make_owner_reference
from wisp_operator.secrets import ensure_caller_keys

_DISCOVERY: Final = "/.well-known/openid-configuration"
_CLUSTER_KEYS: Final = "/openid/v1/jwks"
_log = logging.getLogger(__name__)


class Keys(NamedTuple):
    """Public keys, as JWK sets."""

    platform: Object
    cluster: Object
    cluster_issuer: str


class CallerKeys:
    """The keys, looked up again when they are older than the operator's resync."""

    def __init__(self, api: Api, config: OperatorConfig) -> None:
        """Know none yet."""
        self._api = api
        self._config = config
        self._lock = asyncio.Lock()
        self._keys: Keys | None = None
        self._looked = 0.0

    async def get(self) -> Keys:
        """The keys; those known before where they can't be had now.

        Raises:
            ApiError: they can't be had, and never were.
        """
        async with self._lock:
            if self._keys is None or time.monotonic() - self._looked > self._config.resync_seconds:
                try:
                    self._keys = await self._look()
                except ApiError as error:
                    if self._keys is None:
                        raise
                    _log.warning("callers' keys can't be looked up, those known stay: %s", error)
                self._looked = time.monotonic()
            return self._keys

    async def _look(self) -> Keys:
        seeds = await ensure_caller_keys(self._api, self._config)
        known = (caller.CURRENT, caller.NEXT, caller.PREVIOUS)
        platform = {"keys": [public_jwk(seeds[name]) for name in known if name in seeds]}
        issuer = (await self._api.read(_DISCOVERY))["issuer"]
        return Keys(platform, await self._api.read(_CLUSTER_KEYS), issuer)


def public_jwk(seed: str) -> Object:
    """The public half of a key of the platform's.

    Raises:
        ValueError: it is no Ed25519 seed in hex.
    """
    try:
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
    except ValueError:
        raise ValueError(f"Secret {caller.KEY_SECRET}: a key is no Ed25519 seed of 64 hex digits") from None
    public = key.public_key().public_bytes_raw()
    text = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": caller.key_id(public), "x": text}


def make_auth_config_map(function: Object, auth: Auth, keys: Keys) -> Object:
    """The issuers of a Function that not everybody may call."""
    meta = function["metadata"]
    issuers = _issuers(meta["namespace"], meta["name"], auth, keys)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": auth_config_map_name(meta["name"]),
            "namespace": meta["namespace"],
            "labels": make_labels(meta["name"]),
            "ownerReferences": [make_owner_reference(function)],
        },
        "data": {AUTH_FILE: json.dumps({"issuers": issuers}, sort_keys=True)},
    }


def _issuers(namespace: str, name: str, auth: Auth, keys: Keys) -> list[Object]:
    """The router's deliveries are admitted whatever the type: a Subscription is made by who may also write the Function."""
    audiences = [caller.audience(namespace, name)]
    platform: Object = {"issuer": caller.ISSUER, "audiences": audiences, "keys": keys.platform}
    if auth.type == "token":
        cluster = {"issuer": keys.cluster_issuer, "audiences": audiences, "keys": keys.cluster}
        return [platform, {**cluster, "callers": _subjects(namespace, auth)}]
    own: dict[str, Any] = {"issuer": auth.issuer, "audiences": auth.audiences, "claims": True}
    if auth.jwks_url:
        own["jwksUrl"] = auth.jwks_url
    if auth.scopes:
        own["scopes"] = auth.scopes
    return [platform, own]


def _subjects(namespace: str, auth: Auth) -> list[str]:
    """Subjects of ServiceAccounts as Kubernetes writes them; one that ends in ':' stands for all of its namespace."""
    prefix = "system:serviceaccount"
    listed = [f"{prefix}:{one.namespace}:{one.service_account or ''}" for one in auth.callers or []]
    return [f"{prefix}:{namespace}:", *listed]
