"""kubectl for programs: apply, read, wait, forward a port. The demo and the end-to-end tests talk to the cluster through it."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wisp_cluster.build import binary
from wisp_cluster.certificates import kubeconfig
from wisp_cluster.network import RANGE
from wisp_cluster.progress import ClusterError, run, wait_for

Object = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True)
class Kubectl:
    """One cluster, and one namespace or (empty) none in particular."""

    program: Path
    kubeconfig: Path
    namespace: str = ""

    @classmethod
    def of_cluster(cls) -> "Kubectl":
        """The administrator's access to the cluster that `up` made, whichever way."""
        return cls(binary("kubectl"), kubeconfig("admin"))

    @property
    def scope(self) -> list[str]:
        """The option that names the namespace."""
        return ["-n", self.namespace] if self.namespace else []

    @property
    def env(self) -> dict[str, str]:
        """The environment in which kubectl and helm find the cluster, past any proxy of this machine."""
        own = f"127.0.0.1,localhost,{RANGE}"
        proxied = {name: f"{os.environ[name]},{own}" for name in ("NO_PROXY", "no_proxy") if os.environ.get(name)}
        return os.environ | {"NO_PROXY": own, "KUBECONFIG": str(self.kubeconfig)} | proxied

    def within(self, namespace: str) -> "Kubectl":
        """The same cluster, another namespace."""
        return Kubectl(self.program, self.kubeconfig, namespace)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it prints.

        Raises:
            ClusterError: it failed; the message holds what it said.
        """
        return run([self.program, *self.scope, *arguments], stdin=stdin, env=self.env, what=f"kubectl {arguments[0]}")

    def apply(self, manifest: str | Path) -> None:
        """Server-side apply a file, a folder, or the text of a manifest."""
        options = ["apply", "--server-side", "--force-conflicts", "-f"]
        if isinstance(manifest, Path):
            self(*options, str(manifest))
        else:
            self(*options, "-", stdin=manifest)

    def ensure_namespace(self) -> None:
        """Create this namespace unless it is there."""
        self.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}))

    def get(self, kind: str, name: str) -> Object | None:
        """One object, or None where there is none."""
        text = self("get", kind, name, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def items(self, kind: str, selector: str = "") -> list[Object]:
        """The objects of a kind in this namespace that match a label selector."""
        text = self("get", kind, "-o", "json", *(["-l", selector] if selector else []))
        found: list[Object] = json.loads(text)["items"]
        return found

    def wait_ready(self, kind: str, name: str, seconds: float = 180) -> Object:
        """Wait for the condition Ready of one object of ours or of Knative's, as it stands for its newest generation.

        Raises:
            ClusterError: it was not ready in time; the message is the condition's.
        """

        def missing() -> str | None:
            found = self.get(kind, name)
            if found is None:
                return f"there is no {kind} {name}"
            status = found.get("status", {})
            if status.get("observedGeneration") != found["metadata"]["generation"]:
                return "nobody has looked at it yet; is the operator running?"
            ready = condition(found, "Ready")
            if ready.get("status") == "True":
                return None
            return f"{ready.get('reason', 'no condition Ready')}: {ready.get('message', '')}"

        hint = f"kubectl -n {self.namespace} describe {kind} {name}"
        wait_for(missing, seconds=seconds, what=f"{kind} {self.namespace}/{name}", hint=hint)
        return self.get(kind, name) or {}

    def wait_pods(self, selector: str, want: Callable[[int], bool], what: str, seconds: float = 180) -> None:
        """Wait until the number of pods that match `selector`, ending ones left out, is as wanted."""

        def missing() -> str | None:
            pods = [pod for pod in self.items("pods", selector) if "deletionTimestamp" not in pod["metadata"]]
            return None if want(len(pods)) else f"{len(pods)} pods"

        wait_for(missing, seconds=seconds, what=what, hint=f"kubectl -n {self.namespace} get pods -l {selector}")

    @contextmanager
    def port_forward(self, target: str, port: int) -> Iterator[int]:
        """A port of loopback that reaches `port` of `target` (`svc/name`), as long as the block runs."""
        command = [str(self.program), *self.scope, "port-forward", target, f":{port}"]
        with subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child:
            try:
                assert child.stdout  # noqa: S101 - Popen gave it: stdout=PIPE
                line = child.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+)", line)
                if not found:
                    raise ClusterError(f"kubectl port-forward {target}: {line.strip()}")
                yield int(found[1])
            finally:
                child.terminate()


def condition(found: Object, kind: str) -> dict[str, str]:
    """The condition of this type, or an empty one."""
    conditions: list[dict[str, str]] = found.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})
