"""What tests of webhooks share: secrets, a webhook of a table, events as they stand in a log."""

import base64
import hashlib
import json

from watcher.model.events import event_id
from watcher.model.keys import Key
from watcher.model.log import Published
from watcher.model.times import format_rfc3339
from watcher.testing.journal_samples import BEGAN
from watcher.webhooks.settings import load, parse

EPOCH = "0123456789abcdef"


def secret(name="one"):
    """A fresh one for each name."""
    return f"whsec_{base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()}"


def webhook(**table):
    """As of a config that has this table; its secrets stand in the environment."""
    secrets = table.pop("secrets", secret())
    table = {"url": "https://receiver.example/hook", "secret_env": "WEBHOOK_SECRET", **table}
    return load(parse([table])[0], {"WEBHOOK_SECRET": secrets, "WEBHOOK_URL": "https://other.example/hook"})


def key(number=0, kind="total", provider="bank"):
    return Key(provider, "eip155:1", f"a{number}", "native", kind)


def event(position, *, type="changed", partition=0, epoch=EPOCH, of=None):  # noqa: A002 (its field's name)
    """The one at that position; of every third position another account."""
    of = key(position % 3) if of is None else of
    observed_at = BEGAN + position * 1_000_000
    fields = {"provider": of.provider, "chain": of.chain, "account": of.account, "token": of.token, "kind": of.kind}
    identity = event_id(epoch, of, position) + ("" if type == "changed" else "-x")
    data = {"id": identity, **fields, "version": position, "amount": "1", "observed_at": format_rfc3339(observed_at)}
    return Published(of, position, json.dumps(data).encode(), partition, position, observed_at, type)
