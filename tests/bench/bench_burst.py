"""`python tests/bench/bench_burst.py`: what Knative's activator in the path of a warm function costs, and what it is good for.

The same Function with each `target-burst-capacity`: Knative's default (the activator is in the path while the pods have room for
fewer than 211 requests), 0 (only while there is no pod) and -1 (always), for pods that take 1 and 20 requests at once. The values take
turns in each round, so the ratios count; the machine's other work is in all of them alike. A request has failed if its answer is
not a 200 of the function's. Requests reach the ingress by its cluster IP, as those of the cluster do.
"""

import argparse
import concurrent.futures
import http.client
import itertools
import re
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.functions import function
from fixtures.platform import bench_namespace, post_events, subscribe
from wisp_cluster.install import NAMESPACE as SYSTEM
from wisp_cluster.kubectl import Kubectl
from wisp_cluster.network import INGRESS_SERVICE_IP
from wisp_cluster.progress import wait_for

VALUES = {"default": {}, "0": {"autoscaling.knative.dev/target-burst-capacity": "0"}}
VALUES["-1"] = {"autoscaling.knative.dev/target-burst-capacity": "-1"}
CONNECTIONS = {1: 8, 20: 16}
"""Of wrk, by the requests that a pod takes at once: no more than it runs and lets wait."""
CALLERS = {1: 60, 20: 300}
"""That begin at the same moment."""
CODE = """import json, time

def handler(event, context):
    asked = event.get("queryStringParameters") or event.get("data") or {}
    time.sleep(float(asked.get("seconds", 0)))
    return "done"
"""
MOST_PODS = 8
"""Ending ones included: the node has room for some 16."""


class Tally:
    """Answers of several callers."""

    def __init__(self) -> None:
        """Begin with none."""
        self.seconds: list[float] = []
        self.told: Counter[str] = Counter()

    def ask(self, connection: http.client.HTTPConnection, host: str, path: str) -> None:
        """One request, over a connection that is kept."""
        start = time.monotonic()
        try:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            text = answer.read().decode()
            told = "" if answer.status == 200 else f"{answer.status} {text[:60].strip()}"
        except (OSError, http.client.HTTPException) as error:
            told = repr(error)
            connection.close()
        self.seconds.append(time.monotonic() - start)
        if told:
            self.told[told] += 1

    def row(self) -> str:
        """Requests, failed ones, times, and what was said most."""
        ordered = sorted(self.seconds)
        p50, p99 = statistics.median(ordered) * 1e3, ordered[int(0.99 * len(ordered))] * 1e3
        said = "; ".join(f"{count} x {told}" for told, count in self.told.most_common(2))
        return f"{len(ordered)} | {self.told.total()} | {p50:.0f} | {p99:.0f} | {said} |"


def crowd(host: str, path: str, callers: int, seconds: float = 0) -> Tally:
    """So many callers that begin at the same moment; each asks once, or for so many seconds."""
    tally, together = Tally(), threading.Barrier(callers)

    def caller() -> None:
        connection = http.client.HTTPConnection(INGRESS_SERVICE_IP, 80, timeout=60)
        together.wait()
        until = time.monotonic() + seconds
        tally.ask(connection, host, path)
        while time.monotonic() < until:
            tally.ask(connection, host, path)
        connection.close()

    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        for done in [pool.submit(caller) for _ in range(callers)]:
            done.result()
    return tally


def deploy(own: Kubectl, value: str, at_once: int, least: int, most: int) -> tuple[str, str]:
    """The function with one value; returns its name and its host."""
    name = f"burst-{'default' if value == 'default' else 'b' + value.replace('-', 'm')}-{at_once}-{most}"
    scale = {"min": least, "max": most, "perInstance": at_once, "idleSeconds": 10}
    spec = {"scale": scale, "timeoutSeconds": 10, "memory": "128Mi", "pod": {"annotations": VALUES[value]}}
    own.apply(function(name, {"files": {"app.py": CODE}}, **spec))
    return name, own.wait_ready("functions", name)["status"]["url"].removeprefix("http://")


def room(own: Kubectl) -> None:
    """Wait until the node has room for more pods."""

    def missing() -> str | None:
        count = len(own.items("pods", "wisp.dev/function"))
        return None if count <= MOST_PODS else f"{count} pods, ending ones included"

    wait_for(missing, seconds=240, what="room for pods")


def warm(own: Kubectl, seconds: int, rounds: int) -> None:
    """Print requests a second and times onto one pod, and a burst onto it."""
    for at_once, connections in CONNECTIONS.items():
        hosts = {value: deploy(own, value, at_once, 1, 1)[1] for value in VALUES}
        rates: dict[str, list[tuple[float, str]]] = {value: [] for value in VALUES}
        for _, (value, host) in itertools.product(range(rounds), hosts.items()):
            rates[value].append(loaded(host, seconds, connections))
        best = {value: max(found) for value, found in rates.items()}
        for value, (rate, times) in best.items():
            ratio = rate / best["default"][0]
            print(f"| warm, {connections} connections | {at_once} | {value} | {rate:,.0f}/s, {ratio:.0%} | {times} | |")
        for value, host in hosts.items():
            tally = crowd(host, "/?seconds=0.05", CALLERS[at_once])
            print(f"| {CALLERS[at_once]} requests at once, one pod | {at_once} | {value} | {tally.row()}", flush=True)
        own("delete", "functions", "--all", "--timeout=120s")


def loaded(host: str, seconds: int, connections: int) -> tuple[float, str]:
    """Wrk's requests a second; answers that are none of the function's, and p50, p99 in ms."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", f"Host: {host}"]
    output = subprocess.check_output([*command, f"http://{INGRESS_SERVICE_IP}/"], text=True)
    times = " | ".join(re.findall(rf"{part}%\s+([\d.]+\w+)", output)[0].removesuffix("ms") for part in (50, 99))
    failed = re.findall(r"Non-2xx or 3xx responses: (\d+)", output)
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", output)[0]), f"{failed[0] if failed else 0} | {times}"


def growing(own: Kubectl) -> None:
    """Print a burst that finds no pod, and callers that go on asking while pods are added."""
    for at_once, value in itertools.product(CONNECTIONS, VALUES):
        room(own)
        name, host = deploy(own, value, at_once, 0, 4)
        own.wait_pods(f"wisp.dev/function={name}", lambda count: count == 0, f"{name} goes to zero", 240)
        tally = crowd(host, "/?seconds=0.05", CALLERS[at_once])
        print(f"| {CALLERS[at_once]} requests at once, no pod | {at_once} | {value} | {tally.row()}", flush=True)
        tally = crowd(host, "/?seconds=0.1", 4 * at_once, seconds=10)
        pods = len(own.items("pods", f"wisp.dev/function={name}"))
        print(f"| {4 * at_once} callers for 10 s, {pods} pods | {at_once} | {value} | {tally.row()}", flush=True)
        own("delete", "function", name, "--timeout=120s")


def routed(own: Kubectl, events: int = 300) -> None:
    """Print what the router's deliveries of a bus's events meet: attempts by verdict, and the seconds until all are delivered."""
    for value in VALUES:
        room(own)
        name, _ = deploy(own, value, 1, 0, 4)
        own.wait_pods(f"wisp.dev/function={name}", lambda count: count == 0, f"{name} goes to zero", 240)
        subscribe(own, name, name, {"bus": {"name": name}}, parallelism=10)
        start = time.monotonic()
        now = datetime.now(UTC).isoformat()
        event = {"specversion": "1.0", "source": "/bench", "type": "burst", "time": now, "data": {"seconds": 0.05}}
        post_events(own, name, [event | {"id": str(number)} for number in range(events)])
        all_delivered(own, name, events)
        took, seen = time.monotonic() - start, attempts(own, name)
        print(f"| {events} events by a Subscription, no pod | 1 | {value} | {took:.1f} s | {seen} |", flush=True)
        own("delete", "subscription", name, "--timeout=120s")
        own("delete", "function", name, "--timeout=120s")


def all_delivered(own: Kubectl, name: str, events: int) -> None:
    """Wait until the routers have delivered so many."""

    def missing() -> str | None:
        seen = attempts(own, name)
        return None if seen.get("delivered", 0) >= events else str(seen)

    wait_for(missing, seconds=120, what="all events are delivered")


def attempts(own: Kubectl, name: str) -> dict[str, int]:
    """The routers' attempts for one Subscription, by verdict."""
    found: Counter[str] = Counter()
    for pod in own.within(SYSTEM).items("pods", "app.kubernetes.io/component=router"):
        connection = http.client.HTTPConnection(pod["status"]["podIP"], 9090, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        for line in text.splitlines():
            if (
                line.startswith("wisp_router_attempts_total")
                and f'namespace="{own.namespace}"' in line
                and name in line
            ):
                found[re.findall(r'verdict="(\w+)"', line)[0]] += int(float(line.rpartition(" ")[2]))
    return {verdict: count for verdict, count in found.items() if count}


def main() -> None:
    """Measure, print Markdown tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=4, help="of each round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", choices=["warm", "growing", "routed"])
    chosen = options.parse_args()
    with bench_namespace(Kubectl.of_cluster(), f"wisp-bench-{uuid.uuid4().hex[:8]}") as own:
        print("| what | at once in a pod | target-burst-capacity | requests | failed | p50 ms | p99 ms | said |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        if chosen.only in (None, "warm"):
            warm(own, chosen.seconds, chosen.rounds)
        if chosen.only in (None, "growing"):
            growing(own)
        if chosen.only in (None, "routed"):
            routed(own)


if __name__ == "__main__":
    main()
