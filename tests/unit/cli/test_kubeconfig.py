"""An ordinary kubeconfig is understood as kubectl understands it."""

import base64
import json
import socket
import ssl
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from wisp import kubeconfig
from wisp.errors import UsageError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a kubeconfig that KUBECONFIG names."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    return tmp_path


def write(path: Path, name: str, user: dict[str, Any], **cluster: Any) -> None:
    """A kubeconfig whose context, cluster and user have one name."""
    entry = {"server": f"https://{name}.example:6443/"} | cluster
    config = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}}],
        "clusters": [{"name": name, "cluster": entry}],
        "users": [{"name": name, "user": user}],
    }
    path.write_text(yaml.safe_dump(config))


def test_a_token_and_the_contexts_namespace(home: Path) -> None:
    """The current context says where, as whom and in which namespace; -n has the last word."""
    write(home / "config", "a", {"token": "secret"})
    access = kubeconfig.load()
    assert (access.server, access.namespace) == ("https://a.example:6443", "ns-a")
    assert access.headers == {"Authorization": "Bearer secret"}
    assert access.context.verify_mode is ssl.CERT_REQUIRED
    assert kubeconfig.load("other").namespace == "other"


def test_files_are_merged_and_the_first_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several files the first current context counts; an absent one is passed over."""
    write(home / "one", "a", {"token": "one"})
    write(home / "two", "a", {"token": "two"})
    monkeypatch.setenv("KUBECONFIG", f"{home / 'absent'}:{home / 'one'}:{home / 'two'}")
    assert kubeconfig.load().headers == {"Authorization": "Bearer one"}


def test_a_plugin_gives_the_token(home: Path) -> None:
    """An exec plugin is run with its arguments and environment; one that fails is named."""
    plugin = home / "plugin"
    plugin.write_text('#!/bin/sh\necho "{\\"status\\": {\\"token\\": \\"$1-$WHO\\"}}"\n')
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    entry = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}
    write(home / "config", "a", {"exec": entry | {"args": ["for"], "env": [{"name": "WHO", "value": "me"}]}})
    assert kubeconfig.load().headers == {"Authorization": "Bearer for-me"}
    write(home / "config", "a", {"exec": entry | {"command": "false"}})
    with pytest.raises(UsageError, match="its credential plugin `false` ended with 1"):
        kubeconfig.load()


def test_a_client_certificate_as_data_and_as_file(home: Path) -> None:
    """A certificate and key are loaded from base64 or from files beside the kubeconfig; broken ones are a sentence."""
    subject = ["-subj", "/CN=me", "-keyout", str(home / "key"), "-out", str(home / "crt")]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run(command, check=True, capture_output=True)
    write(home / "config", "a", {"client-certificate": "crt", "client-key": "key"}, **{"certificate-authority": "crt"})
    assert kubeconfig.load().context.get_ca_certs()
    data = {name: base64.b64encode((home / name).read_bytes()).decode() for name in ("crt", "key")}
    write(home / "config", "a", {"client-certificate-data": data["crt"], "client-key-data": data["key"]})
    assert kubeconfig.load().headers == {}
    write(home / "config", "a", {"client-certificate-data": "bm8=", "client-key-data": "bm8="})
    with pytest.raises(UsageError, match="context a can't be used"):
        kubeconfig.load()


def test_the_clusters_own_ways_with_certificates(home: Path) -> None:
    """Verification can be switched off, and asked for under another name, as the kubeconfig says."""
    write(home / "config", "a", {}, **{"insecure-skip-tls-verify": True})
    assert kubeconfig.load().context.verify_mode is ssl.CERT_NONE
    write(home / "config", "a", {}, **{"tls-server-name": "kubernetes"})
    ours, theirs = socket.socketpair()
    with theirs, kubeconfig.load().context.wrap_socket(ours, server_hostname="x", do_handshake_on_connect=False) as tls:
        assert tls.server_hostname == "kubernetes"


def test_a_context_that_leads_nowhere(home: Path) -> None:
    """An entry that is missing is named."""
    write(home / "config", "a", {})
    config = json.loads(json.dumps(yaml.safe_load((home / "config").read_text())))
    config["contexts"][0]["context"]["cluster"] = "lost"
    (home / "config").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="no entry 'lost' under clusters"):
        kubeconfig.load()
