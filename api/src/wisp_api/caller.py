"""Who may call a Function: its `auth`, and the tokens of the platform itself and of the cluster's ServiceAccounts.

Invariant: these tokens name one Function as their audience, so whoever gets hold of one reaches that Function and no other.
"""

import hashlib
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from wisp_api.kube import Name, SubdomainName, rules

ISSUER: Final = "wisp.dev"
"""`iss` of the platform's own tokens, which the router signs deliveries with."""
KEY_SECRET: Final = "wisp-caller-keys"  # noqa: S105 - a name
"""Secret of the operator's namespace: Ed25519 seeds in hex. `current` signs; `next` and `previous` are trusted as well."""
CURRENT, NEXT, PREVIOUS = "current", "next", "previous"
HEADER: Final = "wisp-authorization"
"""Taken instead of Authorization where it is there: a proxy on the way, as the API server, keeps that for itself."""


class Caller(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """ServiceAccounts of another namespace."""

    namespace: Name
    """Their namespace."""
    service_account: SubdomainName | None = None
    """One of them. Absent: all of that namespace."""


Word = Annotated[
    str,
    Meta(min_length=1, max_length=256),
    rules(("self.matches('^[!-~]+$')", "write printable ASCII without spaces")),
]
IssuerUrl = Annotated[
    str,
    Meta(max_length=512),
    rules(
        (
            "self.matches('^https://[!-~]+$') || self.matches('^http://[-a-z0-9.]+[.]svc([.][-a-z0-9.]+)?(:[0-9]+)?(/[!-~]*)?$')",
            "write an https:// address; http:// is for Services of the cluster, as http://dex.auth.svc",
        )
    ),
]


class Auth(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Who may call the function. Deliveries of its Subscriptions are signed by the platform and admitted by every type."""

    type: Literal["none", "token", "jwt"]
    """none: anyone who reaches its URL. token: ServiceAccounts of its namespace and `callers`, by a token for the audience wisp.dev/<namespace>/<name>.
    jwt: whoever has a token that `issuer` signed for one of `audiences`.

    A caller sends `Authorization: Bearer <token>`. token and jwt are not for images that serve HTTP themselves.
    """
    callers: Annotated[list[Caller], Meta(max_length=64)] | None = None
    """With token: ServiceAccounts of other namespaces that may call it, too."""
    issuer: IssuerUrl | None = None
    """With jwt: who signs the tokens, exactly as their claim `iss` says."""
    audiences: Annotated[list[Word], Meta(min_length=1, max_length=16)] | None = None
    """With jwt: whom the tokens are for; the claim `aud` holds one of these."""
    jwks_url: IssuerUrl | None = None
    """With jwt: where the issuer's keys are. Absent: where <issuer>/.well-known/openid-configuration says."""
    scopes: Annotated[list[Word], Meta(max_length=16)] | None = None
    """With jwt: scopes that a token must have, all of them."""


AUTH_RULES = rules(
    (
        "self.type != 'jwt' || (has(self.issuer) && has(self.audiences))",
        "auth type jwt needs issuer and audiences: whose tokens are taken, and for whom they are made",
    ),
    (
        "self.type == 'jwt' || !(has(self.issuer) || has(self.audiences) || has(self.jwksUrl) || has(self.scopes))",
        "issuer, audiences, jwksUrl and scopes are for auth type jwt",
    ),
    ("self.type == 'token' || !has(self.callers)", "callers are for auth type token"),
)


def audience(namespace: str, function: str) -> str:
    """`aud` of tokens for a Function."""
    return f"{ISSUER}/{namespace}/{function}"


def key_id(public: bytes) -> str:
    """`kid` of one of the platform's keys."""
    return hashlib.sha256(public).hexdigest()[:16]
