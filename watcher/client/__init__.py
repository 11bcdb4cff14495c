"""For programs that read the events: from the relay with `Stream`, or from Kafka with `codec_of`. What stands here is kept."""

from watcher.client.stream import FullSnapshot, RelayRefused, Stream
from watcher.model.alerts import Crossing
from watcher.model.events import BalanceChanged, BalanceState, Codec, codec_of
from watcher.relay.messages import BalanceRow, Crossed, Update

__all__ = [
    "BalanceChanged",
    "BalanceRow",
    "BalanceState",
    "Codec",
    "Crossed",
    "Crossing",
    "FullSnapshot",
    "RelayRefused",
    "Stream",
    "Update",
    "codec_of",
]
