from watcher.providers.registry import BUILT_IN, GROUP, known

__all__ = ["BUILT_IN", "GROUP", "known"]
