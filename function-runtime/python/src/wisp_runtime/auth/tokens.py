"""Signed tokens (JWT in JWS' compact form, RFC 7515 and 7519) and public keys (JWK, RFC 7517); no policy.

Invariant: ``Token.signed_by`` is true only where a key of the kind that the token's algorithm needs has signed exactly the
bytes that header and claims were read from. The algorithm is looked up in a table of asymmetric ones: ``none`` and HMAC
are not in it, and a key serves the algorithms of its own kind (and of its ``alg``) only, so a public key can't be mistaken
for a secret. A header with extensions that must be understood (``crit``) is refused.

The cryptography is the ``cryptography`` package's (OpenSSL). JWT libraries over it are left aside: they take four times as
long to import and twice the memory, at each cold start, for these two pages. The tests hold them against PyJWT.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from wisp_runtime.auth.issuers import DeniedError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_KEYS = 64  # of one issuer
MIN_RSA_BITS = 2048  # RFC 7518, section 3.3
MAX_RSA_BITS = 8192  # beyond, one check takes milliseconds
_FORM = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
_KINDS = {
    **{f"{family}{bits}": "RSA" for family in ("RS", "PS") for bits in _HASHES},
    "ES256": "P-256",
    "ES384": "P-384",
    "EdDSA": "Ed25519",
}
"""Each algorithm, and the kind of key that it needs."""
_CURVES: dict[str, Callable[[], ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}


class Key:
    """A public key, of a kind that an algorithm of the table needs."""

    def __init__(self, jwk: dict[str, Any]) -> None:
        """Read a JWK.

        Raises:
            ValueError: It is none of ours, or wrong.
        """
        if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
            raise ValueError("it is not for signatures")
        self.id = jwk.get("kid")
        self.algorithm = jwk.get("alg")
        self.kind = str(jwk.get("crv") or jwk.get("kty"))
        if (jwk.get("kty"), self.kind) == ("OKP", "Ed25519"):
            self._public: Any = ed25519.Ed25519PublicKey.from_public_bytes(_decode(jwk["x"]))
        elif jwk.get("kty") == "EC" and self.kind in _CURVES:
            numbers = ec.EllipticCurvePublicNumbers(_integer(jwk["x"]), _integer(jwk["y"]), _CURVES[self.kind]())
            self._public = numbers.public_key()
        elif (jwk.get("kty"), self.kind) == ("RSA", "RSA"):
            modulus = _integer(jwk["n"])
            if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
                raise ValueError(f"an RSA key of {modulus.bit_length()} bits")
            self._public = rsa.RSAPublicNumbers(_integer(jwk["e"]), modulus).public_key()
        else:
            raise ValueError(f"no kind of key that is used here: {self.kind:.40}")

    def fits(self, token: Token) -> bool:
        """Whether the token may have been signed with it, by what both say of themselves."""
        if self.kind != _KINDS[token.algorithm] or self.algorithm not in (None, token.algorithm):
            return False
        return token.key_id is None or token.key_id == self.id

    def verify(self, token: Token) -> bool:
        """Whether it has signed the token, which it fits."""
        try:
            if self.kind == "Ed25519":
                self._public.verify(token.signature, token.signed)
            elif self.kind == "RSA":
                self._public.verify(token.signature, token.signed, *_rsa(token.algorithm))
            else:
                digest = ec.ECDSA(_HASHES[token.algorithm[2:]]())
                self._public.verify(_der(token.signature, self._public.key_size // 8), token.signed, digest)
        except (InvalidSignature, ValueError):
            return False
        return True


class Token:
    """A token as it was sent; nothing of it is to be believed before ``signed_by`` says so."""

    __slots__ = ("algorithm", "claims", "key_id", "signature", "signed")

    def __init__(self, text: str) -> None:
        """Take it apart.

        Raises:
            DeniedError: It is no JWT, or not signed in a way that is taken here.
        """
        form = _FORM.fullmatch(text)
        if form is None:
            raise DeniedError("The token is no JWT")
        header, self.claims = _read(form[1]), _read(form[2])
        self.signed = text[: form.end(2)].encode()
        self.signature = _base64(form[3])
        self.algorithm: str = header["alg"] if isinstance(header.get("alg"), str) else ""
        self.key_id = header.get("kid")
        if self.algorithm not in _KINDS:
            raise DeniedError(f"The token's algorithm is not taken here: use one of {', '.join(_KINDS)}")
        if "crit" in header or not isinstance(self.key_id, str | None):
            raise DeniedError("The token's header can't be understood")

    def signed_by(self, keys: list[Key]) -> bool | None:
        """Whether one of these keys has signed it; None where none of them can have."""
        fitting = [key for key in keys if key.fits(self)]
        return any(key.verify(self) for key in fitting) if fitting else None


def read_keys(jwks: dict[str, Any]) -> list[Key]:
    """Return the keys of a JWK set that are used here; the others are passed over, as RFC 7517 has it."""
    listed = jwks.get("keys")
    keys = []
    for jwk in listed[:MAX_KEYS] if isinstance(listed, list) else []:
        try:
            keys.append(Key(jwk))
        except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm):
            continue
    return keys


def _rsa(algorithm: str) -> tuple[padding.AsymmetricPadding, hashes.HashAlgorithm]:
    digest = _HASHES[algorithm[2:]]()
    if algorithm.startswith("RS"):
        return padding.PKCS1v15(), digest
    return padding.PSS(padding.MGF1(digest), digest.digest_size), digest


def _der(signature: bytes, size: int) -> bytes:
    """Return an ECDSA signature as OpenSSL wants it (RFC 7518, section 3.4)."""
    if len(signature) != 2 * size:
        raise ValueError("a signature of the wrong length")
    return encode_dss_signature(int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))


def _read(part: str) -> dict[str, Any]:
    """Parse the header or the claims: one JSON object, each name once."""
    try:
        value = json.loads(_base64(part).decode(), object_pairs_hook=_once, parse_constant=_constant)
        json.dumps(value, ensure_ascii=False).encode()  # which half a surrogate pair, as an escape, doesn't survive
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DeniedError("The token is no JWT")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; two readers might take different ones of two equal names."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name twice")
    return made


def _constant(name: str) -> Any:
    raise ValueError(name)


def _base64(text: str) -> bytes:
    try:
        return _decode(text)
    except ValueError:
        raise DeniedError("The token is no JWT") from None


def _decode(text: str) -> bytes:
    """Decode base64url without padding."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _integer(text: str) -> int:
    return int.from_bytes(_decode(text), "big")
