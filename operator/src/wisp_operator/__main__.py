"""`python -m wisp_operator` runs the operator, `python -m wisp_operator drain` empties the cluster of Subscriptions before an uninstall."""

import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import kopf
import uvloop
from wisp_api.logs import set_up_logging

from wisp_operator import api, config
from wisp_operator.callers import CallerKeys
from wisp_operator.code_store import CodeStore, keep_collecting
from wisp_operator.context import Context
from wisp_operator.drain import drain
from wisp_operator.env_watch import follow_config_maps
from wisp_operator.handlers import function, quota, subscription
from wisp_operator.keys import FunctionKey
from wisp_operator.lease import Lease
from wisp_operator.log_watch import follow
from wisp_operator.process import HEALTH_PORT, serve_health
from wisp_operator.proof import Proofs
from wisp_operator.resync import resync
from wisp_operator.secrets import ensure_secrets, read_store_key
from wisp_operator.token_keys import follow_token_keys
from wisp_operator.watch import follow_made, make_registry
from wisp_operator.webhook import WEBHOOK_PORT, serve_webhook
from wisp_operator.workqueue import WorkQueue

_FUNCTION_WORKERS = 8
_NAMESPACE_WORKERS = 4
_STOP_SECONDS = 10
_NESTED = 30_000
"""The API server takes JSON of 10,000 levels, of any tenant; Python before 3.12 reads no more than its own stack may have, and kopf ends by it."""
_log = logging.getLogger(__name__)


async def operate() -> int:
    """Wait for the Lease, then act until a signal comes (0) or the Lease or a part is lost (1)."""
    settings = config.load(Path(os.environ.get("WISP_CONFIG", config.PATH)))
    os.environ["WISP_NATS_URL"] = settings.nats_url  # where wisp_api.jetstream looks
    kubernetes = await api.connect()
    stop = asyncio.Event()
    _on_signals(stop)
    health = await serve_health(lambda: "", int(os.environ.get("WISP_HEALTH_PORT", HEALTH_PORT)))
    identity = f"{os.environ.get('WISP_POD_NAME', 'wisp-operator')}-{secrets.token_hex(4)}"
    lease = Lease(kubernetes, settings.namespace, identity)
    try:
        webhook = serve_webhook(kubernetes, settings, int(os.environ.get("WISP_WEBHOOK_PORT", WEBHOOK_PORT)))
        await _first_of(stop.wait(), webhook, _lead(kubernetes, settings, lease, stop))
    finally:
        await lease.release()
        await health.cleanup()
        await kubernetes.close()
    return 0


async def _lead(kubernetes: api.Api, settings: config.OperatorConfig, lease: Lease, stop: asyncio.Event) -> None:
    """Act once the Lease is held; every replica answers the webhook, this one or another."""
    await lease.acquire()
    await _first_of(_end_without(lease), _act(kubernetes, settings, stop))


def _on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _end_without(lease: Lease) -> None:
    """End the process when the Lease is lost: another may act already, so not a single request more."""
    await lease.keep()
    os._exit(1)


async def _first_of(*parts: Coroutine[Any, Any, Any]) -> int:
    """Run all until one ends, cancel the others; the one's place. What it raised is raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:  # cancelled itself, it leaves none running
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_STOP_SECONDS)
    ended = next(place for place, task in enumerate(tasks) if task in done)
    tasks[ended].result()
    return ended


async def _act(kubernetes: api.Api, settings: config.OperatorConfig, stop: asyncio.Event) -> None:
    """Everything that only the active operator does, until cancelled."""
    seeds = await ensure_secrets(kubernetes, settings)
    root = await kubernetes.get(api.NAMESPACES, None, "kube-system")
    cluster = root["metadata"]["uid"] if root else ""
    context = Context(
        kubernetes, settings, seeds, cluster, Proofs(settings.s3_servers), CallerKeys(kubernetes, settings)
    )
    if settings.store_url:
        context.code_store = CodeStore(settings.store_url, await read_store_key(kubernetes, settings))
    functions = WorkQueue[FunctionKey](
        "function", lambda key: function.reconcile(context, key), lambda key: key.namespace
    )
    namespaces: WorkQueue[str] = WorkQueue("namespace", lambda key: subscription.reconcile(context, key))
    quotas: WorkQueue[str] = WorkQueue("quota", lambda key: quota.reconcile(context, functions, key))
    context.quotas = await quota.read_quotas(kubernetes)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(functions.run(_FUNCTION_WORKERS))
        tasks.create_task(namespaces.run(_NAMESPACE_WORKERS))
        tasks.create_task(quotas.run(1))
        tasks.create_task(follow(context, namespaces))
        tasks.create_task(follow_token_keys(context))
        tasks.create_task(follow_config_maps(context, functions))
        tasks.create_task(follow_made(kubernetes, functions, namespaces))
        tasks.create_task(resync(context, functions, namespaces, quotas))
        if context.code_store:
            tasks.create_task(keep_collecting(kubernetes, context.code_store, settings.code_retention_seconds))
        registry = make_registry(context, functions, namespaces, quotas)
        watchers = await kopf.spawn_tasks(registry=registry, clusterwide=True, standalone=True)
        _on_signals(stop)  # kopf has taken them for itself
        ended, _ = await asyncio.wait(watchers, return_when=asyncio.FIRST_COMPLETED)
        for watcher in ended:
            watcher.result()
        raise RuntimeError("kopf ended by itself")


async def run(command: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run a command and end the process with its exit code.

    Without the event loop's own clean-up: what matters is closed by then, and cancelled watchers of kopf may hang in it.
    """
    code = 1
    try:
        code = await command()
    except Exception:  # noqa: BLE001 - the end of the process; the log says why
        _log.exception("the operator ends")
    finally:
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    set_up_logging()
    sys.setrecursionlimit(_NESTED)
    uvloop.run(run(drain if sys.argv[1:] == ["drain"] else operate))
