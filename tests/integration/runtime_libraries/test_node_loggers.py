"""The loggers that people use in Node.js functions, unchanged from npm: their lines are log lines here."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import TYPE_CHECKING

from fixtures.installed import cached
from fixtures.node import worker_command
from unit.runtime.conftest import serve, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unit.runtime.conftest import FunctionProcess

__all__ = ["serve", "start"]

PACKAGES = {"@aws-lambda-powertools/logger": "2.36.0", "pino": "10.4.0"}
APP = """
import { Logger } from '@aws-lambda-powertools/logger';
import pino from 'pino';
import { execFileSync } from 'node:child_process';

const logger = new Logger({ serviceName: 'orders' });
const log = pino();

export const handler = async (event, context) => {
  logger.addContext(context);
  logger.appendKeys({ order: event.order });
  logger.info('by powertools', { amount: 1.5 });
  logger.error('failed', new TypeError('no'));
  log.warn({ order: event.order }, 'by pino');
  console.log(JSON.stringify({ message: 'printed', n: 1 }, null, 2));
  process.stdout.write('{"message":"written","big":12345678901234567890}\\n');
  execFileSync('echo', ['{"message": "by a child"}'], { stdio: 'inherit' });
  console.log('{almost: JSON}');
  return context.awsRequestId;
};
"""


def packages() -> Path:
    """A folder node_modules with them, fetched from npm at first use."""
    name = "-".join(f"{package.rpartition('/')[2]}-{version}" for package, version in PACKAGES.items())
    return cached(name, _install_packages) / "node_modules"


def _install_packages(folder: Path) -> None:
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": PACKAGES}))
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]


def test_lines_of_structured_loggers(serve: Callable[..., FunctionProcess]) -> None:
    """Each keeps its fields and carries the request; what is no JSON object is wrapped."""
    env = {"WISP_WORKER": shlex.join(worker_command()), "NODE_PATH": str(packages())}
    function = serve({"app.mjs": APP}, **env)
    request_id = function.invoke({"order": 7}).json
    function.log(lambda line: line.get("type") == "platform.report" and line["requestId"] == request_id)
    lines = [line for line in function.lines if line.get("requestId") == request_id]
    said = {line.get("message") or line["msg"]: line for line in lines}
    ours = said["by powertools"]
    assert (ours["level"], ours["service"], ours["order"], ours["amount"]) == ("INFO", "orders", 7, 1.5)
    assert ours["function_request_id"] == request_id
    assert (said["failed"]["level"], said["failed"]["error"]["name"]) == ("ERROR", "TypeError")
    assert (said["by pino"]["level"], said["by pino"]["order"]) == (40, 7)
    assert (said["printed"]["n"], said["printed"]["level"]) == (1, "INFO")
    assert said["written"]["big"] == 12345678901234567890
    assert {"by a child", "{almost: JSON}"} <= said.keys()
