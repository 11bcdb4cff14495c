"""A hint as others may send it: what `watcher.model.hints.parse` takes, as a type."""

import msgspec


class Hint(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A wish that the balances of an account are read soon. It brings the next read forward, and is believed in nothing."""

    provider: str
    account: str
    chain: str | None = None
    token: str | None = None


class Hints(msgspec.Struct):
    """What `POST /v1/hints` takes."""

    hints: list[Hint]
