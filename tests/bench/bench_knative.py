"""Measure what a function gives behind Knative's queue-proxy: ``python tests/bench/bench_knative.py [--seconds 5] [--rounds 4]``.

Two Knative Services on the installed one-node cluster: the Function ``hello`` as the operator makes it, and a server in C
(``hello.c``, one epoll loop) with the same image, resources, probes and concurrency, which differs in its command alone. ``wrk``
asks each pod's queue-proxy by the pod's own address, so neither ingress nor activator is in the way, first one and then the
other, in several rounds. The ratio counts; requests a second are the machine's. Processor time is told for each part, because
all of them share the machine. Needs root's cluster (``make install``), wrk and gcc.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.functions import function
from wisp_cluster.kubectl import Kubectl

if TYPE_CHECKING:
    from collections.abc import Iterator

HELLO = "def handler(event, context):\n    return {'message': 'hello'}\n"
QUEUE_PORT = 8012  # of HTTP/1.1, in each pod of Knative
KINDS = ((1, 8), (16, 16))
"""Events at once in the instance, and connections: one at a time with some that wait, and as many as there are callers."""


class Served:
    """One of the two in its pod."""

    def __init__(self, own: Kubectl, name: str) -> None:
        """Find its pod."""
        own.wait_ready("services.serving.knative.dev", name)
        selector = f"serving.knative.dev/service={name}"
        own.wait_pods(selector, lambda count: count == 1, f"{name} has one pod")
        pod = own.items("pods", selector)[0]
        self.address = f"http://{pod['status']['podIP']}:{QUEUE_PORT}/"
        self.uid = pod["metadata"]["uid"]
        self.rates: list[float] = []
        self.costs: list[tuple[float, float, float]] = []

    def load(self, seconds: int, connections: int) -> None:
        """Run wrk once; note requests a second and what each of the three took of the processors."""
        before = (*self._used(), resource.getrusage(resource.RUSAGE_CHILDREN))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", self.address]
        output = subprocess.check_output(command, text=True)
        assert "Non-2xx" not in output, output
        after = (*self._used(), resource.getrusage(resource.RUSAGE_CHILDREN))
        requests = int(re.findall(r"(\d+) requests in", output)[0])
        wrk = sum(getattr(after[2], name) - getattr(before[2], name) for name in ("ru_utime", "ru_stime"))
        costs = (after[0] - before[0], after[1] - before[1], wrk)
        self.costs.append(tuple(cost / requests * 1e6 for cost in costs))  # type: ignore[arg-type] # there are three
        self.rates.append(float(re.findall(r"Requests/sec:\s+([\d.]+)", output)[0]))

    def _used(self) -> tuple[float, float]:
        """Return the processor seconds of the pod's queue-proxy, and of all else in it."""
        queue = rest = 0.0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.uid not in (folder / "cgroup").read_text().replace("_", "-"):
                    continue
                fields = (folder / "stat").read_text().rpartition(")")[2]
                is_queue = b"QUEUE_SERVING_PORT=" in (folder / "environ").read_bytes()
            except OSError:  # it has just ended
                continue
            seconds = sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")
            queue, rest = (queue + seconds, rest) if is_queue else (queue, rest + seconds)
        return queue, rest


def in_c(service: dict[str, Any], name: str) -> str:
    """Make the manifest of the Knative Service that differs from a function's in its command and its code alone."""
    template = service["spec"]["template"]
    template["metadata"].pop("name", None)
    pod = template["spec"]
    container = pod["containers"][0]
    container["command"] = ["/var/task/hello"]
    container.pop("args", None)
    for volume in pod["volumes"]:
        if volume["name"] == "code":
            volume["configMap"] = {"name": name, "defaultMode": 0o555}
    labels = {
        key: value for key, value in service["metadata"].get("labels", {}).items() if key.startswith("networking")
    }
    document = {"apiVersion": service["apiVersion"], "kind": "Service", "metadata": {"name": name, "labels": labels}}
    return json.dumps(document | {"spec": {"template": template}})


def deploy(own: Kubectl, concurrency: int) -> tuple[Served, Served]:
    """Deploy both, with one instance each."""
    name = f"hello-{concurrency}"
    spec = {"scale": {"min": 1, "max": 1, "perInstance": concurrency}}
    own.apply(function(name, {"files": {"app.py": HELLO}}, **spec))
    own.wait_ready("functions", name)
    own.apply(in_c(found(own, name), f"in-c-{concurrency}"))
    return Served(own, name), Served(own, f"in-c-{concurrency}")


def found(own: Kubectl, name: str) -> dict[str, Any]:
    """Return a Knative Service."""
    service = own.get("services.serving.knative.dev", name)
    assert service, f"there is no Knative Service {name}"
    return service


def compiled() -> str:
    """Compile the server; return it in base64."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "hello"
        subprocess.check_call(["gcc", "-O2", "-Wall", "-o", str(program), str(Path(__file__).parent / "hello.c")])
        return base64.b64encode(program.read_bytes()).decode()


@contextmanager
def namespace() -> Iterator[Kubectl]:
    """A namespace for the bench, deleted at the end."""
    own = Kubectl.of_cluster().within("wisp-bench-knative")
    own.ensure_namespace()
    try:
        yield own
    finally:
        own("delete", "functions", "--all", "--timeout=120s")
        own("delete", "namespace", own.namespace, "--timeout=180s")


def main() -> None:
    """Measure both kinds of concurrency, and print the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seconds", type=int, default=5, help="of each round")
    options.add_argument("--rounds", type=int, default=4)
    chosen = options.parse_args()
    program = compiled()
    with namespace() as own:
        print(
            "| at once | server | requests/s, best | ratio of the bests | CPU us/request: queue-proxy | server | wrk |"
        )
        print("|---|---|---|---|---|---|---|", flush=True)
        for concurrency, connections in KINDS:
            name = f"in-c-{concurrency}"
            config = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name},
                "binaryData": {"hello": program},
            }
            own.apply(json.dumps(config))
            pair = deploy(own, concurrency)
            for _ in range(chosen.rounds):
                for served in pair:
                    served.load(chosen.seconds, connections)
            for what, served in zip(("function", "in C"), pair, strict=True):
                costs = " | ".join(f"{min(part):.0f}" for part in zip(*served.costs, strict=True))
                ratio = max(served.rates) / max(pair[1].rates)
                print(f"| {concurrency} | {what} | {max(served.rates):,.0f} | {ratio:.0%} | {costs} |", flush=True)


if __name__ == "__main__":
    main()
