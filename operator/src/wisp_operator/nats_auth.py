"""Who may do what in the event log: NATS' decentralized JWT authentication, minted here.

One NATS operator signs the accounts: the platform's, which has the log and the users of its components, one that holds the dead letters,
and one for each namespace with readers, which imports from those what concerns that namespace. Accounts sign users. The key pairs of namespaces' accounts and
of users are derived from the platform account's seed and their name, and tokens hold no time: the same name and permissions always
give the same credentials, so they can be written again at any time without reading them back (the operator may not read tenants'
Secrets) and without any change.

Invariant: whatever a tenant does with its readers' credentials, nothing but its own namespace's subjects changes. A user's permissions
alone don't hold it: the server checks where a client publishes, but it answers to any reply subject inside the client's account. So
the account is the wall: in a namespace's account there is no subject of others.

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
LETTERS: Final = "letters"
OPERATOR: Final = "operator"
SYSTEM: Final = "system"
SEEDS: Final = {
    OPERATOR: nkeys.PREFIX_BYTE_OPERATOR,
    ACCOUNT: nkeys.PREFIX_BYTE_ACCOUNT,
    SYSTEM: nkeys.PREFIX_BYTE_ACCOUNT,
}
"""Keys of the Secret that holds the seeds; `system` is the account of the server's own events, which nobody uses."""

_EXPORTS: Final = (
    "$JS.API.DIRECT.GET.>",
    f"$KV.{names.KV_STATUS}.reader.>",
    f"$KV.{names.KV_STATUS}.position.>",
    "wisp.events.>",
)
"""What the platform's account offers to those of namespaces."""
_LETTERS: Final = "wisp.dead.>"
_LETTERS_API: Final = (
    "DIRECT.GET.*",
    "STREAM.CREATE.*",
    "STREAM.DELETE.*",
    "STREAM.INFO.*",
    "STREAM.MSG.DELETE.*",
    "STREAM.NAMES",
    "STREAM.UPDATE.*",
)
"""What the account of dead letters offers to the platform's; which of its users may what is in their permissions."""
_CURSOR: Final = f"$JS.API.DIRECT.GET.KV_{names.KV_CURSORS}.$KV.{names.KV_CURSORS}.{{}}.*"
"""How far the routes of a namespace are."""
_ISSUED: Final = 4
"""`iat` of every token; raise it when what an account's token says changes, or a server that restarts keeps the older one."""
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
    """Reads every event and route, keeps cursors and members, writes dead letters, states, replies and records of invocations, purges what all have passed."""
    buckets = [names.KV_ROUTES, names.KV_SOURCES, names.KV_STATUS, names.KV_CURSORS, names.KV_MEMBERS]
    kept = [*(f"KV_{bucket}" for bucket in buckets), names.SHARED_LETTERS, names.LOG_STREAM]
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
        "wisp.dead.*.function.>",
        "wisp.dead.*.bus.>",
        "wisp.dead.*.destination.>",
        "wisp.events.*.bus.>",
        "wisp.events.*.function.>",
        "wisp.events.*.destination.>",
    ]
    return User("router", publish, [f"$JS.API.STREAM.PURGE.{stream}" for stream in kept])


def ingest_user() -> User:
    """Writes object events and what of them is poison, schedules' ticks, events of buses and invocations; remembers ticks.

    It reads which namespaces are bound to a bucket, schedules, inboxes, and the keys of the cluster's tokens. It reads and removes dead
    letters, and sends their events again, to the route that they came from.
    It writes and reads functions' log lines.
    """
    sources = f"KV_{names.KV_SOURCES}"
    publish = [
        "wisp.events.*.schedule.>",
        "$JS.API.DIRECT.GET.*.wisp.events.*.schedule.>",
        f"$JS.API.DIRECT.GET.KV_{names.KV_SCHEDULES}",
        f"$JS.API.DIRECT.GET.KV_{names.KV_STATUS}.$KV.{names.KV_STATUS}.schedule.>",
        f"$KV.{names.KV_STATUS}.schedule.>",
        "wisp.events.*.s3.>",
        "wisp.events.*.bus.>",
        "wisp.events.*.function.>",
        "wisp.dead.*.s3.>",
        "wisp.events.*.*.*.redrive.>",
        f"$JS.API.DIRECT.GET.KV_{names.KV_ROUTES}.$KV.{names.KV_ROUTES}.>",
        *(f"{names.LETTERS_API}.{call}.*" for call in ("DIRECT.GET", "STREAM.INFO", "STREAM.MSG.DELETE")),
        *(f"$JS.API.{call}.{names.SHARED_LETTERS}" for call in ("DIRECT.GET", "STREAM.INFO", "STREAM.MSG.DELETE")),
        names.LOG_SUBJECTS,
        f"$JS.API.DIRECT.GET.{names.LOG_STREAM}",
        "$JS.API.INFO",
        f"$JS.API.STREAM.INFO.{sources}",
        f"$JS.API.DIRECT.GET.{sources}.$KV.{names.KV_SOURCES}.bucket.>",
        f"$JS.API.DIRECT.GET.{sources}.$KV.{names.KV_SOURCES}.inbox.>",
        f"$JS.API.DIRECT.GET.{sources}.$KV.{names.KV_SOURCES}.{names.TOKEN_KEYS}",
    ]
    return User("ingest", publish)


def accounts_user() -> User:
    """Of the system account: tells the server which accounts there are."""
    return User("accounts", ["$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.DELETE", "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP"])


def reader_user(namespace: str, kind: str, connection: str, stream: str | None) -> User:
    """One source reader, of its namespace's account; `stream` is the one that it writes, None for buckets, whose events but listings another part writes."""
    key = f"reader.{namespace}.{kind}.{connection}"
    publish = [
        f"$JS.API.DIRECT.GET.KV_{names.KV_SOURCES}.$KV.{names.KV_SOURCES}.{key}",
        f"$KV.{names.KV_STATUS}.{key}",
        names.dead_letter_subject(namespace, kind, connection),
    ]
    position = f"$KV.{names.KV_STATUS}.{names.position_key(namespace, kind, connection)}"
    publish += [position, f"$JS.API.DIRECT.GET.KV_{names.KV_STATUS}.{position}"]
    subjects = names.stream_subjects(namespace, kind, names.token(connection))
    if stream is None:
        stream, subjects = "*", names.listing_subjects(namespace)
        publish.append(_CURSOR.format(namespace))
    publish += [subjects, f"$JS.API.DIRECT.GET.{stream}.{subjects}"]
    # `_` stands in none of the parts, so two readers never share a name, a key and an inbox.
    return User(f"reader_{namespace}_{kind}_{names.token(connection)}", publish)


def new_seed(prefix: int) -> str:
    """A new random seed of this kind of key."""
    return _seed(os.urandom(32), prefix)


def make_server_config(seeds: dict[str, str], directory: str = "/data/accounts") -> str:
    """What nats-server needs to check users, to be included in its configuration: the operator's token and the first accounts'.

    The server keeps the accounts that it is told of in `directory`, so readers can connect while the operator is away.
    """
    operator = {"type": "operator", "version": 2, "system_account": public_key(seeds[SYSTEM])}
    first = {
        public_key(letters_seed(seeds)): make_letters_account(seeds),
        public_key(seeds[ACCOUNT]): make_platform_account(seeds),
        public_key(seeds[SYSTEM]): _account(seeds, seeds[SYSTEM], SYSTEM, {}),
    }
    lines = [
        "# Made by the Wisp operator from the Secret wisp-nats-keys.",
        f"operator: {_token(seeds[OPERATOR], public_key(seeds[OPERATOR]), 'wisp', operator)}",
        f"system_account: {public_key(seeds[SYSTEM])}",
        f'resolver: {{ type: full, dir: "{directory}", allow_delete: true, hard_delete: true }}',
        "resolver_preload: {",
        *(f"  {key}: {token}" for key, token in first.items()),
        "}",
    ]
    return "\n".join(lines) + "\n"


def make_platform_account(seeds: dict[str, str]) -> str:
    """The token of the account that has the log."""
    exports = [{"name": subject, "subject": subject, "type": "service"} for subject in _EXPORTS]
    letters = public_key(letters_seed(seeds))
    imports = [{"name": _LETTERS, "subject": _LETTERS, "account": letters, "type": "service"}]
    for call in _LETTERS_API:
        here, there = f"{names.LETTERS_API}.{call}", f"$JS.API.{call}"
        imports.append({"name": here, "subject": there, "local_subject": here, "account": letters, "type": "service"})
    return _account(seeds, seeds[ACCOUNT], ACCOUNT, {"exports": exports, "imports": imports}, jetstream=True)


def letters_seed(seeds: dict[str, str]) -> str:
    """The seed of the account of dead letters."""
    return _derive(seeds[ACCOUNT], LETTERS, nkeys.PREFIX_BYTE_ACCOUNT)


def make_letters_account(seeds: dict[str, str]) -> str:
    """The token of the account of dead letters: a stream for each namespace, no users."""
    subjects = [_LETTERS, *(f"$JS.API.{call}" for call in _LETTERS_API)]
    exports = [{"name": subject, "subject": subject, "type": "service"} for subject in subjects]
    return _account(seeds, letters_seed(seeds), LETTERS, {"exports": exports}, jetstream=True)


def namespace_seed(seeds: dict[str, str], namespace: str) -> str:
    """The seed of a namespace's account, which signs its readers' credentials."""
    return _derive(seeds[ACCOUNT], f"account/{namespace}", nkeys.PREFIX_BYTE_ACCOUNT)


def make_namespace_account(seeds: dict[str, str], namespace: str) -> str:
    """The token of a namespace's account: of the log it has the namespace's events, dead letters, readers' tasks and reports."""
    subjects = [
        f"$JS.API.DIRECT.GET.KV_{names.KV_SOURCES}.$KV.{names.KV_SOURCES}.reader.{namespace}.>",
        f"$JS.API.DIRECT.GET.*.wisp.events.{namespace}.>",
        f"$KV.{names.KV_STATUS}.reader.{namespace}.>",
        f"$KV.{names.KV_STATUS}.position.{namespace}.>",
        f"$JS.API.DIRECT.GET.KV_{names.KV_STATUS}.$KV.{names.KV_STATUS}.position.{namespace}.>",
        _CURSOR.format(namespace),
        f"wisp.events.{namespace}.>",
    ]
    platform = public_key(seeds[ACCOUNT])
    imports = [{"name": subject, "subject": subject, "account": platform, "type": "service"} for subject in subjects]
    letters, account = names.dead_letter_subjects(namespace), public_key(letters_seed(seeds))
    imports.append({"name": letters, "subject": letters, "account": account, "type": "service"})
    return _account(seeds, namespace_seed(seeds, namespace), f"namespace-{namespace}", {"imports": imports})


def make_closed_account(seeds: dict[str, str], namespace: str) -> str:
    """The token of a namespace's account with nothing in it."""
    return _account(seeds, namespace_seed(seeds, namespace), f"namespace-{namespace}", {})


def make_removal(seeds: dict[str, str], account: str) -> str:
    """The order to forget an account, given by its public key."""
    return _token(seeds[OPERATOR], public_key(seeds[OPERATOR]), "wisp", {"accounts": [account]})


def public_key(seed: str) -> str:
    """The public key that belongs to a seed."""
    key: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return key.decode().rstrip("=")


def make_credentials(account_seed: str, user: User) -> str:
    """A credentials file, as NATS clients read it."""
    seed = _derive(account_seed, f"user/{user.name}", nkeys.PREFIX_BYTE_USER)
    claims: dict[str, Any] = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
    if user.publish is not None:
        claims["pub"] = {"allow": sorted(user.publish)} | ({"deny": sorted(user.deny)} if user.deny else {})
        claims["sub"] = {"allow": [f"{user.inbox}.>"]}
    token = _token(account_seed, public_key(seed), user.name, claims)
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def _account(
    seeds: dict[str, str], seed: str, name: str, shares: dict[str, list[dict[str, str]]], *, jetstream: bool = False
) -> str:
    """An account's token; `shares` are its exports or imports."""
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
    claims = {"type": "account", "version": 2, "limits": limits | stores, "default_permissions": {"pub": {}, "sub": {}}}
    return _token(seeds[OPERATOR], public_key(seed), f"wisp-{name}", claims | shares)


def _token(issuer_seed: str, subject: str, name: str, claims: dict[str, Any]) -> str:
    """A signed JWT. `iat` is constant so that the token is a function of its content."""
    body = {"iat": _ISSUED, "iss": public_key(issuer_seed), "name": name, "sub": subject, "nats": claims}
    body["jti"] = base64.b32encode(hashlib.sha256(msgspec.json.encode(body)).digest()).decode().rstrip("=")
    text = f"{_base64(msgspec.json.encode({'typ': 'JWT', 'alg': 'ed25519-nkey'}))}.{_base64(msgspec.json.encode(body))}"
    signature: bytes = nkeys.from_seed(bytearray(issuer_seed.encode())).sign(text.encode())
    return f"{text}.{_base64(signature)}"


def _derive(seed: str, purpose: str, prefix: int) -> str:
    return _seed(hmac.new(seed.encode(), purpose.encode(), hashlib.sha256).digest(), prefix)


def _seed(raw: bytes, prefix: int) -> str:
    encoded: bytes = nkeys.encode_seed(raw, prefix)
    return encoded.decode().rstrip("=")


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
