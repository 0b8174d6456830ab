"""The examples' own database, made and run by its own script."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from fixtures import postgres as postgres_fixture
from fixtures.examples import EXAMPLES
from fixtures.process import free_port, server


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The example's own database, made and run by its own script; yields the DSN of its user."""
    programs = postgres_fixture.binaries()
    with tempfile.TemporaryDirectory(prefix="wisp-orders-") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        (folder / "data").mkdir()
        scripts = next(iter(yaml.safe_load_all((EXAMPLES / "orders" / "database.yaml").read_text())))["data"]
        for file, text in scripts.items():
            here = text.replace("/etc/orders-db", name).replace("/etc/shop-db", name)
            (folder / file).write_text(
                here.replace("unix_socket_directories=/tmp", f"unix_socket_directories={name}/data")
            )
        (folder / "password").write_text("0123456789abcdef")
        shutil.chown(folder / "data", postgres_fixture.SUPERUSER)
        dsn = f"postgresql://shop:0123456789abcdef@127.0.0.1:{port}/shop"
        env = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGDATA": f"{name}/data/shop",
            "PGPORT": str(port),
            "PGHOST": f"{name}/data",
        }
        monkeypatch.setenv("DSN", dsn)
        start = [
            "setpriv",
            "--reuid",
            postgres_fixture.SUPERUSER,
            "--regid",
            postgres_fixture.SUPERUSER,
            "--init-groups",
        ]

        @contextlib.contextmanager
        def running() -> Iterator[None]:
            with server([*start, "bash", f"{name}/start.sh"], lambda: _answers(dsn), folder / "log", env) as process:
                yield
                process.send_signal(signal.SIGINT)  # as the image's STOPSIGNAL
                process.wait(20)

        with running():
            pass
        with running():  # and finds what it made
            yield dsn


def _answers(dsn: str) -> bool:
    with contextlib.suppress(psycopg2.OperationalError):
        psycopg2.connect(dsn).close()
        return True
    return False


def query(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement as the shop's user; returns its rows."""
    with contextlib.closing(psycopg2.connect(dsn)) as session, session, session.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []
