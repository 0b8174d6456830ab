"""Keys and passwords of the installation: made once, never changed afterwards, kept in Secrets of the operator's own namespace.

The NATS server, router and ingest mount what is made here, so their pods wait until the operator has run once; no Helm hook is needed.
"""

import base64
import secrets
from typing import Final

from wisp_api import caller, names
from wisp_api.code import STORE_KEY, STORE_SECRET

from wisp_operator.api import SECRETS, Api, ApiError, Object
from wisp_operator.config import OperatorConfig
from wisp_operator.nats_auth import (
    ACCOUNT,
    SEEDS,
    ingest_user,
    make_credentials,
    make_server_config,
    new_seed,
    router_user,
)
from wisp_operator.nats_cluster import make_cluster_config

KEYS_SECRET: Final = "wisp-nats-keys"  # noqa: S105 - a name
SERVER_SECRET: Final = "wisp-nats-auth"  # noqa: S105 - a name
_CONFLICT: Final = 409


async def ensure_secrets(api: Api, config: OperatorConfig) -> dict[str, str]:
    """Make what is missing; the seeds of the log's server.

    With a NATS server of the user's own, the Secret wisp-nats-keys is there before, and the server's configuration is the user's affair.

    Raises:
        ApiError: refused.
        ValueError: the Secret wisp-nats-keys is there without all the seeds.
    """
    for name, keys in config.random_secrets.items():
        await _ensure(api, config.namespace, name, {key: secrets.token_hex(20) for key in keys})
    await _ensure(
        api, config.namespace, KEYS_SECRET, {name: new_seed(prefix) for name, prefix in SEEDS.items()}, whole=True
    )
    seeds = _data(await api.get(SECRETS, config.namespace, KEYS_SECRET))
    if missing := ", ".join(SEEDS.keys() - seeds.keys()):
        raise ValueError(
            f"Secret {KEYS_SECRET} of namespace {config.namespace} lacks {missing}: it holds the seeds of the NATS operator (operator, SO...), "
            "of Wisp's account (account, SA...) and of the system account (system, SA...)"
        )
    served = {"auth.conf": make_server_config(seeds)}
    if config.nats_peers:
        served["cluster.conf"] = make_cluster_config(seeds, config.nats_peers)
    await _keep(api, config.namespace, SERVER_SECRET, served)
    await ensure_caller_keys(api, config)
    for user in (router_user(), ingest_user()):
        await _keep(api, config.namespace, f"wisp-nats-{user.name}", {"creds": make_credentials(seeds[ACCOUNT], user)})
    return seeds


async def ensure_caller_keys(api: Api, config: OperatorConfig) -> dict[str, str]:
    """Make the keys that deliveries are signed with where they are missing; the seeds by name.

    There is always a next one that functions trust already, so that a rotation (see docs/operations.md) is one step without a gap.

    Raises:
        ApiError: refused.
    """
    made = {name: secrets.token_hex(32) for name in (caller.CURRENT, caller.NEXT)}
    await _ensure(api, config.namespace, caller.KEY_SECRET, made)
    return _data(await api.get(SECRETS, config.namespace, caller.KEY_SECRET))


async def read_store_key(api: Api, config: OperatorConfig) -> str:
    """What capabilities for the code store are made of.

    Raises:
        ApiError: refused.
        ValueError: the Secret is not there.
    """
    key = _data(await api.get(SECRETS, config.namespace, STORE_SECRET)).get(STORE_KEY, "")
    if not key:
        raise ValueError(
            f"Secret {STORE_SECRET} of namespace {config.namespace} has no {STORE_KEY}: list it under randomSecrets"
        )
    return key


async def _ensure(api: Api, namespace: str, name: str, values: dict[str, str], *, whole: bool = False) -> None:
    """Add the keys that are missing; with `whole` only where there is no Secret at all."""
    live = await api.get(SECRETS, namespace, name)
    if live is None:
        try:
            await api.create(SECRETS, namespace, _make(namespace, name, values))
        except ApiError as error:
            if error.status != _CONFLICT:
                raise
        return
    missing = {key: value for key, value in values.items() if key not in live.get("data", {})}
    if missing and not whole:
        await api.merge(SECRETS, namespace, name, {"stringData": missing})


async def _keep(api: Api, namespace: str, name: str, values: dict[str, str]) -> None:
    """Make the Secret hold exactly these values."""
    if _data(await api.get(SECRETS, namespace, name)) != values:
        await api.apply(SECRETS, _make(namespace, name, values))


def _make(namespace: str, name: str, values: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(names.LABELS)},
        "type": "Opaque",
        "stringData": values,
    }


def _data(secret: Object | None) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in ((secret or {}).get("data") or {}).items()}
