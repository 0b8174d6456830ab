"""`python tests/bench/bench_rollout.py`: requests that fail while a Function is updated, and while the platform is upgraded.

A client calls a function through the ingress all the time, half of it over connections that it keeps, half over new ones, and a
request of 3 seconds is always under way. Meanwhile the function gets other code, 20 times; then the operator other pods by
`helm upgrade`; then it, and all functions, another image of the runtime. A request has failed if its answer is not a 200 of the
function's. Of the upgrade of the operator alone it is told, too, what it started anew: pods of functions, revisions. Target: 0 of
each. The times are those of the short requests.
"""

import argparse
import http.client
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.functions import function
from fixtures.platform import bench_namespace
from fixtures.platform import upgrade as upgrade_chart
from wisp_cluster.components import ctr
from wisp_cluster.images import built_images
from wisp_cluster.kubectl import Kubectl, condition
from wisp_cluster.paths import http_port

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIENTS = 4
PAUSE_SECONDS = 0.04
"""Of each client between two requests: 100 requests a second in all, at most."""
CODE = """import time

def handler(event, context):
    time.sleep(float(event.get("queryStringParameters", {{}}).get("seconds", 0.01)))
    return {number}
"""


class Load:
    """Requests to one URL until it is ended."""

    def __init__(self, url: str) -> None:
        """Begin."""
        self.host = urlsplit(url).netloc
        self.seconds: list[float] = []
        self.failures: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self._over = threading.Event()
        ways = [(bool(number % 2), "/") for number in range(CLIENTS)] + [(False, "/?seconds=3")]
        self._threads = [threading.Thread(target=self._ask, args=way, daemon=True) for way in ways]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Have no more."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, kept: bool, path: str) -> None:  # noqa: FBT001 - a thread's argument
        connection = http.client.HTTPConnection("127.0.0.1", http_port(), timeout=60)
        while not self._over.wait(PAUSE_SECONDS):
            start = time.monotonic()
            try:
                connection.request("GET", path, headers={"Host": self.host})
                answer = connection.getresponse()
                body = answer.read().decode()
                told = "" if answer.status == 200 else f"{answer.status} {body[:200]}"
            except (OSError, http.client.HTTPException) as error:
                body, told = "", repr(error)
            if path == "/":
                self.seconds.append(time.monotonic() - start)
            if told:
                self.failures[told] += 1
            else:
                self.answers[body] += 1
            if told or not kept:
                connection.close()
        connection.close()


@contextmanager
def load(name: str, url: str) -> Iterator[Load]:
    """Requests while the block runs; then their row of the table, and what the failed ones said."""
    made = Load(url)
    start = time.monotonic()
    try:
        yield made
    finally:
        made.end()
        ordered = sorted(made.seconds)
        p50, p99 = statistics.median(ordered) * 1e3, ordered[int(0.99 * len(ordered))] * 1e3
        failed = made.failures.total()
        row = (name, f"{time.monotonic() - start:.0f}", made.answers.total() + failed, failed)
        print(f"| {' | '.join(map(str, row))} | {p50:.0f} | {p99:.0f} | {ordered[-1] * 1e3:.0f} |", flush=True)
        for told, count in made.failures.most_common(5):
            print(f"  {count} times: {told}", flush=True)


def updates(own: Kubectl, url: str, count: int) -> None:
    """So many updates one after the other, each of which answers before the next begins."""
    with load(f"{count} updates", url) as asking:
        for number in range(1, count + 1):
            deploy(own, number)
            until(lambda wanted=number: str(wanted) in asking.answers, f"update {number} answers")  # type: ignore[misc]


def deploy(own: Kubectl, number: int) -> str:
    """The function with code that answers `number`; returns its URL when it is ready."""
    code = {"files": {"app.py": CODE.format(number=number)}}
    own.apply(function("rolling", code, scale={"min": 1, "max": 3, "perInstance": 10}))
    url: str = own.wait_ready("functions", "rolling")["status"]["url"]
    return url


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait two minutes at most."""
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def upgrade(own: Kubectl, url: str) -> None:
    """Other pods for the operator, and back again; then what else that started anew."""
    before = standing(own)
    with load("2 upgrades of the operator", url):
        for level in ("DEBUG", "INFO"):
            upgrade_chart(own, f"operator.logLevel={level}")
    after = standing(own)
    for kind, names in before.items():
        print(f"| {kind}: {len(names)} | started anew or changed: {len(names ^ after[kind])} |", flush=True)


def upgrade_runtime(own: Kubectl, url: str) -> None:
    """Another image of the runtime and other pods for the operator, and back again, until the function's new revision takes all requests."""
    reference = built_images()["wisp-python"]
    subprocess.run(ctr("images", "tag", "--force", reference, f"{reference}-again"), check=True, capture_output=True)
    tag = reference.rpartition(":")[2]
    with load("2 upgrades of operator and runtime", url):
        for level, wanted in (("DEBUG", f"{tag}-again"), ("INFO", tag)):
            upgrade_chart(own, f"operator.logLevel={level}", f"images.runtimePython.tag={wanted}")
            until(lambda wanted=wanted: serves(own, wanted), f"the runtime's image {wanted} serves")  # type: ignore[misc]


def serves(own: Kubectl, tag: str) -> bool:
    """Whether all requests go to a revision with the runtime's image of this tag, and no pod of another is left."""
    function = own.get("functions", "rolling") or {}
    images = [pod["spec"]["containers"][0]["image"] for pod in own.items("pods", "wisp.dev/function=rolling")]
    ready = condition(function, "Ready").get("status") == "True"
    return ready and bool(images) and all(image.endswith(f":{tag}") for image in images)


def stand(own: Kubectl) -> None:
    """Functions in each runtime, each with a pod that stays."""
    for example in ("hello", "hello-node", "hello-provided"):
        own.apply(EXAMPLES / example)
        own("patch", "function", example, "--type=merge", "-p", '{"spec": {"scale": {"min": 1}}}')
        own.wait_ready("functions", example)
        own.wait_pods(f"wisp.dev/function={example}", lambda count: count == 1, f"{example} has one pod")


def standing(own: Kubectl) -> dict[str, set[str]]:
    """What an upgrade has no reason to touch: pods of functions, revisions and Knative Services with their generations."""
    pods = [pod["metadata"] for pod in own.items("pods", "wisp.dev/function!=rolling")]
    return {
        "pods of functions": {pod["uid"] for pod in pods if "deletionTimestamp" not in pod},
        "revisions": generations(own, "revisions.serving.knative.dev"),
        "Knative Services": generations(own, "services.serving.knative.dev"),
    }


def generations(own: Kubectl, kind: str) -> set[str]:
    """Each object of a kind with its generation."""
    return {f"{item['metadata']['uid']} {item['metadata']['generation']}" for item in own.items(kind)}


def main() -> None:
    """Measure, print a Markdown table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--updates", type=int, default=20)
    options.add_argument("--only", choices=["updates", "upgrade"])
    chosen = options.parse_args()
    with bench_namespace(Kubectl.of_cluster(), f"wisp-bench-{uuid.uuid4().hex[:8]}") as own:
        url = deploy(own, 0)
        print("| while | seconds | requests | failed | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|---|---|")
        if chosen.only != "upgrade":
            updates(own, url, chosen.updates)
        if chosen.only != "updates":
            stand(own)
            upgrade(own, url)
            upgrade_runtime(own, url)


if __name__ == "__main__":
    main()
