"""The validating webhook's certificate: made in the cluster, kept in a Secret of the operator's own namespace, renewed before it ends.

Invariant: what the API server is told to trust (`bundle`) always holds the certificate that any replica still serves: a new one is added to the one before
it. Every replica may renew; the Secret's resourceVersion lets one win, and the others read what it wrote.
"""

import base64
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from wisp_api import names

from wisp_operator.api import SECRETS, VALIDATING_WEBHOOKS, Api, ApiError, Object

SECRET: Final = "wisp-webhook-tls"  # noqa: S105 - a name
WEBHOOK: Final = "wisp-operator"
"""Name of the ValidatingWebhookConfiguration and of the Service in front of the operator."""
VALID: Final = timedelta(days=365)
RENEW: Final = timedelta(days=60)
"""Renewed when less than this is left."""
_CONFLICT: Final = 409
_SKEW: Final = timedelta(hours=1)


class Certificate(NamedTuple):
    """A self-signed certificate and its key, in PEM, and what to trust."""

    certificate: str
    key: str
    bundle: str
    """This certificate and the one before it."""


async def keep_certificate(api: Api, namespace: str, now: datetime) -> Certificate:
    """The certificate that is to be served, made or renewed where it is time, and known to the API server.

    Raises:
        ApiError: refused.
    """
    live = await api.get(SECRETS, namespace, SECRET)
    held = _read(live)
    if held is None or ends(held.certificate) - now < RENEW:
        made = make_certificate(f"{WEBHOOK}.{namespace}.svc", now)
        held = made._replace(bundle=made.certificate + (held.certificate if held else ""))
        await _store(api, namespace, held, live)
    await _tell(api, held.bundle)
    return held


def make_certificate(host: str, now: datetime, valid: timedelta = VALID) -> Certificate:
    """A new key, and a certificate for this host that it has signed itself; `localhost` is for an operator outside the cluster."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wisp-operator")])
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + valid)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host), x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(pem, private.decode(), pem)


def ends(certificate: str) -> datetime:
    """When a certificate ends; long ago for what is none."""
    try:
        return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _read(live: Object | None) -> Certificate | None:
    data = (live or {}).get("data") or {}
    if not {"tls.crt", "tls.key", "ca.crt"} <= data.keys():
        return None
    return Certificate(*(base64.b64decode(data[key]).decode() for key in ("tls.crt", "tls.key", "ca.crt")))


async def _store(api: Api, namespace: str, made: Certificate, live: Object | None) -> None:
    """Write the Secret; a conflict raises, and the next look finds what the other replica wrote."""
    values = {"tls.crt": made.certificate, "tls.key": made.key, "ca.crt": made.bundle}
    if live is not None:
        version = {"resourceVersion": live["metadata"]["resourceVersion"]}
        await api.merge(SECRETS, namespace, SECRET, {"metadata": version, "stringData": values})
        return
    metadata = {"name": SECRET, "namespace": namespace, "labels": dict(names.LABELS)}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls"}
    await api.create(SECRETS, namespace, secret | {"stringData": values})


async def _tell(api: Api, bundle: str) -> None:
    """Have the API server trust the bundle; the chart may have left the configuration out."""
    live = await api.get(VALIDATING_WEBHOOKS, None, WEBHOOK)
    wanted = base64.b64encode(bundle.encode()).decode()
    hooks = (live or {}).get("webhooks", [])
    if live is None or all(hook["clientConfig"].get("caBundle") == wanted for hook in hooks):
        return
    told = [hook | {"clientConfig": hook["clientConfig"] | {"caBundle": wanted}} for hook in hooks]
    version = {"resourceVersion": live["metadata"]["resourceVersion"]}
    try:
        await api.merge(VALIDATING_WEBHOOKS, None, WEBHOOK, {"metadata": version, "webhooks": told})
    except ApiError as error:
        if error.status != _CONFLICT:  # another replica tells it
            raise
