"""What is pushed, when and to whom: every move once and on time, but for the faults that were asked for."""

import math
from collections import Counter

import msgspec
import pytest

from tests.sandbox.push_scene import CONFIRMED, DELAY, Scene, account
from tests.sandbox.test_apis import START, world
from watcher.model.addresses import SOLANA
from watcher.sandbox.push_board import AGAIN, LATE
from watcher.sandbox.push_session import MOST_FRAMES

SECONDS = 120.0


def everything(scene, level="processed"):
    """Subscribes to all that one channel tells."""
    if scene.channel == "solana":
        scene.call("logsSubscribe", ["all", {"commitment": level}])
    elif scene.channel == "starknet":
        scene.call("starknet_subscribeEvents")
    else:
        scene.call("eth_subscribe", ["logs", {}])


def lived(channel="solana", step=0.05, **settings):
    """Two minutes of a channel: the scene, and each frame with the time at which it came."""
    scene = Scene(channel, rate=20.0, **settings)
    everything(scene)
    frames = []
    while scene.now < START + SECONDS:
        frames += [(scene.now, frame) for frame in scene.wait(step)]
    return scene, frames


def pushed(scene):
    return scene.world.report(scene.now)["push"]["pushed"]


def moves(scene, provider=None, until=math.inf):
    """Moves of its chain, up to so long ago that they were told."""
    chains = {"solana": "solana:", "ethereum": "eip155:1", "bsc": "eip155:56", "starknet": "starknet:"}
    return [
        (balance.key, move.time)
        for balance in scene.world.truth.balances.values()
        if balance.key.chain.startswith(chains[scene.channel])
        for move in balance.moves[1:]
        if move.time <= until
    ]


@pytest.mark.parametrize("channel", ["solana", "ethereum", "starknet"])
def test_without_faults_every_move_is_pushed_once_and_on_time(channel):
    scene, frames = lived(channel)
    told = moves(scene, until=scene.now - DELAY)
    assert len(frames) == len(told) > 50
    waits = [each["time"] - each["moved"] for each in pushed(scene)]
    assert max(waits) <= DELAY + 1e-6
    assert Counter(each["what"] for each in pushed(scene)) == {"told": len(told)}


def test_the_loop_is_told_when_to_come_back_and_needs_no_other_time():
    """Woken at `next_at` alone, a board pushes all that one pushes that is asked all the time."""
    often, _ = lived(step=0.01)
    scene = Scene("solana", rate=20.0)
    everything(scene)
    while scene.world.pushes.next_at <= START + SECONDS:
        before = scene.now
        scene.wait(scene.world.pushes.next_at - scene.now)
        assert scene.now >= before
    assert len(pushed(scene)) > 100
    assert [each["key"] for each in pushed(scene)] == [each["key"] for each in pushed(often)][: len(pushed(scene))]


def test_nothing_is_due_while_nobody_listens_and_nothing_of_the_past_comes():
    here = world(rate=20.0)
    assert here.pushes.next_at == math.inf
    here.truth.advance(START + 60.0)
    session = here.pushes.connect("solana", START + 100.0)
    session.received(b'{"jsonrpc":"2.0","id":1,"method":"logsSubscribe","params":["all",{"commitment":"processed"}]}')
    session.outgoing()
    here.pushes.advance(START + 100.4)
    assert session.outgoing() == []
    here.pushes.advance(START + 110.0)
    assert session.outgoing()
    here.pushes.leave(session)
    here.pushes.advance(START + 140.0)  # what was on its way had to be final
    assert (session.outgoing(), here.pushes.next_at) == ([], math.inf)


def test_a_move_that_somebody_sets_is_told_and_the_loop_is_woken_for_it():
    scene = Scene("solana")
    woken = []
    scene.world.pushes.earlier = lambda: woken.append(scene.world.pushes.next_at)
    balance = scene.of("helius")[0]
    scene.call("accountSubscribe", account(balance.key.account))
    assert scene.world.pushes.next_at == math.inf
    scene.put(balance, balance.amount + 1)
    assert woken[-1] == START + DELAY
    assert len(scene.wait(CONFIRMED)) == 1


@pytest.mark.parametrize("delay", [0.0, 3.0])
def test_the_delay_is_the_one_asked_for(delay):
    scene, _ = lived("starknet", faults=f"push_delay={delay}")
    waits = [each["time"] - each["moved"] for each in pushed(scene)]
    assert waits == pytest.approx([delay] * len(waits))


def test_a_late_one_comes_later():
    scene, _ = lived(faults="push_late=0.3")
    late = [each["time"] - each["moved"] - DELAY for each in pushed(scene) if each["what"] == "late"]
    assert len(late) > 50
    assert LATE[0] <= min(late) + 1e-6
    assert max(late) <= LATE[1] + 1e-6


def test_a_repeated_one_comes_twice():
    scene, frames = lived("starknet", faults="push_repeated=1")
    counts = Counter(frame["params"]["result"]["transaction_hash"] for now, frame in frames)
    early = [key for key, time in moves(scene, until=scene.now - DELAY - AGAIN[1])]
    assert Counter(counts.values())[2] >= len(early) > 30
    assert max(counts.values()) == 2


def test_a_lost_one_never_comes():
    scene, frames = lived(faults="push_lost=1")
    assert frames == []
    assert {each["what"] for each in pushed(scene)} == {"lost"}
    assert len(pushed(scene)) > 100


def test_a_cut_ends_the_socket_that_waited_for_it_and_no_other():
    scene = Scene("solana", faults="push_cut=1")
    balance, other = scene.of("helius")[:2]
    bystander = scene.world.pushes.connect("solana", START)
    scene.call("accountSubscribe", account(balance.key.account))
    scene.put(other, other.amount + 1)
    assert (scene.wait(CONFIRMED), scene.session.cut) == ([], False)
    scene.put(balance, balance.amount + 1)
    assert (scene.wait(CONFIRMED), scene.session.cut, bystander.cut) == ([], True, False)


def test_a_forged_one_speaks_of_a_balance_that_has_not_moved():
    scene = Scene("solana", faults="push_forged=1")
    moved = scene.of("helius")[0]
    names = {scene.call("accountSubscribe", account(each.key.account)): each for each in scene.of("helius")}
    everything(scene, "confirmed")
    for _ in range(40):
        scene.put(moved, moved.amount + 1)
        scene.wait(CONFIRMED)
    told = pushed(scene)
    assert Counter(each["what"] for each in told) == {"told": 40, "forged": 40}
    assert {each["key"] for each in told if each["what"] == "told"} == {"/".join(moved.key)}
    assert "/".join(moved.key) not in {each["key"] for each in told if each["what"] == "forged"}
    assert len(names) == len(scene.of("helius"))


def test_the_same_seed_meets_the_same_faults_however_often_it_is_asked():
    faults = "push_late=0.2,push_repeated=0.2,push_lost=0.2,push_forged=0.2"
    once, often = lived(faults=faults, step=5.0)[0], lived(faults=faults)[0]
    found = [
        sorted(
            (each["time"], each["key"], each["what"]) for each in pushed(scene) if each["time"] < 1.8e9 + SECONDS - 10
        )
        for scene in (once, often)
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 200
    assert found[0] != sorted(
        (each["time"], each["key"], each["what"]) for each in pushed(lived(faults=faults, seed=2)[0])
    )


def test_one_probability_moves_no_other_fate():
    some = lived(faults="push_lost=0.2")[0]
    more = lived(faults="push_lost=0.2,push_late=0.5")[0]
    lost = [
        {(each["key"], each["moved"]) for each in pushed(scene) if each["what"] == "lost"} for scene in (some, more)
    ]
    assert len(lost[0] & lost[1]) > 20
    assert not lost[1] - lost[0]


def test_pushes_change_nothing_of_what_happens_and_of_what_is_answered():
    quiet, scene = world(rate=20.0, faults="default"), lived(faults="default")[0]
    quiet.truth.advance(scene.now)
    amounts = [[balance.moves for balance in here.truth.balances.values()] for here in (quiet, scene.world)]
    assert amounts[0] == amounts[1]


def test_a_reader_who_takes_nothing_is_cut_and_costs_no_more_memory():
    scene = Scene("solana")
    everything(scene)
    balance = scene.holding("helius")
    for _ in range(MOST_FRAMES + 1):
        scene.put(balance, balance.amount + 1)
        scene.now += 1.0
        scene.world.pushes.advance(scene.now)
        if scene.session.cut:
            break
    assert len(scene.frames()) == MOST_FRAMES + 1


def test_the_report_tells_who_is_there_and_what_went_over_each_channel():
    scene, frames = lived(faults="push_late=0.1,push_lost=0.1")
    told = scene.world.report(scene.now)["push"]["solana"]
    assert (told["connected"], told["connections"], told["subscriptions"], told["messages"]) == (1, 1, 1, len(frames))
    assert told["moves"] == len(moves(scene))
    assert set(told["faults"]) == {"push_late", "push_lost"}
    assert "pushed" not in scene.world.report(scene.now, history=False)["push"]
    assert msgspec.json.encode(scene.world.report(scene.now))
    assert {balance.key.chain for balance in scene.of("helius")} == {SOLANA}
