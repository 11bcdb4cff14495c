"""The root: what it makes of the config, before anything runs."""

import msgspec

from tests.app.test_settings import HELIUS
from watcher.app import settings
from watcher.app.daemon import Daemon

NEW = "canary-new-key"


def test_keys_that_are_read_again_while_the_journal_is_opened_are_those_that_the_pollers_start_with(tmp_path):
    key = tmp_path / "helius.key"
    key.write_text("canary-old-key")
    table = {name: value for name, value in HELIUS.items() if name != "api_key_env"} | {"api_key_file": str(key)}
    config = {"journal": f"sqlite:///{tmp_path / 'x.db'}", "providers": {"helius": table}}
    daemon = Daemon(settings.parse(config), {})

    key.write_text(NEW)
    daemon.reload_keys()  # there is no poller yet
    assert NEW in str(msgspec.to_builtins(daemon.sources[0].credentials()))

    key.unlink()
    daemon.reload_keys()
    assert NEW in str(msgspec.to_builtins(daemon.sources[0].credentials()))
