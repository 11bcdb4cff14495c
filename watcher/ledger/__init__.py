from watcher.ledger.evaluation import COLLAPSE_FROM, Verdict
from watcher.ledger.ledger import Ledger

__all__ = ["COLLAPSE_FROM", "Ledger", "Verdict"]
