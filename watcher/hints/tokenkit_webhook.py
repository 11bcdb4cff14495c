"""TokenKit's webhooks as hints. Pure: the signature is verified, repeats are told, and nothing in the body is believed.

The shape of a body is not documented, so that every felt in it is looked up: an account, a token, or neither.
"""

import hashlib
import hmac
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from watcher.hints.figures import SourceFigures
from watcher.model.addresses import AddressError, felt
from watcher.model.hints import Hint
from watcher.redaction.secret import Secret

SIGNATURE = "x-tokenkit-signature"
DELIVERY = "x-tokenkit-delivery"
MOST_HINTS = 1000
"""Of one delivery."""
MOST_FELTS = 4000
"""That are looked at in one body."""
REMEMBERED = 300.0
"""Seconds for which a delivery is known again."""
MOST_REMEMBERED = 10_000
FORGOTTEN = 16
"""That are looked at with each delivery, so that none of them waits for many."""

_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")
_FELT = re.compile(r"(?<![0-9A-Za-z])(?:0[xX][0-9a-fA-F]{1,64}|[1-9][0-9]{59,75})(?![0-9A-Za-z])")
"""In hex, or a decimal number as long as those of addresses are."""


class Delivery(NamedTuple):
    """What one request came to. `status`: of its answer: 200, also for a repeat; 401; 404 where no source is configured."""

    status: int
    source: str | None = None
    """Whose secret has signed it."""
    hints: tuple[Hint, ...] = ()


class TokenkitWebhooks:
    """All sources of type `tokenkit`: each has its secret, and all have one address."""

    def __init__(self, secrets: Mapping[str, Secret], figures: Mapping[str, SourceFigures]) -> None:
        """Both by the source's name."""
        self._seen: dict[tuple[str, bytes], float] = {}
        """When each delivery came, by source and digest of its id; the oldest first."""
        self.use(secrets, figures)

    def use(self, secrets: Mapping[str, Secret], figures: Mapping[str, SourceFigures]) -> None:
        """From now on these. What was delivered is remembered."""
        self._secrets = {name: secret.reveal().encode() for name, secret in secrets.items()}
        self._figures = figures

    def received(self, body: bytes, headers: Mapping[str, str], now: float) -> Delivery:
        """A request. `headers`: by name in lower case. `now`: monotonic seconds. Repeated and forged ones are counted here."""
        if not self._secrets:
            return Delivery(404)
        source = self._signer(body, headers.get(SIGNATURE, ""))
        if source is None:
            for name in self._secrets:  # nobody knows for which of them it was meant
                self._figures[name].count("rejected", now)
            return Delivery(401)
        if self._is_repeat(source, headers.get(DELIVERY, ""), now):
            self._figures[source].count("repeated", now)
            return Delivery(200, source)
        return Delivery(200, source, hints_of(body))

    def _signer(self, body: bytes, signature: str) -> str | None:
        """As long for any signature, whichever secret it fits."""
        found = _SIGNATURE.fullmatch(signature.strip())
        given = bytes.fromhex(found[1]) if found else b""
        signer = None
        for name, secret in self._secrets.items():
            if hmac.compare_digest(hmac.digest(secret, body, hashlib.sha256), given):
                signer = name
        return signer

    def _is_repeat(self, source: str, delivery: str, now: float) -> bool:
        """Only what was signed is remembered, so that a stranger can neither fill the memory nor spoil an id."""
        self._forget(now)
        if not delivery:
            return False
        known = source, hashlib.sha256(delivery.encode("latin-1", "replace")).digest()
        if known in self._seen:
            return True
        self._seen[known] = now
        return False

    def _forget(self, now: float) -> None:
        """What came too long ago, and what there is no room for beside one more."""
        for known, came in list(itertools.islice(self._seen.items(), FORGOTTEN)):
            if came <= now - REMEMBERED or len(self._seen) >= MOST_REMEMBERED:
                del self._seen[known]


def hints_of(body: bytes) -> tuple[Hint, ...]:
    """One for each felt that stands anywhere in it, in order: JSON or not, a key or a value, however deep."""
    accounts = dict.fromkeys(_felts(body.decode("ascii", "replace")))
    return tuple(Hint(account=account) for account in list(accounts)[:MOST_HINTS])


def _felts(text: str) -> Iterator[str]:
    for number, found in enumerate(_FELT.finditer(text)):
        if number >= MOST_FELTS:
            return
        digits = found[0] if found[0][:2] in ("0x", "0X") else f"{int(found[0]):x}"
        try:
            yield felt(f"0x{digits.lower().removeprefix('0x')}")
        except AddressError:
            continue
