"""What no journal takes: records that are too large, that no encoding can express, or whose key nobody could read again."""

from collections.abc import Mapping

import msgspec

from watcher.journal.interface import Rejected

MAX_RECORD_BYTES = 250_000
"""Of one record, in any journal. A broker takes 1 MiB by default."""
UNENCODABLE = (msgspec.MsgspecError, UnicodeError, OverflowError)
"""What an encoder raises for a record that it cannot express."""
UNPARSABLE = "a key that cannot be read again: a part of it holds a `/`, or its kind is none of ours"


def refuse_unfit(unfit: Mapping[str, str]) -> None:
    """`unfit`: records that the journal cannot take, each with the reason. Raises Rejected if there are any."""
    if unfit:
        name, reason = next(iter(unfit.items()))
        raise Rejected(f"{len(unfit)} records cannot be committed: {name[:80]!r} is {reason}", unfit)


def too_large(size: int) -> str:
    return f"{size} bytes large, more than {MAX_RECORD_BYTES}"
