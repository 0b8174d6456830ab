"""Cold starts by kind of code: a function of the runtime from its start until it serves, with the code beside it, in a zip, and with a layer.

The archives hold this Python's own library and packages, of which zip makes a third. Store and MinIO run on this machine, so the
network is free, and the processors are shared with them; what a pod itself costs (scheduling, its container) comes on top of each.
"""

from __future__ import annotations

import io
import statistics
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.code_store import CodeStore, Tenant, code_store, make_zip
from fixtures.minio import minio_server
from fixtures.process import wait_until
from unit.runtime.conftest import FunctionProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.minio import MinioServer

STARTS = 7
MIB = 1 << 20
APP = {"app.py": "def handler(event, context):\n    return event\n"}


def contents() -> Iterator[tuple[str, bytes]]:
    """Files as functions have them: Python sources and shared libraries."""
    for root in (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")):
        for path in sorted(Path(root).rglob("*")):
            if path.suffix in {".py", ".so", ".json", ".txt"} and path.is_file():
                yield f"{Path(root).name}/{path.relative_to(root)}", path.read_bytes()


def files(folder: str, unpacked: int) -> dict[str, str | bytes]:
    """Files below a folder, so many bytes in all."""
    made: dict[str, str | bytes] = {}
    for name, content in contents():
        made[f"{folder}/{name}"] = content[:unpacked]
        unpacked -= len(content)
        if unpacked <= 0:
            return made
    raise SystemExit("this Python has too few files: use one with more packages")


def packed(megabytes: int) -> bytes:
    """A zip with the handler and packages, of this size packed."""
    unpacked = megabytes * MIB
    while len(made := make_zip({**APP, **files("packages", unpacked)})) < megabytes * MIB:
        unpacked += MIB // 2
    return made


def fetched(tenant: Tenant, minio: MinioServer, data: bytes) -> str:
    """Bring an archive into the store; its digest."""
    minio.client().put_object("code", "bench.zip", io.BytesIO(data), len(data))
    result = tenant.fetch({"bucket": "code", "key": "bench.zip", "connection": "my-s3"})
    return str(result["archives"][0]["sha256"])


def start_ms(folder: Path, env: dict[str, str]) -> float:
    """Milliseconds from the start of the process until it serves."""
    begun = time.perf_counter()
    function = FunctionProcess(folder, {"WISP_HANDLER": "app.handler"} | env, ("-m", "wisp_runtime"), ())
    function.ready()
    spent = (time.perf_counter() - begun) * 1000
    function.stop()
    return spent


def show(tenant: Tenant, minio: MinioServer, directory: Path) -> None:
    """Print the table; kinds of code take turns, so that what disturbs one disturbs all."""
    inline, zipped = directory / "inline", directory / "zipped"
    for folder in (inline, zipped, directory / "opt"):
        folder.mkdir()
    (inline / "app.py").write_text(APP["app.py"])
    small, large = packed(5), make_zip(files("python", 100 * MIB))
    code, layer = fetched(tenant, minio, small), fetched(tenant, minio, large)
    kinds = {
        "inline": (inline, {}),
        f"zip, {len(small) / MIB:.1f} MiB packed": (zipped, tenant.code_env(code)),
        f"inline, and a layer of 100 MiB ({len(large) / MIB:.0f} MiB packed)": (
            inline,
            tenant.code_env("", (layer,), directory / "opt"),
        ),
    }
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(STARTS):
        for kind, (folder, env) in kinds.items():
            spent[kind].append(start_ms(folder, env))
    base = statistics.median(spent["inline"])
    for kind, times in spent.items():
        middle = statistics.median(times)
        print(f"{kind:<50}{middle:>8.0f} ms{middle - base:>+8.0f} ms")


def ready(store: CodeStore) -> bool:
    """Whether the store has made its bucket."""
    try:
        return "wisp-code" in {one.name for one in store.minio.client().list_buckets()}
    except OSError:
        return False


def main() -> None:
    """Start MinIO and the store, and show the table."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (
            minio_server(directory / "minio", "http://127.0.0.1:1", "unused") as minio,
            code_store(directory / "store", minio) as store,
        ):
            minio.client().make_bucket("code")
            wait_until(lambda: ready(store), "the store's bucket")
            show(Tenant(directory / "tenant", store, "bench"), minio, directory)


if __name__ == "__main__":
    main()
