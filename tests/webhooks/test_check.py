"""What `check` says of webhooks, before anything is sent."""

import anyio
import pytest

from tests.webhooks.samples import secret, webhook
from watcher.app import settings
from watcher.app.check import webhook_plan
from watcher.app.check.webhook_plan import unreachable, useless_webhook, webhook_line
from watcher.app.webhook_runs import webhooks_of
from watcher.model.keys import Scope
from watcher.model.watches import Watched, WatchIndex
from watcher.runtime.config_section import SettingsError

WATCHES = WatchIndex([Watched(Scope("bank", "eip155:1", "a1"), "Cold", ("vault",))])
NO_ALERT = settings.Settings()
ALERT = settings.parse({"alert": [{"name": "low", "below": "1"}]})
UNREAD = settings.parse({"alert": [{"name": "unread", "unread_for": 60}]})


def test_a_webhook_is_a_line_without_its_path():
    one = webhook(name="ops", url="https://hooks.example/a-path", events=["crossed"], tag=["vault"], kind="total")
    assert webhook_line(one) == "webhook ops: crossed, by tag, kind, to https://hooks.example"


@pytest.mark.parametrize(
    ("table", "config", "says"),
    [
        ({}, NO_ALERT, []),
        ({"tag": "vault"}, NO_ALERT, []),
        ({"tag": "valt"}, NO_ALERT, ["no watch matches its filter"]),
        ({"provider": "other"}, NO_ALERT, ["no watch matches its filter"]),
        ({"events": ["crossed"]}, NO_ALERT, ["no [[alert]] makes any"]),
        ({"events": ["crossed"]}, UNREAD, ["no [[alert]] makes any"]),
        ({"events": ["crossed"]}, ALERT, []),
    ],
)
def test_what_is_never_sent_is_a_warning(table, config, says):
    found = list(useless_webhook(webhook(**table), WATCHES, config))
    assert [one.severity for one in found] == ["warning"] * len(says)
    assert all(part in one.what for part, one in zip(says, found, strict=True))


def test_names_that_cannot_be_looked_up_or_connected_to_are_warnings(monkeypatch):
    def look_up(host, _port):
        if host == "gone.example":
            raise OSError("no such name")
        return {"inside.example": ["10.0.0.1"], "cloud.example": ["169.254.169.254"]}.get(host, ["1.1.1.1"])

    monkeypatch.setattr(webhook_plan, "look_up", look_up)
    hosts = ("fine.example", "gone.example", "inside.example", "cloud.example")
    hooks = [webhook(url=f"https://{host}/") for host in hosts] + [
        webhook(url="http://fine.example/x", name="plain", allow_private=True)
    ]
    found = {one.where: one.line for one in anyio.run(unreachable, hooks)}
    assert found.keys() == {"webhook.gone.example", "webhook.inside.example", "webhook.cloud.example", "webhook.plain"}
    assert "cannot be resolved" in found["webhook.gone.example"]
    assert "allow_private = true" in found["webhook.inside.example"]
    assert "metadata" in found["webhook.cloud.example"]
    assert found["webhook.plain"].endswith("write https://")


def test_every_secret_that_is_missing_is_said_at_once():
    hooks = [{"url": f"https://{name}.example/", "secret_env": f"SECRET_{name.upper()}"} for name in "abc"]
    config = settings.parse({"webhook": hooks})
    with pytest.raises(SettingsError) as caught:
        webhooks_of(config, {"SECRET_B": secret()}, polls=True)
    assert [one.where for one in caught.value.errors] == ["webhook.a.example", "webhook.c.example"]
