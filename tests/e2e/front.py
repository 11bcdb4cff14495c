"""A server before the sandbox that hands its answers on, spoilt: `/<way>/<provider>/…` on loopback."""

import base64
import contextlib
import itertools
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

from tests.e2e.harness import get
from watcher.sandbox.world import VALID_KEY

RIGHT = "canary-right-7f3a9c51e0"
"""A key that this server knows, and the sandbox does not."""
WRONG = "canary-wrong-b82d46fa13"
NESTING = b"[" * 10_000_000
PAGE = b"<!DOCTYPE html><html><body><h1>Welcome</h1></body></html>"


def everywhere(change, value):
    """The same JSON with each of its leaves changed."""
    if isinstance(value, dict):
        return {name: everywhere(change, part) for name, part in value.items()}
    if isinstance(value, list):
        return [everywhere(change, part) for part in value]
    return change(value)


def number_for_text(value):
    """One that is not whole, since a whole one would be an amount in base units."""
    return 5.5 if isinstance(value, str) else value


def not_a_number(value):
    numeric = isinstance(value, int | float) or (isinstance(value, str) and value.replace(".", "").isdigit())
    return float("nan") if numeric and not isinstance(value, bool) else value


def leaves(change):
    return lambda body, _: json.dumps(everywhere(change, json.loads(body))).encode()


DISGUISED = itertools.cycle(
    [
        base64.b64encode(b"user:" + RIGHT.encode()).decode(),
        base64.urlsafe_b64encode(base64.b64encode(RIGHT.encode())).decode().rstrip("="),
        quote("".join(f"%{ord(letter):02x}" for letter in RIGHT)),
        "\u200b".join(RIGHT),
        "-".join(RIGHT[i : i + 4] for i in range(0, len(RIGHT), 4)),
        "".join(chr(ord(letter) + 0xFEE0) for letter in RIGHT),
        RIGHT.encode().hex(" "),
    ]
)
"""Our own key, each time in another dress."""


ACCENTS = "caf\xe9 \u20ac \U0001f4a0"


def symbols(text):
    """Every symbol is that text."""

    def renamed(value):
        if isinstance(value, list):
            return [renamed(part) for part in value]
        if not isinstance(value, dict):
            return value
        told = {name: renamed(part) for name, part in value.items()}
        return told | {name: text for name in told if name.lower().endswith("symbol")}

    return lambda body, _: json.dumps(renamed(json.loads(body))).encode()


WAYS = {
    "fine": lambda body, _: body,
    "wall": lambda body, _: body,
    "html": lambda _, __: PAGE,
    "number": leaves(number_for_text),
    "nan": leaves(not_a_number),
    "nesting": lambda _, __: NESTING,
    "echo": lambda _, asked: asked.encode(),
    "disguise": lambda _, __: next(DISGUISED).encode(),
    "named": symbols(f"\x1b[2J\u202e{RIGHT}"),  # it repeats the key and clears the screen
    "accents": symbols(ACCENTS),
}


def quoting(body, text):
    """The provider's own refusal, that repeats what it was asked."""
    error = json.loads(body)
    said = error["error"] if "jsonrpc" in error else error
    said.update({name: text for name in ("message", "detail") if name in said})
    return json.dumps(error).encode()


class Front(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    """More than connections that come at once: one that finds no place is tried again for ten seconds at most."""

    def __init__(self, sandbox):
        super().__init__(("127.0.0.1", 0), Handler)
        self.sandbox = sandbox
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked = Counter()
        """Requests by /way/provider."""
        self.walled = True
        """Whether those who come by `wall` are shown a page with status 403."""

    def handle_error(self, request, client_address):
        """A client that was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        _, way, provider, rest = self.path.split("/", 3)
        self.server.asked[f"/{way}/{provider}"] += 1
        asked = self.rfile.read(int(self.headers.get("content-length", 0)))
        if way == "wall" and self.server.walled:
            self.told(403, PAGE, "text/html")
            return
        headers = {
            name: text.replace(RIGHT, VALID_KEY) for name, text in self.headers.items() if name.lower() != "host"
        }
        headers["Accept-Encoding"] = "identity"
        url = f"{self.server.sandbox.url}/{provider}/{rest.replace(RIGHT, VALID_KEY)}"
        status, body = get(url, method=self.command, body=asked or None, headers=headers)
        if status == 200:
            body = WAYS[way](body, f"cannot serve {self.path} {self.headers}")
        elif way == "echo":
            body = quoting(body, f"refused: {self.path} {self.headers}")
        self.told(status, body, "application/json")

    def told(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def front(sandbox):
    server = Front(sandbox)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def before(tables, server, way):
    """Provider tables that ask this server instead of the sandbox, by `way-provider`."""
    return {f"{way}-{name}": {**table, "base_url": f"{server.url}/{way}/{name}"} for name, table in tables.items()}
