"""The journal on Kafka: one transactional producer a partition, state and event in one transaction.

`records`, `fencing` and `topic_specs` decide and never await; `cluster` is the only place that makes clients and ends
them; `topic_admin` and `log_marker` make and check what stands in the cluster; `writer`, `reader` and `journal` are the
seam, and `plugin` opens it. `membership` keeps one process in the group of a fleet, with what is called `group_`.
"""

from watcher.journal.kafka.journal import KafkaJournal
from watcher.journal.kafka.settings import KafkaSettings

__all__ = ["KafkaJournal", "KafkaSettings"]
