# ruff: noqa: INP001 - no module: a template reads it
"""`helm test wisp`: ingest, router and the event log's server answer from inside the cluster.

Arguments: seconds to wait at most, then URLs. Prints a line for each; ends with 1 if one does not answer.
"""

import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


def problem(url: str) -> str:
    """What is wrong with an http or nats URL, empty when it answers."""
    address = urllib.parse.urlsplit(url)
    try:
        if address.scheme in ("http", "https"):
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - URLs come from the chart
                answer.read()
        else:
            socket.create_connection((address.hostname, address.port or 4222), timeout=5).close()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read(500).decode(errors='replace').strip()}"
    except OSError as error:
        return str(error)
    return ""


deadline = time.monotonic() + float(sys.argv[1])
failed = False
for url in sys.argv[2:]:
    while (wrong := problem(url)) and time.monotonic() < deadline:
        time.sleep(1)
    print(f"{'FAIL' if wrong else 'ok  '} {url} {wrong}")  # noqa: T201
    failed = failed or bool(wrong)
sys.exit(failed)
