from watcher.journal.sqlite.journal import SqliteJournal, path_of

__all__ = ["SqliteJournal", "path_of"]
