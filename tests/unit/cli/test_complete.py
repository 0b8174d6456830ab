"""Names at TAB without a cluster that answers: nothing, without a word, and the keys are the shell's."""

import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from fixtures.cli import Wisp
from fixtures.process import free_port, wait_until
from wisp import complete
from wisp.commands import app

AT_A_TERMINAL = """
import os, sys
from pathlib import Path
from fixtures.cli import Wisp
os.login_tty(os.open(sys.argv[1], os.O_RDWR))
Wisp(Path(sys.argv[2])).complete("invoke", "h")
"""


def kubeconfig(folder: Path, server: str, plugin: str = "exit 1") -> Path:
    """A kubeconfig that leads there, with a credential plugin of this shell code, run in the folder."""
    execute = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", f"cd {folder}; {plugin}"],
    }
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "c", "user": {"exec": execute}}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def mute() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("server", ["https://127.0.0.1:{closed}", "https://none.invalid", ""])
def test_a_cluster_that_is_away_offers_nothing(tmp_path: Path, server: str) -> None:
    """Nobody there, a name of nobody, and no kubeconfig."""
    path = kubeconfig(tmp_path, server.format(closed=free_port())) if server else tmp_path / "absent"
    done = Wisp(path).complete("invoke", "h")
    assert (done.code, done.out.strip(), done.err) == (0, "", "")


def test_what_takes_long_is_left_behind(tmp_path: Path, mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential plugin that goes on until we are answered doesn't keep us."""
    monkeypatch.setattr(complete, "leave_terminal", lambda: None)  # this process goes on
    monkeypatch.setattr(complete, "AWAY_SECONDS", 60.0)
    monkeypatch.setattr(complete, "ANSWER_SECONDS", 0.1)
    waiting = "for _ in $(seq 1200); do [ -e answered ] && exit 1; sleep 0.1; done; touch waited_for; exit 1"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, mute, waiting)))
    assert complete.functions(typer.Context(typer.main.get_command(app)), "h") == []
    (tmp_path / "answered").touch()
    for thread in threading.enumerate():
        if thread.name == "look":
            thread.join(60)
    assert not (tmp_path / "waited_for").exists()


def test_a_plugin_finds_no_terminal(tmp_path: Path, mute: str) -> None:
    """A credential plugin that would ask for a password gets neither the shell's input nor its terminal."""
    look = "{ [ -t 0 ] && echo input; (exec < /dev/tty) && echo terminal; echo ran; } > new 2> /dev/null; mv new seen; exit 1"
    path, seen = kubeconfig(tmp_path, mute, look), tmp_path / "seen"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def ran() -> bool:  # a machine that is busy may take longer than a shell waits: TAB again
        ours, theirs = pty.openpty()
        command = [sys.executable, "-c", AT_A_TERMINAL, os.ttyname(theirs), str(path)]
        try:
            subprocess.run(command, env=environment, check=True, timeout=300)
        finally:
            os.close(ours)
            os.close(theirs)
        return seen.exists()

    wait_until(ran, "the plugin has run")
    assert seen.read_text() == "ran\n"
