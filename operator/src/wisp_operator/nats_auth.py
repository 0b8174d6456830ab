"""Who may do what in the event log: NATS' decentralized JWT authentication, minted here.

One NATS operator signs one account, the account signs a user for each component and each reader. A user's key pair is derived from
the account's seed and the user's name, and its token holds no time: the same name and permissions always give the same credentials,
so they can be written again at any time without reading them back (the operator may not read tenants' Secrets) and without any
change. A reader's credentials allow its own stream, dead letters, configuration and status; knowing them reveals nothing of others.

Specification: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt (JWT claims version 2).
"""

import base64
import hashlib
import hmac
import os
from typing import Any, Final, NamedTuple

import msgspec
import nkeys
from wisp_api import names

ACCOUNT: Final = "account"
OPERATOR: Final = "operator"
SYSTEM: Final = "system"
SEEDS: Final = {
    OPERATOR: nkeys.PREFIX_BYTE_OPERATOR,
    ACCOUNT: nkeys.PREFIX_BYTE_ACCOUNT,
    SYSTEM: nkeys.PREFIX_BYTE_ACCOUNT,
}
"""Keys of the Secret that holds the seeds; `system` is the account of the server's own events, which nobody uses."""

_INFO: Final = ["$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST"]


class User(NamedTuple):
    """A user of the event log; it hears its own inbox only. `publish` None: everything, for the operator itself."""

    name: str
    publish: list[str] | None
    deny: list[str] = []  # noqa: RUF012 - never changed

    @property
    def inbox(self) -> str:
        """Prefix of the inboxes that it may listen to; the client must be told."""
        return f"_INBOX.{self.name}"


def operator_user() -> User:
    """The control plane: makes streams and buckets, writes routes and readers' tasks."""
    return User("operator", None)


def router_user() -> User:
    """Reads every event and route, keeps cursors and members, writes dead letters and states, purges what all have passed."""
    buckets = [names.KV_ROUTES, names.KV_SOURCES, names.KV_STATUS, names.KV_CURSORS, names.KV_MEMBERS]
    kept = [*(f"KV_{bucket}" for bucket in buckets), names.DEAD_LETTER_STREAM]
    publish = [
        *_INFO,
        "$JS.API.STREAM.PURGE.*",
        "$JS.API.STREAM.MSG.GET.*",
        "$JS.API.DIRECT.GET.>",
        "$JS.API.CONSUMER.>",
        "$JS.ACK.>",
        "$JS.FC.>",
        f"$KV.{names.KV_STATUS}.route.>",
        f"$KV.{names.KV_CURSORS}.>",
        f"$KV.{names.KV_MEMBERS}.>",
        "wisp.dead.*.subscription.>",
    ]
    return User("router", publish, [f"$JS.API.STREAM.PURGE.{stream}" for stream in kept])


def ingest_user() -> User:
    """Writes object events and what of them is poison; reads which namespaces are bound to a bucket."""
    sources = f"KV_{names.KV_SOURCES}"
    publish = [
        "wisp.events.*.s3.>",
        "wisp.dead.*.s3.>",
        "$JS.API.INFO",
        f"$JS.API.STREAM.INFO.{sources}",
        f"$JS.API.DIRECT.GET.{sources}.$KV.{names.KV_SOURCES}.bucket.>",
    ]
    return User("ingest", publish)


def reader_user(namespace: str, kind: str, connection: str, stream: str | None) -> User:
    """One source reader; `stream` is the one that it writes, None for a kind whose events another part writes."""
    key = f"reader.{namespace}.{kind}.{connection}"
    publish = [
        f"$JS.API.DIRECT.GET.KV_{names.KV_SOURCES}.$KV.{names.KV_SOURCES}.{key}",
        f"$KV.{names.KV_STATUS}.{key}",
        names.dead_letter_subject(namespace, kind, connection),
    ]
    if stream:
        publish += [
            names.stream_subjects(namespace, kind, names.token(connection)),
            f"$JS.API.DIRECT.GET.{stream}.>",
            f"$JS.API.STREAM.INFO.{stream}",
        ]
    # `_` stands in none of the parts, so two readers never share a name, a key and an inbox.
    return User(f"reader_{namespace}_{kind}_{names.token(connection)}", publish)


def new_seed(prefix: int) -> str:
    """A new random seed of this kind of key."""
    return _seed(os.urandom(32), prefix)


def make_server_config(seeds: dict[str, str]) -> str:
    """What nats-server needs to check users: the operator's and the accounts' tokens, to be included in its configuration."""
    public = {name: _public(seed) for name, seed in seeds.items()}
    operator = {"type": "operator", "version": 2, "system_account": public[SYSTEM]}
    tokens = {
        public[name]: _token(seeds[OPERATOR], public[name], f"wisp-{name}", _account_claims(jetstream=name == ACCOUNT))
        for name in (ACCOUNT, SYSTEM)
    }
    lines = [
        "# Made by the Wisp operator from the Secret wisp-nats-keys.",
        f"operator: {_token(seeds[OPERATOR], public[OPERATOR], 'wisp', operator)}",
        f"system_account: {public[SYSTEM]}",
        "resolver: MEMORY",
        "resolver_preload: {",
        *(f"  {key}: {token}" for key, token in tokens.items()),
        "}",
    ]
    return "\n".join(lines) + "\n"


def make_credentials(account_seed: str, user: User) -> str:
    """A credentials file, as NATS clients read it."""
    raw = hmac.new(account_seed.encode(), f"user/{user.name}".encode(), hashlib.sha256).digest()
    seed = _seed(raw, nkeys.PREFIX_BYTE_USER)
    claims: dict[str, Any] = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
    if user.publish is not None:
        claims["pub"] = {"allow": sorted(user.publish)} | ({"deny": sorted(user.deny)} if user.deny else {})
        claims["sub"] = {"allow": [f"{user.inbox}.>"]}
    token = _token(account_seed, _public(seed), user.name, claims)
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def _account_claims(*, jetstream: bool) -> dict[str, Any]:
    storage = -1 if jetstream else 0
    limits = {
        "subs": -1,
        "data": -1,
        "payload": -1,
        "imports": -1,
        "exports": -1,
        "wildcards": True,
        "conn": -1,
        "leaf": -1,
    }
    stores = {"mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage}
    return {"type": "account", "version": 2, "limits": limits | stores, "default_permissions": {"pub": {}, "sub": {}}}


def _token(issuer_seed: str, subject: str, name: str, claims: dict[str, Any]) -> str:
    """A signed JWT. `iat` is constant so that the token is a function of its content."""
    body = {"iat": 1, "iss": _public(issuer_seed), "name": name, "sub": subject, "nats": claims}
    body["jti"] = base64.b32encode(hashlib.sha256(msgspec.json.encode(body)).digest()).decode().rstrip("=")
    text = f"{_base64(msgspec.json.encode({'typ': 'JWT', 'alg': 'ed25519-nkey'}))}.{_base64(msgspec.json.encode(body))}"
    signature: bytes = nkeys.from_seed(bytearray(issuer_seed.encode())).sign(text.encode())
    return f"{text}.{_base64(signature)}"


def _seed(raw: bytes, prefix: int) -> str:
    encoded: bytes = nkeys.encode_seed(raw, prefix)
    return encoded.decode().rstrip("=")


def _public(seed: str) -> str:
    key: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return key.decode().rstrip("=")


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
