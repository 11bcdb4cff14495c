from watcher.ledger.evaluation import FEW, Verdict
from watcher.ledger.ledger import Ledger

__all__ = ["FEW", "Ledger", "Verdict"]
