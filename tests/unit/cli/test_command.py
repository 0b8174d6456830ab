"""The command itself: it starts at once, its page is current, and what needs no cluster works without one."""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fixtures.cli import HELLO, Wisp, write_project
from wisp import logs, output, project, reference
from wisp.errors import UsageError

ROOT = Path(__file__).parents[3]


def test_the_page_is_current() -> None:
    """docs/cli.md is what the commands say today."""
    assert (ROOT / "docs" / "cli.md").read_text() == reference.document(), "run make manifests"


def test_help_imports_nothing_slow() -> None:
    """`wisp --help` answers at once: it imports neither what talks to the cluster nor what reads types and YAML nor rich."""
    script = "import sys, wisp.commands; print([m for m in sys.argv[1:] if m in sys.modules])"
    slow = ["ssl", "msgspec", "yaml", "rich", "asyncio", "urllib.request", "http.client", "wisp_api"]
    done = subprocess.run([sys.executable, "-c", script, *slow], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_a_wrong_option_is_exit_code_2(wisp: Wisp) -> None:
    """Options and commands that there aren't are the user's mistake."""
    assert wisp("list", "--nonsense").code == 2
    assert wisp("nonsense").code == 2
    assert wisp("events", "test-pattern", "--pattern", "x").code == 2


def test_the_version_is_told(wisp: Wisp) -> None:
    """It is the package's, and needs no command."""
    done = wisp("--version")
    assert (done.code, done.out) == (0, f"wisp {importlib.metadata.version('wisp')}\n")


def test_help_names_the_templates() -> None:
    """The runtimes that `init` takes are those that there are templates for."""
    templates = {path.name for path in (ROOT / "cli/src/wisp/templates").iterdir() if path.is_dir()}
    section = reference.document().partition("## wisp init")[2].partition("## ")[0]
    named = re.search(r"What runs the code: (.*?)\. \[", section)
    assert named
    assert set(re.split(r", | or ", named[1])) == templates


@pytest.mark.parametrize("file", ["Dockerfile", "Containerfile", "app.py", "app.mjs", "app.js", "bootstrap"])
def test_code_without_wisp_yaml_is_told_what_to_write(wisp: Wisp, tmp_path: Path, file: str) -> None:
    """Exit code 2 and a line that, written into wisp.yaml, is a project; `init` is named in any case."""
    folder = tmp_path / "greeter"
    folder.mkdir()
    assert "`wisp init DIR` writes" in wisp("deploy", str(folder)).err
    (folder / file).write_text("")
    with pytest.raises(UsageError) as told:
        project.load(folder)
    (folder / "wisp.yaml").write_text(str(told.value).partition("write into it: ")[2])
    (manifest,) = project.load(folder).manifests
    assert manifest["metadata"]["name"] == "greeter"


def test_completion_is_offered_to_shells(wisp: Wisp) -> None:
    """The shell's completion gets the commands that begin as typed."""
    script = "import os; os.environ.update(_WISP_COMPLETE='complete_bash', COMP_WORDS='wisp de', COMP_CWORD='1'); "
    done = subprocess.run(
        [sys.executable, "-c", script + "from wisp.__main__ import main; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["deploy", "dev", "describe", "delete", "dead"]
    assert wisp("--show-completion").code in {0, 1}


@pytest.mark.parametrize("runtime", ["python3.13", "nodejs24", "provided", "container"])
def test_init_writes_what_deploy_takes(wisp: Wisp, tmp_path: Path, runtime: str) -> None:
    """A fresh folder is a valid project, named after itself; nothing that is there is overwritten."""
    folder = tmp_path / "2 My_Shop"
    done = wisp("init", str(folder), "--runtime", runtime, "-o", "json")
    written = [Path(path) for path in done.json()["files"]]
    assert {folder / "wisp.yaml", folder / "events" / "hello.json"} < {path for path in written if path.is_file()}
    (manifest,) = project.load(folder).manifests
    assert (manifest["metadata"]["name"], manifest["spec"]["runtime"]) == ("my-shop", runtime)
    again = wisp("init", str(folder))
    assert again.code == 2
    assert "is there already" in again.err
    assert (
        "there are container, nodejs24, provided, python3.13"
        in wisp("init", str(tmp_path / "x"), "--runtime", "cobol").err
    )


EVENT = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"new": {"total": 120}}}


@pytest.mark.parametrize(
    ("pattern", "code", "said"),
    [
        ({"data": {"new": {"total": [{"numeric": [">", 100]}]}}}, 0, "matches"),
        ({"data": {"new": {"total": [{"numeric": [">", 200]}]}}}, 1, "does not match"),
        ({"data": {"new": {"total": [{"numeric": [">"]}]}}}, 2, "data.new.total[0].numeric: write comparisons"),
        ([], 2, "a pattern is a mapping"),
    ],
)
def test_a_pattern_is_tried_on_an_event(wisp: Wisp, tmp_path: Path, pattern: object, code: int, said: str) -> None:
    """It matches or not, and a mistake is named by its path; YAML is taken as well as JSON."""
    (tmp_path / "pattern").write_text(yaml.safe_dump(pattern))
    command = ["events", "test-pattern", "--pattern", str(tmp_path / "pattern"), "--event", "-"]
    done = wisp(*command, stdin=json.dumps(EVENT))
    assert done.code == code
    assert said in (done.err if code == 2 else done.out)
    if code < 2:
        assert wisp(*command, "-o", "json", stdin=json.dumps(EVENT)).json() == {"matches": code == 0}


@pytest.mark.parametrize("event", ["{}", "[", "[1]", '{"specversion": "1.0", "id": "", "source": "s", "type": "t"}'])
def test_an_event_that_is_none(wisp: Wisp, tmp_path: Path, event: str) -> None:
    """What is no CloudEvent is said to be none, with exit code 2."""
    (tmp_path / "pattern").write_text("{type: [t]}")
    done = wisp("events", "test-pattern", "--pattern", str(tmp_path / "pattern"), "--event", "-", stdin=event)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err


def test_an_event_that_would_take_too_long_to_judge(wisp: Wisp, tmp_path: Path) -> None:
    """It is said to be too much for this pattern, as the router would say it."""
    (tmp_path / "pattern").write_text(json.dumps({"data": {"a": [{"suffix": f"x{number}"} for number in range(900)]}}))
    event = json.dumps(EVENT | {"data": {"a": ["y"] * 2000}})
    done = wisp("events", "test-pattern", "--pattern", str(tmp_path / "pattern"), "--event", "-", stdin=event)
    assert (done.code, "the filter would take more than 1,000,000 comparisons" in done.err) == (2, True), done.err


def test_a_template_runs_on_this_machine(wisp: Wisp, template: Path) -> None:
    """The sample event of each template greets by name with --local: as a request, as a CloudEvent, and of no named type."""
    command = ["invoke", "greeter", "--local", str(template)]
    sample = ["-f", str(template / "events" / "hello.json")]
    for arguments in (sample, [*sample, "--cloudevent"]):
        done = wisp(*command, *arguments)
        assert (done.code, json.loads(done.out)["message"]) == (0, "Hello, Ada!"), done.err
        assert "greeting Ada" in done.err
    assert json.loads(wisp(*command).out)["message"] == "Hello, world!"


ECHO = """
import base64

def handler(event, context):
    if "specversion" in event:
        return event["data"]
    http = event["requestContext"]["http"]
    return [http["method"], event["rawPath"], event["rawQueryString"], event.get("body"), event["isBase64Encoded"]]
"""
LETTER = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"old": 1}}


def test_a_function_gets_here_what_the_cluster_sends(wisp: Wisp, tmp_path: Path) -> None:
    """The request has the call's method, path and body; an event, such as `wisp dead show` prints, comes as one."""
    command = ["invoke", "hello", "--local", write_project(tmp_path, HELLO, ECHO)]
    assert json.loads(wisp(*command, "--path", "/a?b=c").out) == ["GET", "/a", "b=c", None, False]
    assert json.loads(wisp(*command, "-d", '{"a": 1}').out) == ["POST", "/", "", '{"a": 1}', False]
    assert json.loads(wisp(*command, "-", stdin="no json").out) == ["POST", "/", "", "bm8ganNvbg==", True]
    assert json.loads(wisp(*command, "-", stdin=json.dumps(LETTER)).out) == {"old": 1}


def test_what_does_not_run_on_this_machine_is_told(wisp: Wisp, tmp_path: Path) -> None:
    """A function's error is exit code 1, a function that isn't in wisp.yaml, is an image, or is not waited for 2."""
    folder = write_project(tmp_path, HELLO, "def handler(event, context):\n    return 1 / 0\n")
    failed = wisp("invoke", "hello", "--local", folder)
    assert (failed.code, "ZeroDivisionError" in failed.err) == (1, True)
    assert wisp("invoke", "nobody", "--local", folder).code == 2
    assert "leave out --async" in wisp("invoke", "hello", "--async", "--local", folder).err
    wisp("init", str(tmp_path / "image"), "--runtime", "container")
    assert "or an image" in wisp("invoke", "image", "--local", str(tmp_path / "image")).err


def test_log_lines_are_made_readable() -> None:
    """A JSON line becomes time, level, request and message, its traceback below; another line stays as it is."""
    line = {"time": "2026-01-01T10:00:00.125Z", "level": "INFO", "message": "a\tb", "requestId": "0123456789"}
    assert logs.render(json.dumps(line)) == "10:00:00.125 INFO    01234567 a  b"
    failed = line | {"errorType": "ValueError", "errorMessage": "no", "stackTrace": ["  File x\n    y\n"]}
    assert logs.render(json.dumps(failed)).splitlines()[1:] == ["      File x", "        y", "    ValueError: no"]
    for other in ("plain", "{broken", "[1]", '{"no": "message"}'):
        assert logs.render(other) == other


def test_a_line_of_the_log_cant_look_like_several() -> None:
    """What a caller has brought into a message stands below it, set in."""
    line = {"time": "2026-01-01T10:00:00Z", "level": "INFO", "message": "a\n10:00:01 ERROR b", "requestId": "\n1"}
    assert logs.render(json.dumps(line)).splitlines() == ["10:00:00 INFO     1       a", "    10:00:01 ERROR b"]


def test_nothing_that_others_wrote_commands_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences are shown, not obeyed; JSON stays what it was, and what is piped stays as it is."""
    hostile = "a\tb\r\n\x1b]52;c;cm0=\x07\x9b2J\r\u202eå"
    output.tell(hostile)
    output.show(hostile)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.show(hostile)
    output.show_json({"a": hostile})
    said = capsys.readouterr()
    shown = "a\tb\n\\u001b]52;c;cm0=\\u0007\\u009b2J\\u000d\\u202eå\n"
    assert said.err == shown
    assert said.out.startswith(f"{hostile}\n{shown}")
    assert json.loads(said.out.removeprefix(f"{hostile}\n{shown}")) == {"a": hostile}


def test_ages_of_log_lines() -> None:
    """--since takes a number and a unit, nothing else."""
    assert [logs.seconds(text) for text in ("90s", "10m", "2h", "1d")] == [90, 600, 7200, 86400]
    for wrong in ("", "5", "m", "-5m", "0s", "1w"):
        with pytest.raises(UsageError, match="write a number and a unit"):
            logs.seconds(wrong)


def test_tables_are_as_wide_as_they_need_to_be() -> None:
    """Columns line up, an absent cell is a dash, and no line ends in spaces."""
    assert output.table(["A", "LONG"], [["wide one", None], ["x", 3]]) == "A          LONG\nwide one   -\nx          3"
