"""How to reach and enter the cluster: what an ordinary kubeconfig says, read without the Kubernetes client.

The official client takes half a second to import, which is more than most commands take. Files of KUBECONFIG are merged as kubectl
does it: of two entries of one name the first counts. Tokens, client certificates and exec plugins are understood.
"""

import base64
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import yaml

from wisp.errors import UnreachableError, UsageError

Entry = Mapping[str, Any]
_LISTS: Final = ("clusters", "users", "contexts")


@dataclass(frozen=True)
class Access:
    """One cluster and who we are there."""

    server: str
    """`https://host:port`, without a slash at the end."""
    namespace: str
    context: ssl.SSLContext
    headers: Mapping[str, str] = field(default_factory=dict)
    """Authorization, where a token says who we are."""


class _Context(ssl.SSLContext):
    """A TLS context that checks the certificate against another name than the one dialled (`tls-server-name`)."""

    server_name: str | None = None

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Wrap the socket, for the name that the kubeconfig gives."""
        if self.server_name:
            options["server_hostname"] = self.server_name
        return super().wrap_socket(*arguments, **options)


def load(namespace: str | None = None) -> Access:
    """The access that KUBECONFIG or ~/.kube/config gives in its current context.

    Raises:
        UnreachableError: there is no kubeconfig, or it names no cluster.
        UsageError: the kubeconfig is there and wrong.
    """
    merged = _merge(_paths())
    name, context, cluster = _current(merged)
    user = _entry(merged, "users", context["user"])["user"] if context.get("user") else {}
    try:
        return Access(
            server=cluster["server"].rstrip("/"),
            namespace=namespace or context.get("namespace") or "default",
            context=(tls := _tls(cluster)),
            headers=_enter(user, tls),
        )
    except KeyError as missing:
        raise UsageError(f"the kubeconfig's context {name} has no {missing.args[0]}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"the kubeconfig's context {name} can't be used: {error}") from None


def address() -> tuple[str, int] | None:
    """Host and port of the current context's cluster; None behind a proxy, which alone knows whether it is there.

    Raises:
        CommandError: there is no kubeconfig, or it is wrong.
        KeyError, ValueError: it has no server, or one without a host.
    """
    server = urlsplit(_current(_merge(_paths()))[2]["server"])
    if server.scheme in getproxies():
        return None
    if not server.hostname:
        raise ValueError("no host")
    return server.hostname, server.port or {"https": 443}.get(server.scheme, 80)


def _current(merged: Mapping[str, Any]) -> tuple[str, Entry, Entry]:
    """The current context's name, itself, and its cluster."""
    name = merged["current-context"]
    if not name:
        raise UnreachableError("the kubeconfig has no current context: choose one with `kubectl config use-context`")
    context = _entry(merged, "contexts", name)["context"]
    return name, context, _entry(merged, "clusters", context.get("cluster", ""))["cluster"]


def _paths() -> list[Path]:
    listed = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    paths = listed or [Path.home() / ".kube" / "config"]
    if found := [path for path in paths if path.is_file()]:
        return found
    wanted = os.pathsep.join(map(str, paths))
    raise UnreachableError(f"there is no kubeconfig at {wanted}: set KUBECONFIG to the file that leads to your cluster")


def _merge(paths: list[Path]) -> dict[str, Any]:
    merged: dict[str, Any] = {"current-context": ""} | {kind: {} for kind in _LISTS}
    for path in paths:
        config = _read(path)
        merged["current-context"] = merged["current-context"] or config.get("current-context")
        for kind in _LISTS:
            for entry in config.get(kind) or []:
                merged[kind].setdefault(entry["name"], _absolute(entry, path.parent))
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"the kubeconfig {path} can't be read: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise UsageError(f"the kubeconfig {path} is no kubeconfig: it holds no mapping")
    return config


def _absolute(entry: Entry, folder: Path) -> Entry:
    """The entry with paths as they are meant: relative to the file that holds them."""
    files = {"certificate-authority", "client-certificate", "client-key", "tokenFile"}
    return {
        key: {name: str(folder / item) if name in files else item for name, item in value.items()}
        if isinstance(value, dict)
        else value
        for key, value in entry.items()
    }


def _entry(merged: Mapping[str, Any], kind: str, name: str) -> Entry:
    try:
        found: Entry = merged[kind][name]
    except KeyError:
        raise UsageError(f"the kubeconfig has no entry {name!r} under {kind}") from None
    return found


def _tls(cluster: Entry) -> ssl.SSLContext:
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    # Clusters' own authorities often lack what this newer default of Python insists on.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    context.server_name = cluster.get("tls-server-name")
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif data := cluster.get("certificate-authority-data"):
        context.load_verify_locations(cadata=base64.b64decode(data).decode())
    elif path := cluster.get("certificate-authority"):
        context.load_verify_locations(cafile=path)
    else:
        context.load_default_certs()
    return context


def _enter(user: Entry, context: ssl.SSLContext) -> dict[str, str]:
    """The headers that say who we are; a client certificate goes into the TLS context."""
    if "exec" in user:
        status = _run_plugin(user["exec"])
        user = {
            "token": status.get("token"),
            "client-certificate-data": _encode(status.get("clientCertificateData")),
            "client-key-data": _encode(status.get("clientKeyData")),
        }
    if user.get("client-certificate") and user.get("client-key"):
        context.load_cert_chain(user["client-certificate"], user["client-key"])
    elif user.get("client-certificate-data") and user.get("client-key-data"):
        _load_chain(context, user["client-certificate-data"], user["client-key-data"])
    token = user.get("token")
    if not token and user.get("tokenFile"):
        token = Path(user["tokenFile"]).read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _encode(text: str | None) -> str | None:
    return base64.b64encode(text.encode()).decode() if text else None


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a certificate and key given in base64; OpenSSL takes them from a file only, which is ours alone and gone at once."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(base64.b64decode(certificate) + b"\n" + base64.b64decode(key))
        file.flush()
        context.load_cert_chain(file.name)


def _run_plugin(plugin: Entry) -> Entry:
    """The credentials that an exec plugin prints."""
    command = [plugin["command"], *(plugin.get("args") or [])]
    asked = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": {"interactive": False}}
    variables = {entry["name"]: entry["value"] for entry in plugin.get("env") or []}
    environment = os.environ | variables | {"KUBERNETES_EXEC_INFO": json.dumps(asked)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise ValueError(f"its credential plugin `{' '.join(command)}` ended with {done.returncode}")
    status: Entry = json.loads(done.stdout)["status"]
    return status
