"""Tokens and keys as RFC 7515, 7517 and 7519 have them, held against PyJWT."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fixtures.issuer import ALGORITHMS, make_key, public_jwk
from hypothesis import given, settings
from hypothesis import strategies as st
from wisp_runtime.auth.issuers import DeniedError, IssuersError, read_issuers
from wisp_runtime.auth.tokens import Token, read_keys

NOW = 1_800_000_000


@functools.cache
def key_for(kind: str) -> Any:
    """One key of a kind for all tests: RSA's take long to make."""
    return make_key(kind)


def key(algorithm: str) -> Any:
    """A key for an algorithm."""
    return key_for("RS256" if algorithm[:2] in ("RS", "PS") else algorithm)


def encode(value: Any) -> str:
    """A part of a token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_each_algorithm_is_verified_and_a_changed_one_is_not(algorithm: str) -> None:
    """What PyJWT signs is good; the same signature under other claims, and another's signature, are not."""
    keys = read_keys({"keys": [public_jwk(key(algorithm), algorithm, "k")]})
    text = jwt.encode({"sub": "ada"}, key(algorithm), algorithm, {"kid": "k"})
    header, _, signature = text.split(".")
    assert Token(text).signed_by(keys) is True
    assert Token(text).claims == {"sub": "ada"}
    assert Token(f"{header}.{encode({'sub': 'eve'})}.{signature}").signed_by(keys) is False
    other = jwt.encode({"sub": "ada"}, make_key("EdDSA"), "EdDSA", {"kid": "k"}).split(".")[2]
    assert Token(".".join([*text.split(".")[:2], other])).signed_by(keys) is False


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512", "RS1", "", 5, None, ["EdDSA"]])
def test_an_algorithm_that_anyone_can_sign_with_is_refused(algorithm: Any) -> None:
    """Without a signature, or with a shared secret, a token is refused before any key is looked at."""
    with pytest.raises(DeniedError, match="algorithm"):
        Token(f"{encode({'alg': algorithm})}.{encode({'sub': 'ada'})}.{encode(b'x')}")


def test_a_public_key_is_never_taken_for_a_secret() -> None:
    """The classic confusion: HMAC over the token with the RSA public key's text as the secret."""
    pem = key("RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{encode({'alg': 'HS256', 'kid': 'k'})}.{encode({'sub': 'ada'})}"
    forged = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    with pytest.raises(DeniedError, match="algorithm"):
        Token(f"{signed}.{encode(forged)}")


def test_a_key_serves_only_its_own_kind_and_algorithm() -> None:
    """A token that names another algorithm than the key's, or another kid, has no key that fits."""
    keys = read_keys({"keys": [public_jwk(key("RS256"), "RS256", "k")]})
    for algorithm, kid in (("RS512", "k"), ("PS256", "k"), ("RS256", "other")):
        assert Token(jwt.encode({}, key("RS256"), algorithm, {"kid": kid})).signed_by(keys) is None
    assert Token(jwt.encode({}, key("ES256"), "ES256", {"kid": "k"})).signed_by(keys) is None


def test_a_token_without_a_key_id_is_tried_with_each_key_that_fits() -> None:
    """Issuers with one key often leave kid out."""
    jwks = {"keys": [public_jwk(make_key("EdDSA"), "EdDSA", "other"), public_jwk(key("EdDSA"), "EdDSA", "k")]}
    assert Token(jwt.encode({}, key("EdDSA"), "EdDSA")).signed_by(read_keys(jwks)) is True


def test_keys_that_are_not_used_here_are_passed_over() -> None:
    """Secrets, encryption keys, weak keys and nonsense in a set leave the good keys usable."""
    weak = rsa.generate_private_key(65537, 1024)
    good = public_jwk(key("ES256"), "ES256", "k")
    listed = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k"},
        {**public_jwk(key("RS256"), "RS256", "enc"), "use": "enc"},
        {**good, "key_ops": ["sign"]},
        public_jwk(weak, "RS256", "weak"),
        {**good, "x": "AA"},
        {**good, "x": 5},
        {"kty": "OKP", "crv": "Ed25519"},
        {"kty": "EC", "crv": "Ed25519", "x": "AA", "y": "AA"},
        "key",
        None,
        good,
    ]
    assert [one.kind for one in read_keys({"keys": listed})] == ["P-256"]
    assert read_keys({"keys": "none"}) == read_keys({}) == []


def unsigned(claims: Any = (), header: Any = (), signature: str = "eA") -> str:
    """A token that nobody signed."""
    return f"{encode({'alg': 'EdDSA'} | dict(header))}.{encode(claims or {})}.{signature}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        unsigned(signature=""),
        unsigned(signature="A"),
        unsigned(signature="eA=="),
        unsigned([1]),
        unsigned(b"[" * 5000),
        unsigned(b'{"a": NaN}'),
        unsigned(b'{"sub": "a", "sub": "b"}'),
        unsigned(b'{"sub": "\\ud800"}'),
        unsigned("{}".encode("utf-16")),
        unsigned(header={"crit": ["b64"], "b64": False}),
        unsigned(header={"kid": 5}),
        unsigned().replace(".", " .", 1),
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    """Each is refused with a sentence, none with a fault."""
    with pytest.raises(DeniedError):
        Token(text)


@given(st.text(alphabet="abcXYZ019-_.", max_size=80) | st.text(max_size=40) | st.binary(max_size=60).map(encode))
def test_nothing_that_callers_send_is_a_fault(text: str) -> None:
    """Any text is a token that nobody has signed, or refused."""
    for whole in (text, f"{encode({'alg': 'ES256'})}.{encode({})}.{text}", f"{text}.{text}.{text}"):
        with contextlib.suppress(DeniedError):
            assert not Token(whole).signed_by(read_keys({"keys": [public_jwk(key("ES256"), "ES256", "k")]}))


@given(st.data())
@settings(max_examples=60)
def test_a_token_with_one_character_changed_is_not_taken(data: st.DataObject) -> None:
    """Whatever is changed, header, claims or signature: it is no token, unsigned, or says byte for byte the same."""
    keys = read_keys({"keys": [public_jwk(key("EdDSA"), "EdDSA", "k")]})
    text = jwt.encode({"sub": "ada", "n": 1}, key("EdDSA"), "EdDSA", {"kid": "k"})
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABCabc019-_.="))
    changed = text[:at] + letter + text[at + 1 :]
    try:
        token = Token(changed)
    except DeniedError:
        return
    if token.signed_by(keys):
        assert (token.signed, token.signature) == (Token(text).signed, Token(text).signature)


ENTRY = {"issuer": "i", "audiences": ["me", "us"], "keys": {"keys": []}}


def admit(entry: dict[str, Any], **claims: Any) -> float:
    """Judge the claims of a token that is otherwise good."""
    (issuer,) = read_issuers(json.dumps({"issuers": [ENTRY | entry]}))
    return issuer.admit({"aud": "me", "exp": NOW + 300, "sub": "ada"} | claims, NOW)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": None}, "needs exp"),
        ({"exp": NOW - 60}, "expired"),
        ({"exp": "soon"}, "exp is no time"),
        ({"exp": True}, "exp is no time"),
        ({"exp": 1e300}, "exp is no time"),
        ({"nbf": NOW + 61}, "nbf"),
        ({"iat": NOW + 61}, "iat"),
        ({"aud": "you"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": [["me"]]}, "audience"),
        ({"aud": {"me": 1}}, "audience"),
    ],
)
def test_claims_that_are_not_for_us_or_not_for_now_are_refused(claims: dict[str, Any], message: str) -> None:
    """The sentence names the claim."""
    with pytest.raises(DeniedError, match=message) as caught:
        admit({}, **claims)
    assert caught.value.status == 401


def test_clocks_may_differ_by_a_minute() -> None:
    """Expired or begun a little less than 60 s ago or ahead is good, and for as long as that lasts."""
    assert admit({}, exp=NOW - 59) == NOW + 1
    assert admit({}, nbf=NOW + 60, iat=NOW + 60, aud=["you", "us"]) == NOW + 360


def test_callers_are_named_whole_or_by_what_they_begin_with() -> None:
    """A good token of anybody else is 403, and so is one without a subject."""
    callers = {"callers": ["system:serviceaccount:shop:", "system:serviceaccount:till:clerk"]}
    for subject in ("system:serviceaccount:shop:any", "system:serviceaccount:till:clerk"):
        assert admit(callers, sub=subject)
    for stranger in ("system:serviceaccount:shopping:any", "system:serviceaccount:till:clerk2", None, 5, ""):
        with pytest.raises(DeniedError) as caught:
            admit(callers, sub=stranger)
        assert (caught.value.status, caught.value.error) == (403, "insufficient_scope")


@pytest.mark.parametrize("given", [{"scope": "b a c"}, {"scp": ["a", "b"]}, {"scp": "a b"}])
def test_all_scopes_that_are_asked_for_must_be_there(given: dict[str, Any]) -> None:
    """They are read as OAuth, Microsoft and Okta write them; with one missing it is 403."""
    assert admit({"scopes": ["a", "b"]}, **given)
    with pytest.raises(DeniedError) as caught:
        admit({"scopes": ["a", "d"]}, **given)
    assert caught.value.status == 403


def test_a_client_id_stands_for_the_audience_where_there_is_none() -> None:
    """Amazon Cognito's access tokens have no aud; for the platform's own issuers that does not hold."""
    (issuer,) = read_issuers(json.dumps({"issuers": [ENTRY | {"claims": True}]}))
    assert issuer.admit({"client_id": "me", "exp": NOW}, NOW)
    with pytest.raises(DeniedError):
        issuer.admit({"client_id": "me", "aud": "you", "exp": NOW}, NOW)
    (issuer,) = read_issuers(json.dumps({"issuers": [ENTRY]}))
    with pytest.raises(DeniedError):
        issuer.admit({"client_id": "me", "exp": NOW}, NOW)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{}",
        '{"issuers": [1]}',
        '{"issuers": [{}]}',
        json.dumps({"issuers": [{"issuer": "i", "audiences": []}]}),
        json.dumps({"issuers": [{"issuer": "i", "audiences": ["a", 1]}]}),
        json.dumps({"issuers": [ENTRY | {"callers": "all"}]}),
        json.dumps({"issuers": [ENTRY | {"keys": []}]}),
        json.dumps({"issuers": [ENTRY | {"jwksUrl": None}]}),
        json.dumps({"issuers": [ENTRY, ENTRY]}),
    ],
)
def test_a_file_of_issuers_with_a_mistake_is_refused_as_a_whole(document: str) -> None:
    """So that a mistake admits nobody."""
    with pytest.raises(IssuersError):
        read_issuers(document)
