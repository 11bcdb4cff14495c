from watcher.ledger.evaluation import Verdict
from watcher.ledger.ledger import Ledger, Taken

__all__ = ["Ledger", "Taken", "Verdict"]
