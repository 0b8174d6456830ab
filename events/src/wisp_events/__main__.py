"""`python -m wisp_events router|ingest|reader|store|fetch|build`: one image, one process a part. Only the chosen part is imported."""

import importlib
import sys

from wisp_events.process import run

PARTS = {
    "router": "wisp_events.router.main",
    "ingest": "wisp_events.ingest.main",
    "reader": "wisp_events.sources.main",
    "store": "wisp_events.code.store_main",
    "fetch": "wisp_events.code.fetch",
    "build": "wisp_events.code.build",
}


def main() -> None:
    """Run the part that the first argument names: its module's coroutine function `main(stop)`."""
    part = sys.argv[1] if sys.argv[1:] else ""
    if part not in PARTS:
        raise SystemExit(f"usage: python -m wisp_events {'|'.join(PARTS)}")
    run(importlib.import_module(PARTS[part]).main)


main()
