"""The node's keys: one certificate authority, the API server's certificates, and a token for each client.

They live in the state directory, are made once, and go with `down`. Clients authenticate by token: a static token file is enough for a
node that one machine starts and ends.
"""

import json
import secrets
from pathlib import Path

from wisp_cluster.network import API_SERVICE_IP, NODE_IP
from wisp_cluster.paths import state_dir
from wisp_cluster.progress import run

NODE_NAME = "onenode"
API_URL = f"https://{NODE_IP}:6443"

USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    "dns": ("system:coredns", ""),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
}
"""Client -> (Kubernetes user, group)."""


def pki_dir() -> Path:
    """Where the keys are; readable by root only."""
    return state_dir() / "pki"


def kubeconfig(client: str) -> Path:
    """The kubeconfig of one of USERS; the administrator's is the one that people use."""
    return state_dir() / "kubeconfig" if client == "admin" else pki_dir() / f"{client}.kubeconfig"


def make_keys() -> None:
    """Make all keys, unless they are there."""
    pki = pki_dir()
    if (pki / "complete").exists():
        return
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    _openssl("genrsa", "-out", "service-accounts.key", "2048")
    _openssl("rsa", "-in", "service-accounts.key", "-pubout", "-out", "service-accounts.pub")
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=wisp-onenode-ca"),
        *(
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ),
    )
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ]
    addresses = [NODE_IP, API_SERVICE_IP, "127.0.0.1"]
    alternatives = ",".join([f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses])
    _signed("apiserver", "/CN=kube-apiserver", f"subjectAltName={alternatives}")
    _signed("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", "extendedKeyUsage=clientAuth")
    _write_tokens()
    (pki / "complete").touch()


def _write_tokens() -> None:
    tokens = {client: secrets.token_hex(24) for client in USERS}
    lines = [f'{tokens[client]},{user},{client},"{group}"' for client, (user, group) in USERS.items()]
    _write_private(pki_dir() / "tokens.csv", "\n".join(lines) + "\n")
    for client, token in tokens.items():
        _write_private(kubeconfig(client), json.dumps(_kubeconfig(token), indent=1))


def _kubeconfig(token: str) -> dict[str, object]:
    cluster = {"server": API_URL, "certificate-authority": str(pki_dir() / "ca.crt")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "wisp", "cluster": cluster}],
        "users": [{"name": "wisp", "user": {"token": token}}],
        "contexts": [{"name": "wisp", "context": {"cluster": "wisp", "user": "wisp"}}],
        "current-context": "wisp",
    }


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _signed(name: str, subject: str, extension: str) -> None:
    """A key and a certificate that the authority signed."""
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
    identifiers = (
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"  # Python 3.13 refuses certificates without
    )
    (pki_dir() / f"{name}.ext").write_text(f"{identifiers}{extension}\n")
    authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    _openssl(
        "x509",
        "-req",
        "-in",
        f"{name}.csr",
        *authority,
        "-days",
        "3650",
        "-extfile",
        f"{name}.ext",
        "-out",
        f"{name}.crt",
    )


def _openssl(*arguments: str) -> None:
    run(["openssl", *arguments], cwd=pki_dir(), what=f"openssl {arguments[0]}", hint="install openssl")
