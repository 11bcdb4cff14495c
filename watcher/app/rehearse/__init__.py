"""`watcher rehearse`: what a config would do, tried in virtual time over what has happened."""
