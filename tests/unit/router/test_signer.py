"""The router's tokens: for one Function each, kept, and signed with the key that the file holds now."""

import secrets
from pathlib import Path

import jwt
import nacl.signing
import pytest
from wisp_events.router import signer
from wisp_events.router.signer import LIFE_SECONDS, RENEW_SECONDS, Signer

NOW = 1_800_000_000.0


class Clock:
    """The time that the signer sees."""

    now = NOW

    def time(self) -> float:
        """Seconds since 1970."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that the test sets."""
    made = Clock()
    monkeypatch.setattr(signer, "time", made)
    return made


def read(line: bytes) -> dict[str, object]:
    """What the token in a header line says, unchecked."""
    assert line.startswith(b"authorization: Bearer ")
    assert line.endswith(b"\r\n")
    token = line.split()[2].decode()
    return jwt.get_unverified_header(token) | jwt.decode(token, options={"verify_signature": False})


def test_a_token_is_for_one_function_and_kept_until_half_its_life(tmp_path: Path, clock: Clock) -> None:
    """Signing costs nothing per event, and a delivery may wait for a pod for a quarter of an hour."""
    (tmp_path / "current").write_text(secrets.token_hex(32))
    made = Signer(tmp_path / "current")
    first = made.header("wisp.dev/media/thumb")
    said = read(first)
    assert (said["iss"], said["aud"], said["alg"]) == ("wisp.dev", "wisp.dev/media/thumb", "EdDSA")
    assert said["exp"] == NOW + LIFE_SECONDS
    clock.now += LIFE_SECONDS - RENEW_SECONDS - 1
    assert made.header("wisp.dev/media/thumb") == first
    clock.now += 1
    assert read(made.header("wisp.dev/media/thumb"))["exp"] == clock.now + LIFE_SECONDS
    assert read(made.header("wisp.dev/media/other"))["aud"] == "wisp.dev/media/other"


def test_a_rotated_key_signs_soon_and_a_broken_one_never(tmp_path: Path, clock: Clock) -> None:
    """The file is looked at again after seconds; while it can't be used the key before goes on signing."""
    seeds = [secrets.token_bytes(32) for _ in range(2)]
    file = tmp_path / "current"
    made = Signer(file)
    assert made.header("a") == b"", "no key yet: the function says 401, and the event is retried"
    for seed in seeds:
        file.write_text(seed.hex() + "\n")
        clock.now += 11
        token = made.header("a").split()[2].decode()
        public = nacl.signing.SigningKey(seed).verify_key
        algorithm = jwt.get_algorithm_by_name("EdDSA")
        key = algorithm.from_jwk(
            {"kty": "OKP", "crv": "Ed25519", "x": jwt.utils.base64url_encode(bytes(public)).decode()}
        )
        claims = jwt.decode(token, key, ["EdDSA"], options={"verify_exp": False, "verify_iat": False}, audience="a")
        assert claims["sub"] == "router"
    for broken in ("", "short", "zz" * 32):
        file.write_text(broken)
        clock.now += 11
        assert made.header("a").split()[2].decode() == token
