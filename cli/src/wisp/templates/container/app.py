"""A function to start from: a server that greets whom a request or an event names."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Greeter(BaseHTTPRequestHandler):
    """One request or event."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Greet the world: a request without a body."""
        self.greet("world")

    def do_POST(self) -> None:
        """Greet by name. An event comes as a POST, its attributes in headers that begin with `ce-`."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.greet(json.loads(body or b"{}").get("name", "world"))

    def greet(self, name: str) -> None:
        """Answer in JSON."""
        print(f"greeting {name}")
        answer = json.dumps({"message": f"Hello, {name}!"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


signal.signal(
    signal.SIGTERM, lambda *_: sys.exit()
)  # comes when requests are done; process 1 would not hear it otherwise
ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Greeter).serve_forever()
