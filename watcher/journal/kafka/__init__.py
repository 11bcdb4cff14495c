"""The journal on Kafka: one transactional producer a partition, state and event in one transaction.

`records` and `ownership` decide and never await; `connection` is the only place that makes clients and lets go of
them; `topics` makes and checks what stands in the cluster; `writer`, `reader` and `journal` are the seam.
"""

from watcher.journal.kafka.journal import KafkaJournal
from watcher.journal.kafka.settings import KafkaSettings

__all__ = ["KafkaJournal", "KafkaSettings"]
