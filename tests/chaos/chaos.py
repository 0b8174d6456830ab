"""`make chaos`: 100,000 objects and row changes while every part is killed, paused or cut off at random; then the books are balanced.

Against a cluster that `make up` made. What counts as sent is what MinIO answered, and what stands in the database at the end: a
row's number goes up by one with each change, so a change whose commit was cut off is told from one that never was. Nothing may be
missing, and each row's numbers have to be seen first in their order. Some events the function never takes (`poison`): each of these has
to stand in the dead letters, with the story of its attempts, before a later change of its row is seen, and no other event may.

The same seed breaks the same things in the same order, though not at the same moments.
"""

import argparse
import contextlib
import io
import os
import random
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.remove(str(Path(__file__).parent))  # there `chaos` is this file

import psycopg2
import urllib3
from chaos.books import Sent, committed, verify
from chaos.poison import RETRY, fate, row_event
from fixtures.collector import Collector, collector
from fixtures.platform import bucket_connection, host_address, postgres_connection, subscribe
from minio import Minio
from minio.error import MinioException
from wisp.cluster import Cluster
from wisp.dead import Letters
from wisp_cluster.faults import cut_off_pods, kill_pods, paused_pods
from wisp_cluster.install import NAMESPACE as SYSTEM
from wisp_cluster.kubectl import Kubectl
from wisp_cluster.progress import ClusterError

BUCKET: Final = "chaos"
ROWS: Final = 200
WRITERS: Final = 4
"""Of each kind; a row has one of them only."""
BATCH: Final = {"size": 100, "windowSeconds": 1}
QUIET_SECONDS: Final = (1.0, 5.0)
"""Between two faults."""
PAUSE_SECONDS: Final = (2.0, 20.0)
"""How long a part stays paused or cut off: shorter and longer than leases and heartbeats are."""
FAULTS: Final = ("killed", "killed", "paused", "cut off")


@dataclass
class Part:
    """Something that can be broken."""

    name: str
    namespace: str
    selector: str

    def ready(self, system: Kubectl) -> bool:
        """Whether a pod of it is ready: what is down can't be broken."""
        for pod in system.within(self.namespace).items("pods", self.selector):
            for condition in pod["status"].get("conditions", []):
                if condition["type"] == "Ready" and condition["status"] == "True":
                    return True
        return False

    def replace(self, system: Kubectl) -> None:
        """Delete its pods that the kubelet holds back after many ends: a new one starts at once, where this one would in minutes."""
        for pod in system.within(self.namespace).items("pods", self.selector):
            states = [status.get("state", {}) for status in pod["status"].get("containerStatuses", [])]
            if any(state.get("waiting", {}).get("reason") == "CrashLoopBackOff" for state in states):
                system.within(self.namespace)("delete", "pod", pod["metadata"]["name"], "--wait=false")

    def pause(self, fault: str) -> AbstractContextManager[None]:
        """The fault that lasts for a block."""
        return (paused_pods if fault == "paused" else cut_off_pods)(self.namespace, self.selector)


def parts(own: Kubectl) -> list[Part]:
    """Everything that an event passes, and the operator."""
    component = "app.kubernetes.io/component"
    system = [Part(name, SYSTEM, f"{component}={name}") for name in ("router", "ingest", "nats", "minio", "operator")]
    return [
        *system,
        Part("reader", own.namespace, f"{component}=reader"),
        Part("function", own.namespace, f"{component}=function"),
        Part("postgresql", own.namespace, "app=orders-db"),
    ]


@dataclass
class Traffic:
    """The writers, and what they have done."""

    objects: int
    changes: int
    minio: Minio
    dsn: str
    answered: list[str] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Write everything, however often something is away."""
        work = [*((self.put, n) for n in range(WRITERS)), *((self.change, n) for n in range(WRITERS))]
        threads = [threading.Thread(target=action, args=(number,)) for action, number in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def put(self, writer: int) -> None:
        """Put this writer's share of the objects, each under a key of its own; only answered ones count."""
        for number in range(writer, self.objects, WRITERS):
            key = f"in/ö +%{number}.{fate(number, self.objects)}.txt"
            self.persist("PUT", lambda key=key: self.put_one(key))  # type: ignore[misc]

    def put_one(self, key: str) -> None:
        """Put one object."""
        self.minio.put_object(BUCKET, key, io.BytesIO(b"x"), 1)
        self.answered.append(key)

    def change(self, writer: int) -> None:
        """Count this writer's rows up, one transaction a change; a commit that was cut off is looked up, not repeated."""
        rows = range(writer, ROWS, WRITERS)
        for wanted in range(1, self.changes // ROWS + 1):
            for row in rows:
                self.persist("UPDATE", lambda row=row, wanted=wanted: self.change_one(writer, row, wanted))  # type: ignore[misc]

    def change_one(self, writer: int, row: int, wanted: int) -> None:
        """Bring a row to its next number, if it isn't there."""
        end = fate(row_event(row, wanted, ROWS), self.changes)
        with self.session(writer).cursor() as cursor:
            cursor.execute("UPDATE counters SET n = %s, fate = %s WHERE id = %s AND n < %s", (wanted, end, row, wanted))

    _sessions: dict[int, Any] = field(default_factory=dict)

    def session(self, writer: int) -> Any:
        """This writer's connection, made anew after it broke."""
        found = self._sessions.get(writer)
        if found is None or found.closed:
            found = self._sessions[writer] = psycopg2.connect(
                self.dsn, connect_timeout=5, keepalives_idle=5, keepalives_interval=2, tcp_user_timeout=10_000
            )
            found.autocommit = True
        return found

    def persist(self, what: str, action: Callable[[], None]) -> None:
        """Try until it is done."""
        while True:
            try:
                return action()
            except (psycopg2.Error, MinioException, urllib3.exceptions.HTTPError, OSError):
                self.retries[what] += 1
                time.sleep(0.5)


def break_things(
    system: Kubectl, own: Kubectl, chance: random.Random, over: threading.Event
) -> Counter[tuple[str, str]]:
    """Break one part after the other until the traffic is over, and each at least once."""
    broken: Counter[tuple[str, str]] = Counter()
    every = parts(own)
    while not over.is_set() or len({name for name, _ in broken}) < len(every):
        part, fault = chance.choice(every), chance.choice(FAULTS)
        seconds = chance.uniform(*PAUSE_SECONDS)
        with contextlib.suppress(ClusterError):  # it ended by itself between the look and the fault
            if not part.ready(system):
                part.replace(system)
                over.wait(1)
                continue
            if fault == "killed":
                kill_pods(part.namespace, part.selector)
            else:
                with part.pause(fault):
                    time.sleep(seconds)
            broken[part.name, fault] += 1
        over.wait(chance.uniform(*QUIET_SECONDS))
    return broken


def summary(broken: Counter[tuple[str, str]]) -> str:
    """What was broken how often."""
    return ", ".join(f"{name} {fault} {count}" for (name, fault), count in sorted(broken.items()))


def deploy(own: Kubectl, reports: Collector) -> None:
    """The function that reports what it gets."""
    text = Template((Path(__file__).parent / "recorder.yaml").read_text())
    own.apply(text.substitute(COLLECTOR=f"{reports.url}/chaos"))
    own.wait_ready("functions", "chaos")


def main() -> int:
    """Run it; 1 when something was lost or out of order."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--events", type=int, default=100_000, help="objects and row changes together")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    kubectl = Kubectl.of_cluster()
    os.environ.update(kubectl.env)  # by which `wisp`'s own code finds the cluster, too
    own = kubectl.within(f"chaos-{uuid.uuid4().hex[:8]}")
    own.ensure_namespace()
    print(f"{options.events} events, seed {options.seed}, namespace {own.namespace}", flush=True)
    with collector(host_address(kubectl)) as reports:
        try:
            return trial(kubectl, own, reports, options.events, options.seed)
        finally:
            own("delete", "subscriptions", "--all", "--timeout=300s")
            own("delete", "namespace", own.namespace, "--wait=false")


def trial(kubectl: Kubectl, own: Kubectl, reports: Collector, events: int, seed: int) -> int:
    """Set up, write and break, verify."""
    letters = Letters(Cluster(own.namespace), SYSTEM)
    deploy(own, reports)
    minio = bucket_connection(own, "my-s3", buckets=[BUCKET])
    dsn = postgres_connection(own)
    with psycopg2.connect(dsn) as session, session.cursor() as cursor:
        cursor.execute("CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL, fate text NOT NULL)")
        cursor.execute("INSERT INTO counters SELECT id, 0, '' FROM generate_series(0, %s) id", [ROWS - 1])
    bucket = {"name": BUCKET, "connection": {"name": "my-s3"}}
    subscribe(own, "objects", "chaos", {"bucket": bucket}, batch=BATCH, retry=RETRY)
    rows = {"tables": ["public.counters"], "connection": {"name": "shop-db"}, "operations": ["update"]}
    subscribe(own, "rows", "chaos", {"postgres": rows}, batch=BATCH, retry=RETRY)
    traffic = Traffic(events // 2, events // 2, minio, dsn)
    over = threading.Event()

    def write() -> None:
        try:
            traffic.run()
        finally:
            over.set()

    writing = threading.Thread(target=write)
    writing.start()
    broken = break_things(kubectl.within(SYSTEM), own, random.Random(seed), over)
    writing.join()
    print(f"written in {time.monotonic() - traffic.started:.0f} s; {summary(broken)}", flush=True)
    sent = Sent(set(traffic.answered), committed(dsn), traffic.changes)
    wrong = verify(sent, reports, letters)
    said = "; ".join(wrong) or "nothing lost, every row in order, what fails for ever in the dead letters"
    print(
        f"over after {time.monotonic() - traffic.started:.0f} s, repeated by the writers: {dict(traffic.retries)}: {said}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
