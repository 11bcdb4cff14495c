"""A receiver of webhooks that needs nothing but Python: it verifies, drops repeats, and prints each event as a line of JSON.

WEBHOOK_SECRET holds what signs (whsec_…), PORT where it listens. Behind a proxy that speaks TLS it may face the internet.
"""

import base64
import hashlib
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE = 300
"""Seconds that a timestamp may be off: what is older may be a recording."""
MOST_BYTES = 1_000_000

KEYS = [base64.b64decode(secret.removeprefix("whsec_")) for secret in os.environ["WEBHOOK_SECRET"].split()]
seen: set[str] = set()
"""Ids of events that were taken. Keep yours in the database, in the transaction that does the work."""


def verified(message_id: str, timestamp: str, signatures: str, body: bytes) -> bool:
    """Whether the sender knows one of our secrets, and sent this lately."""
    if not (timestamp.isascii() and timestamp.isdigit()) or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    right = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in KEYS]
    given = [text.partition(",")[2] for text in signatures.split() if text.startswith("v1,")]
    return any(hmac.compare_digest(ours.encode(), theirs.encode()) for ours in right for theirs in given)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        if not 0 <= length <= MOST_BYTES:
            return self.answer(413)
        body = self.rfile.read(length)
        head = [self.headers.get(name, "") for name in ("webhook-id", "webhook-timestamp", "webhook-signature")]
        if not verified(*head, body):  # the bytes as they came: parsed and written anew they would be others
            return self.answer(401)
        if head[0] not in seen:
            print(json.dumps({"id": head[0], **json.loads(body)}), flush=True)  # here the work is done
            seen.add(head[0])
        return self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Receiver).serve_forever()
