from watcher.ledger.evaluation import Verdict
from watcher.ledger.ledger import Ledger

__all__ = ["Ledger", "Verdict"]
