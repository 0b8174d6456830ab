"""The command `wisp` on the real cluster, as a new user goes about it."""

import json
from pathlib import Path

import pytest
from fixtures.cli import HELLO, Wisp, printing, write_project
from fixtures.functions import asking, call
from fixtures.platform import admitted, person
from fixtures.process import wait_until
from wisp_cluster.kubectl import Kubectl


@pytest.fixture
def wisp(namespace: Kubectl) -> Wisp:
    """The command as an administrator, in the test's own namespace."""
    return Wisp(namespace.kubeconfig, namespace.namespace)


@pytest.mark.parametrize("runtime", ["python3.13", "nodejs24"])
def test_from_nothing_to_an_answer(wisp: Wisp, namespace: Kubectl, tmp_path: Path, runtime: str) -> None:
    """init, deploy, invoke, logs, describe and delete, each as the guide has it; the function is one that only the cluster reaches."""
    folder = str(tmp_path / "greeter")
    assert Wisp(wisp.kubeconfig)("init", folder, "--runtime", runtime).code == 0
    done = wisp("deploy", folder)
    assert done.code == 0, done.err
    assert done.out == f"function/greeter http://greeter.{namespace.namespace}.svc.cluster.local\n"
    sample = f"{folder}/events/hello.json"
    called = wisp("invoke", "greeter", "-f", sample, "--tail")
    assert (called.code, json.loads(called.out)["message"]) == (0, "Hello, Ada!"), called.err
    assert "greeting Ada" in called.err
    answer = wisp("invoke", "greeter", "-f", sample, "--cloudevent", "-o", "json").json()
    assert answer["body"]["message"] == "Hello, Ada!"
    lines = wisp("logs", "greeter", "--request", answer["requestId"], "--since", "10m", "-o", "json").out.splitlines()
    assert {json.loads(line)["requestId"] for line in lines} == {answer["requestId"]}
    told = wisp("describe", "greeter").out
    assert f"{namespace.get('function', 'greeter')['status']['revision']}   True" in told  # type: ignore[index]
    assert wisp("delete", "greeter").code == 0
    assert "no functions" in wisp("list").err


def test_a_roll_out_by_steps_and_the_way_back_fail_no_request(wisp: Wisp, namespace: Kubectl, tmp_path: Path) -> None:
    """While `deploy` brings the next version by steps, and `rollback` the one before, every request is answered by the one or the other."""
    code = "def handler(event, context):\n    return {!r}\n"
    spec = "    visibility: public\n    auth: {type: none}\n    scale: {min: 1}\n"
    steps = "    rollout: {steps: [30, 100], intervalSeconds: 4}\n"
    assert wisp("deploy", write_project(tmp_path, HELLO + spec + steps, code.format("one"))).code == 0
    url = namespace.wait_ready("functions", "hello")["status"]["url"]
    wait_until(lambda: call(url) == (200, '"one"'), "the first answers")

    def only(text: str) -> bool:
        """Whether all requests go to one revision, and it has answered since."""
        status = (namespace.get("function", "hello") or {})["status"]
        before = len(answers)
        wait_until(lambda: len(answers) > before + 1, "requests are answered")
        return len(status["traffic"]) == 1 and answers[-1] == (200, f'"{text}"')

    with asking(url) as answers:
        done = wisp("deploy", write_project(tmp_path, HELLO + spec + steps, code.format("two")))
        assert done.code == 0, done.err
        wait_until(lambda: only("two"), "the second has all requests", 120)
        assert wisp("rollback", "hello").code == 0
        wait_until(lambda: only("one"), "the first has all requests again", 120)
    assert set(answers) == {(200, '"one"'), (200, '"two"')}

    def told() -> str:
        return " ".join(item["message"] for item in namespace.items("events") if item["reason"] == "RollingOut")

    wait_until(lambda: "30 %" in told(), "an Event tells of the first step")


def test_code_that_does_not_start_is_told_with_its_traceback(wisp: Wisp, tmp_path: Path) -> None:
    """The command ends with exit code 1 and the line of the user's code that failed."""
    code = "import json\nimport nothing_of_this_name\n\n\ndef handler(event, context):\n    return 1\n"
    done = wisp("deploy", write_project(tmp_path, HELLO, code))
    assert done.code == 1
    assert "nothing_of_this_name" in done.err
    assert "/var/task/app.py" in done.err


def test_invoke_wakes_a_function_and_a_followed_log_shows_its_new_pod(
    wisp: Wisp, namespace: Kubectl, tmp_path: Path
) -> None:
    """A function without pods answers through the API server, and `logs -f`, begun while there was none, prints its lines."""
    code = "def handler(event, context):\n    print('awake')\n    return 'here'\n"
    assert wisp("deploy", write_project(tmp_path, f"{HELLO}    scale: {{idleSeconds: 6}}\n", code)).code == 0
    namespace.wait_pods("wisp.dev/function=hello", lambda count: count == 0, "hello goes to zero", 240)
    with printing(wisp.start("logs", "hello", "-f")) as seen:
        called = wisp("invoke", "hello")
        assert (called.code, called.out) == (0, '"here"'), called.err
        wait_until(lambda: "awake" in "".join(seen), "the new pod's line is followed")


def test_a_tenant_calls_its_own_function(namespace: Kubectl, tmp_path: Path) -> None:
    """Somebody with the role `edit` in one namespace deploys there and calls; without a pod, what is missing is told, or the ingest wakes one."""
    own = Wisp(person(namespace, tmp_path, "edit"), namespace.namespace)
    text = f"{HELLO}    scale: {{min: 1}}\n"
    deployed = own("deploy", write_project(tmp_path / "project", text))
    assert deployed.code == 0, deployed.err
    called = own("invoke", "hello")
    assert (called.code, called.out) == (0, "1"), called.err
    assert own("logs", "hello").code == 0
    write_project(tmp_path / "project", f"{HELLO}    scale: {{idleSeconds: 6}}\n")
    assert own("deploy", str(tmp_path / "project")).code == 0
    namespace.wait_pods("wisp.dev/function=hello", lambda count: count == 0, "hello goes to zero", 240)
    asleep = own("invoke", "hello")
    assert asleep.code == 1
    assert "no pod of the function runs, and waking it asks for the right" in asleep.err
    with admitted(namespace):
        woken = own("invoke", "hello", "-d", "{}")
    assert (woken.code, woken.out) == (0, "1"), woken.err
    assert Wisp(own.kubeconfig, "default")("list").code == 1
