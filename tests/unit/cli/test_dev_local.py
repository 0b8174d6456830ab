"""`wisp dev --local`: functions served on this machine, anew at each save."""

import itertools
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from fixtures.cli import HELLO, Wisp, printing, write_project
from fixtures.process import wait_until


def answering(text: str) -> str:
    """Code that answers a text."""
    return f"def handler(event, context):\n    return {text!r}\n"


def answer(told: list[str], name: str = "hello", media_type: str = "application/json") -> str:
    """What the function answers now; empty while nobody does."""
    found = re.search(rf"function/{name} (http://\S+)", "".join(told))
    if found is None:
        return ""
    request = urllib.request.Request(found[1], b'{"name": "Ada"}', {"content-type": media_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as got:
            body: str = got.read().decode()
    except OSError as error:
        return error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
    return body


def test_a_save_is_served(wisp: Wisp, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Code and wisp.yaml are served as last saved; a mistake is told, once and without frames of others' code, and heals; SIGTERM ends it with 0."""
    tries = tmp_path_factory.mktemp("tries") / "tries"
    folder = write_project(tmp_path, HELLO, answering("one"))
    running = wisp.start("dev", folder, "--local", "--port", "0")
    with printing(running) as seen, printing(running, "stderr") as told:
        wait_until(lambda: answer(told) == '"one"', "it serves")
        write_project(tmp_path, HELLO, answering("two"))
        wait_until(lambda: answer(told) == '"two"', "it serves the save")
        write_project(tmp_path, HELLO, f"open({str(tries)!r}, 'a').write('.')\nimport nothing_of_this_name\n")
        wait_until(lambda: "nothing_of_this_name" in answer(told), "it says what is wrong")
        wait_until(lambda: tries.stat().st_size > 3, "it tries again")
        write_project(tmp_path, HELLO.replace("runtime:", "runtme:"), answering("three"))
        wait_until(lambda: "did you mean runtime?" in "".join(told), "it names the mistake")
        env = "    env: [{name: GREETING, value: hi}]\n"
        write_project(
            tmp_path, HELLO + env, "import os\n\ndef handler(event, context):\n    return os.environ['GREETING']\n"
        )
        wait_until(lambda: answer(told) == '"hi"', "it serves what wisp.yaml says now")
        failed = ["No module named" in line for line in seen if "No module named" in line or "Reloading" in line]
        assert (True, True) not in itertools.pairwise(failed)  # told once a save, which may be seen in two steps
        first = next(number for number, line in enumerate(seen) if "No module named" in line)
        trace = itertools.takewhile(lambda line: line.startswith("      "), seen[first + 1 :])
        assert [line.split('"')[1] for line in trace if "File" in line] == [str(tmp_path / "function" / "app.py")]
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0


def test_code_that_fails_at_the_start_is_served_when_it_is_mended(wisp: Wisp, tmp_path: Path) -> None:
    """The command outlives a function that ends, and starts it at the next save."""
    folder = write_project(tmp_path, HELLO, "import nothing_of_this_name\n")
    running = wisp.start("dev", folder, "--local", "--port", "0")
    with printing(running) as seen, printing(running, "stderr") as told:
        wait_until(lambda: "nothing_of_this_name" in "".join(seen), "it says what is wrong")
        write_project(tmp_path, HELLO, answering("mended"))
        wait_until(lambda: answer(told) == '"mended"', "it serves")


def test_the_template_of_a_runtime_is_served(wisp: Wisp, template: Path) -> None:
    """What `init` writes greets by name here, too, whatever type a client gives the body; its line is shown as `wisp logs` shows it."""
    running = wisp.start("dev", str(template), "--local", "--port", "0")
    with printing(running) as seen, printing(running, "stderr") as told:
        wait_until(lambda: "Hello, Ada!" in answer(told, "greeter"), "it serves")
        wait_until(lambda: any(line.endswith("greeting Ada\n") for line in seen), "its line is shown")
        assert "Hello, Ada!" in answer(told, "greeter", "application/x-www-form-urlencoded")  # as curl -d calls it


def test_what_a_function_has_on_the_cluster_holds_here(wisp: Wisp, tmp_path: Path) -> None:
    """Memory, invocations at once and the log's format are those of wisp.yaml."""
    code = """
import os

async def handler(event, context):
    print("a line")
    return [context.memory_limit_in_mb, os.environ.get("WISP_CONCURRENCY"), os.environ.get("WISP_ISOLATION")]
"""
    more = "    memory: 192Mi\n    scale: {perInstance: 3}\n    isolation: shared\n    logFormat: text\n"
    running = wisp.start("dev", write_project(tmp_path, HELLO + more, code), "--local", "--port", "0", "-o", "json")
    with printing(running) as seen, printing(running, "stderr") as told:
        wait_until(lambda: answer(told) == '["192","3","shared"]', "it has what wisp.yaml says")
        wait_until(lambda: any(line.endswith("a line\n") for line in seen), "the line is no JSON")


def test_a_port_that_is_taken_ends_it(wisp: Wisp, tmp_path: Path) -> None:
    """Exit code 2 and what to do, before any URL is printed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = wisp("dev", write_project(tmp_path, HELLO), "--local", "--port", port)
    assert (done.code, "http://" in done.err) == (2, False)
    assert f"port {port} of this machine can't be had" in done.err


@pytest.mark.parametrize("command", [["dev", "--local"], ["invoke", "hello", "--local"]])
def test_a_node_that_is_too_old_ends_it(
    wisp: Wisp, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, with the version that is needed and the one that is there."""
    node = tmp_path / "bin" / "node"
    node.parent.mkdir()
    node.write_text("#!/bin/sh\necho v20.20.2\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{node.parent}:{os.environ['PATH']}")
    folder = str(tmp_path / "hello")
    assert wisp("init", folder, "--runtime", "nodejs24").code == 0
    done = wisp(*command, folder)
    assert (done.code, "asks for Node.js 24 or newer" in done.err, "v20.20.2" in done.err) == (2, True, True)


def test_what_has_no_code_here_is_refused(wisp: Wisp, tmp_path: Path) -> None:
    """An image can't be served by the platform's runtimes: exit code 2."""
    folder = tmp_path / "hello"
    assert wisp("init", str(folder), "--runtime", "container").code == 0
    assert (folder / "Dockerfile").is_file()
    assert yaml.safe_load((folder / "wisp.yaml").read_text())["functions"]["hello"]["runtime"] == "container"
    done = wisp("dev", str(folder), "--local")
    assert (done.code, "code is in a folder" in done.err) == (2, True)
