"""Signatures after Standard Webhooks 1.0: symmetric, version `v1`. Pure."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a key."""


def key_of(secret: str) -> bytes:
    """The key that a secret stands for. Raises ValueError, in words that go behind "…, which" and tell nothing of it."""
    if not secret.startswith(PREFIX):
        raise ValueError(
            f"does not begin with {PREFIX}: make one with `echo {PREFIX}$(head -c 32 /dev/urandom | base64)`"
        )
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"has no base64 behind {PREFIX}: copy it anew, whole and with each = at its end") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(f"stands for {len(key)} bytes: a key has {SHORTEST} to {LONGEST}")
    return key


def signatures(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """What stands in `webhook-signature`: one for each key, while secrets are rotated several. `timestamp`: unix seconds."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}" for key in keys)
