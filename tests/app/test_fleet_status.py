"""What `watcher fleet` makes of a group and of the heartbeats."""

import anyio
import pytest

from watcher.app import cli, settings
from watcher.app.exit_status import Exit
from watcher.app.fleet_status import fleet_status, leave, lines, show
from watcher.fleet.claims import Assignment, MemberClaim
from watcher.journal.kafka.group_admin import GroupDescription, GroupMember
from watcher.model.events import ProviderHealth
from watcher.model.partitions import partition_of
from watcher.model.times import format_rfc3339

P = 16
NOW = 1_700_000_000_000_000
PROVIDERS = {"jupiter": 1.0, "helius": 10.0}
HOMES = {name: partition_of(name, P) for name in (*PROVIDERS, "ondo")}


def member(name, providers, partitions):
    return GroupMember(
        f"{name}-id",
        "10.0.0.1",
        MemberClaim(1, name, providers, "0" * 16, [], 0),
        Assignment(1, 1, "0" * 16, dict.fromkeys(partitions, False), []),
    )


def group(*members, state="Stable"):
    return GroupDescription(state, "consumer", "balance-watcher", list(members))


def beat(provider, instance, ago):
    return ProviderHealth(
        provider=provider,
        time=format_rfc3339(NOW - round(ago * 1e6)),
        instance=instance,
        watches=1,
        last_success=None,
        stalest_seconds=4.0,
        paused_until=None,
        budget_used=0.5,
        state="waiting",
        reason="no answer yet since the start",
        since=None,
    )


def found(*members, beats=()):
    status = fleet_status("fleet", group(*members), beats, P, NOW)
    return status, {one.provider: one for one in status.providers}


def test_the_owner_of_a_provider_is_who_has_its_partition_and_its_table():
    status, by_name = found(member("one", PROVIDERS, [HOMES["jupiter"]]), member("two", PROVIDERS, [HOMES["helius"]]))
    assert {name: one.owner for name, one in by_name.items()} == {"jupiter": "one", "helius": "two"}
    assert status.unowned == []
    assert {one.member: one.providers for one in status.members} == {"one": ["jupiter"], "two": ["helius"]}


def test_what_the_owner_of_its_partition_does_not_know_nobody_polls():
    status, by_name = found(member("old", PROVIDERS, HOMES.values()), member("new", {**PROVIDERS, "ondo": 1.0}, []))
    assert status.unowned == ["ondo"]
    assert by_name["ondo"].owner is None
    assert "nobody polls ondo" in "\n".join(lines(status))


def test_without_a_member_nobody_polls_what_our_own_config_knows():
    status = fleet_status("fleet", group(state="Empty"), [], P, NOW, configured=PROVIDERS)
    assert status.unowned == sorted(PROVIDERS)
    assert "nobody polls helius, jupiter: no member runs" in "\n".join(lines(status))


def test_what_only_our_own_config_knows_nobody_polls_but_in_a_join_nobody_can_tell():
    one = member("one", {"jupiter": 1.0}, HOMES.values())
    assert fleet_status("fleet", group(one), [], P, NOW, configured=PROVIDERS).unowned == ["helius"]
    joining = group(GroupMember("one-id", "10.0.0.1", None, None), state="PreparingRebalance")
    assert fleet_status("fleet", joining, [], P, NOW, configured=PROVIDERS).unowned == []


def test_a_group_that_others_use_is_told_from_a_fleet():
    others = GroupDescription("Stable", "consumer", "range", [GroupMember("app-1", "10.0.0.1", None, None)])
    with pytest.raises(Exit, match=r"is no fleet.*'range'") as end:
        fleet_status("fleet", others, [], P, NOW)
    assert end.value.status == 2


def test_an_owner_has_a_provider_since_the_first_heartbeat_after_that_of_another_one():
    beats = [beat("jupiter", "one", 90), beat("jupiter", "two", 75), beat("jupiter", "one", 60)]
    beats += [beat("helius", "one", 50), beat("jupiter", "one", 45), beat("jupiter", "one", 30)]
    _, by_name = found(member("one", PROVIDERS, HOMES.values()), beats=beats)
    assert by_name["jupiter"].since == format_rfc3339(NOW - 60_000_000)
    assert by_name["jupiter"].heartbeat_seconds == 30.0
    assert by_name["jupiter"].budget_used == 0.5


def test_the_heartbeats_of_the_owner_before_are_not_those_of_this_one():
    _, by_name = found(member("two", PROVIDERS, HOMES.values()), beats=[beat("jupiter", "one", 3)])
    assert by_name["jupiter"].owner == "two"
    assert by_name["jupiter"].heartbeat_seconds is None
    assert by_name["jupiter"].since is None


def test_in_the_midst_of_a_join_members_have_neither_claim_nor_partitions():
    joining = GroupMember("one-id", "10.0.0.1", None, None)
    status = fleet_status("fleet", group(joining, state="PreparingRebalance"), [], P, NOW)
    assert [(one.member, one.partitions, one.config) for one in status.members] == [("one-id", [], None)]
    assert status.providers == []
    assert "PreparingRebalance" in next(lines(status))


@pytest.mark.parametrize("ask", [lambda config: show(config, {}, json=False), lambda config: leave(config, {}, "one")])
def test_without_a_group_there_is_no_fleet(ask, tmp_path):
    config = settings.parse({"journal": f"sqlite:///{tmp_path / 'x.db'}"})
    with pytest.raises(Exit, match=r"set \[kafka\] group") as end:
        anyio.run(ask, config)
    assert end.value.status == 2


@pytest.mark.parametrize("place", [["fleet", "-c", "x", "leave", "one"], ["fleet", "leave", "one", "-c", "x"]])
def test_the_config_may_be_named_before_or_behind_leave(place):
    assert str(cli.parser().parse_args(place).config) == "x"
