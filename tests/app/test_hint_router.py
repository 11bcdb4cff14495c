"""Where hints go: real pollers in virtual time; what lies between processes is a list."""

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs

from tests.polling import Api, fine, helius, journal, poller_of, solana, tokenkit, virtually, wall
from watcher.app.hint_router import MOST_SENDERS, HintRouter
from watcher.hints.figures import SourceFigures
from watcher.journal import Forbidden
from watcher.limits.windows import Limit
from watcher.model.addresses import SOLANA, STARKNET
from watcher.model.filters import parse
from watcher.model.hints import Hint, encode
from watcher.model.keys import Filter, Scope
from watcher.model.log import Unavailable
from watcher.model.watches import NOT_KNOWN, Watched, WatchIndex
from watcher.providers.settings import Watch
from watcher.providers.tokenkit import TokenKit, TokenKitSettings
from watcher.relay.http.hint_routes import Accepted, NotPolledHere

ALL = Filter()


def felt(n):
    return f"0x{n + 1:064x}"


class Exchange:
    """What is sent, and what comes."""

    def __init__(self, *coming, problem=None):
        self.sent = []
        self._coming, self._problem = coming, problem

    async def send(self, hints):
        if self._problem is not None:
            raise self._problem
        self.sent += hints

    async def receive(self):
        for records in self._coming:
            yield records
        await anyio.sleep_forever()

    async def close(self):
        pass


def index(*providers):
    scopes = [target.scope for one in providers for group in one.groups for target in group.targets]
    return WatchIndex([Watched(scope) for scope in scopes])


class Process:
    """One that polls these; `watches`: what its config watches, else the same."""

    def __init__(self, intake, *providers, exchange=None, polls=True, watches=None):
        self.pollers = [poller_of(one, Api(fine), intake) for one in providers]
        watches = index(*providers) if watches is None else watches
        self.router = HintRouter(lambda: watches, lambda: self.pollers, exchange, anyio.current_time, wall, polls=polls)
        self.router.figures["node"] = SourceFigures(name="node", type="solana")

    def marked(self, source="http"):
        """Accounts whose next read is asked for by the source, by what its score counts."""
        scores = [schedule.hint_scores for poller in self.pollers for schedule in poller.schedules]
        return sum(score[source].hints for score in scores if source in score)

    def counted(self, source):
        return {result: number for result, number in self.router.figures[source].by_result.items() if number}


def act(tmp_path, make, scene):
    async def main():
        async with journal(tmp_path / "balances.db") as intake:
            process = make(intake)
            return await scene(process), process

    return virtually(main)


def refused(error, hint):
    """A scene in which it is posted, and refused so."""

    async def scene(process):
        with pytest.raises(error):
            await process.router.posted([hint], ALL, "")

    return scene


def test_what_is_posted_is_marked_where_it_is_watched_and_the_rest_is_unknown(tmp_path):
    hints = [
        Hint(provider="helius", account=solana(0)),
        Hint(provider="helius", account=solana(1), chain=SOLANA),
        Hint(provider="helius", account=solana(9)),
        Hint(provider="jupiter", account=solana(0)),
        Hint(provider="helius", account=solana(1), chain=STARKNET),
    ]
    with capture_logs() as logs:
        accepted, process = act(
            tmp_path, lambda intake: Process(intake, helius(2)), lambda one: one.router.posted(hints, ALL, "")
        )
    assert accepted == Accepted(2, 3)
    assert process.marked() == 2
    assert process.counted("http") == {"accepted": 2, "unknown": 3}
    assert [(line["event"], line["hints"]) for line in logs if line["event"].startswith("hint")] == [
        ("hint.unknown", 3)
    ]


@pytest.mark.parametrize(
    ("rights", "accepted"),
    [
        ({}, 2),
        ({"account": [solana(0)]}, 1),
        ({"account": [solana(5)]}, 0),
        ({"provider": ["jupiter"]}, 0),
        ({"provider": ["helius"], "account": [solana(0), solana(1)]}, 2),
        ({"chain": [STARKNET]}, 0),
        ({"token": ["other"]}, 0),
    ],
)
def test_a_hint_of_what_its_sender_may_not_see_is_as_unknown_as_one_of_nothing(tmp_path, rights, accepted):
    hints = [Hint(provider="helius", account=solana(n)) for n in range(2)]
    found, process = act(
        tmp_path, lambda intake: Process(intake, helius(3)), lambda one: one.router.posted(hints, parse(rights), "")
    )
    assert found == Accepted(accepted, 2 - accepted)
    assert process.marked() == accepted


def test_rights_to_one_account_do_not_open_the_others_of_a_whole_chain(tmp_path):
    """Ondo may be watched as a whole; whoever may see one holder may send hints of that one."""
    chain = WatchIndex([Watched(Scope("ondo", "eip155:1"))])
    one, other = "0x" + "1a" * 20, "0x" + "2b" * 20
    hints = [Hint(provider="ondo", account=account) for account in (one, other, one.upper().replace("0X", "0x"))]
    exchange = Exchange()
    found, _ = act(
        tmp_path,
        lambda intake: Process(intake, exchange=exchange, polls=False, watches=chain),
        lambda process: process.router.posted(hints, parse({"account": [one]}), ""),
    )
    assert found == Accepted(2, 1)
    assert exchange.sent == [encode(hints[0]), encode(hints[2])]


def test_what_another_process_polls_is_sent_on_and_the_rest_is_not(tmp_path):
    exchange = Exchange()
    hints = [Hint(provider="helius", account=solana(0)), Hint(provider="tokenkit", account=felt(0))]
    both = index(helius(2), tokenkit(2))
    accepted, process = act(
        tmp_path,
        lambda intake: Process(intake, helius(2), exchange=exchange, watches=both),
        lambda one: one.router.posted(hints, ALL, ""),
    )
    assert accepted == Accepted(2, 0)
    assert exchange.sent == [encode(hints[1])]
    assert process.marked() == 1
    assert process.counted("http") == {"accepted": 2}


def test_one_hint_waits_for_none_of_many_posts_with_a_thousand(tmp_path):
    """In turns of the loop: as many beside them as alone."""
    (one, thousand) = ([Hint(provider="helius", account=solana(n % 2)) for n in range(count)] for count in (1, 1000))

    async def turns(process, *beside):
        taken = [0, 0]

        async def count():
            while True:
                taken[0] += 1
                await anyio.lowlevel.checkpoint()

        async def post(hints):
            await process.router.posted(hints, ALL, "")
            taken[1] += 1

        async with anyio.create_task_group() as tasks:
            for hints in beside:
                tasks.start_soon(post, hints)
            tasks.start_soon(count)
            await anyio.lowlevel.checkpoint()
            await process.router.posted(one, ALL, "")
            assert taken[1] == 0
            tasks.cancel_scope.cancel()
        return taken[0]

    async def scene(process):
        return await turns(process), await turns(process, *[thousand] * 8)

    (alone, beside), _ = act(tmp_path, lambda intake: Process(intake, helius(2)), scene)
    assert beside <= alone + 2


@pytest.mark.parametrize("problem", [Unavailable("the broker is away"), Forbidden("no right to write")])
def test_a_hint_that_cannot_be_sent_on_is_refused(tmp_path, problem):
    both = index(helius(2), tokenkit(2))
    act(
        tmp_path,
        lambda intake: Process(intake, helius(2), exchange=Exchange(problem=problem), watches=both),
        refused(Unavailable, Hint(provider="tokenkit", account=felt(0))),
    )


def test_a_relay_alone_without_a_way_to_the_pollers_says_so(tmp_path):
    act(
        tmp_path,
        lambda intake: Process(intake, polls=False, watches=index(helius(2))),
        refused(NotPolledHere, Hint(provider="helius", account=solana(0))),
    )


def test_a_poller_that_is_being_made_is_waited_for_by_the_sender(tmp_path):
    act(
        tmp_path,
        lambda intake: Process(intake, watches=index(helius(2))),
        refused(Unavailable, Hint(provider="helius", account=solana(0))),
    )


def test_a_process_that_knows_no_watches_sends_everything_on(tmp_path):
    exchange = Exchange()
    hints = [Hint(provider="helius", account=solana(0)), Hint(provider="helius", account=solana(1))]
    accepted, _ = act(
        tmp_path,
        lambda intake: Process(intake, exchange=exchange, polls=False, watches=NOT_KNOWN),
        lambda one: one.router.posted(hints, parse({"account": [solana(1)]}), ""),
    )
    assert accepted == Accepted(1, 1)
    assert exchange.sent == [encode(hints[1])]


def test_what_others_send_is_taken_by_whoever_polls_it_and_forged_records_are_counted(tmp_path):
    mine, other = Hint(provider="helius", account=solana(0)), Hint(provider="tokenkit", account=felt(0))
    nobody, stranger = Hint(provider="helius", account=solana(7)), Hint(provider="ondo", account=solana(0))
    forged = [b"", b"\xff", b"[]", b'{"provider":"helius"}', b'{"provider":"helius","account":5}', b"[" * 5000]
    exchange = Exchange([encode(mine), encode(other), *forged], [encode(nobody), encode(stranger)])
    both = index(helius(2), tokenkit(2))

    async def scene(process):
        with anyio.move_on_after(5):
            await process.router.receive()

    with capture_logs() as logs:
        _, process = act(tmp_path, lambda intake: Process(intake, helius(2), exchange=exchange, watches=both), scene)
    assert process.counted("kafka") == {"accepted": 1, "rejected": len(forged), "unknown": 2}
    assert process.marked("kafka") == 1
    assert len([line for line in logs if line["event"] == "hint.rejected"]) == len(forged)


def test_a_record_that_nobody_foresaw_ends_nothing(tmp_path):
    class Stumbling(Exchange):
        stumbles = 2

        async def receive(self):
            if self.stumbles:
                self.stumbles -= 1
                raise ZeroDivisionError
            async for records in super().receive():
                yield records

    async def scene(process):
        with anyio.move_on_after(60):
            await process.router.receive()

    exchange = Stumbling([encode(Hint(provider="helius", account=solana(0)))])
    with capture_logs() as logs:
        _, process = act(tmp_path, lambda intake: Process(intake, helius(2), exchange=exchange), scene)
    assert process.counted("kafka") == {"accepted": 1}
    assert [line["source"] for line in logs if line["event"] == "hints.failed"] == ["kafka", "kafka"]


def test_a_source_covers_what_pollers_watch_that_come_later_too_and_that_is_read_once(tmp_path):
    """What it said before reached nobody."""
    (scope, other) = [target.scope for target in helius(2).groups[0].targets]

    async def scene(process):
        late, process.pollers[:] = list(process.pollers), []
        process.router.covers("node", {scope})
        process.pollers += late
        for poller in late:
            process.router.begun(poller)
        (schedule,) = late[0].schedules
        await anyio.sleep(100)
        picked = []
        for _ in range(8):
            (target,) = schedule.pick(anyio.current_time())
            picked.append((target.scope, schedule.hinted_since(target) is not None))
            schedule.report(target, anyio.current_time(), changed=False)
            await anyio.sleep(1)
        return picked

    picked, _ = act(tmp_path, lambda intake: Process(intake, helius(2)), scene)
    assert (scope, True) in picked
    assert (other, True) not in picked


@pytest.mark.parametrize("way", ["http", "kafka", "node"])
def test_others_have_their_turns_while_one_hint_marks_all_that_is_watched(tmp_path, way):
    account, pairs = felt(0), 3000
    watches = [Watch(account=account, token=felt(n + 1)) for n in range(pairs)]
    settings = TokenKitSettings(type="tokenkit", limits=[Limit(6, 60.0, "balances")], watch=watches)
    hint = Hint(provider="tokenkit", account=account)

    async def scene(process):
        async def look():
            for _ in range(1000):
                seen.add(process.marked(way))
                await anyio.lowlevel.checkpoint()

        seen: set[int] = set()
        with anyio.move_on_after(1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(look)
                if way == "http":
                    await process.router.posted([hint], ALL, "")
                elif way == "kafka":
                    await process.router.receive()
                else:
                    await process.router.delivered("node", [hint])
                tasks.cancel_scope.cancel()
        return seen

    exchange = Exchange([encode(hint)])
    seen, process = act(
        tmp_path, lambda intake: Process(intake, TokenKit("tokenkit", settings, keyed=True), exchange=exchange), scene
    )
    assert process.marked(way) == pairs
    assert any(0 < marked < pairs for marked in seen)


def test_the_accounts_of_a_webhook_are_looked_up_and_the_rest_of_it_is_nothing(tmp_path):
    exchange = Exchange()
    elsewhere = tokenkit(3)
    elsewhere.name = "tokenkit"
    token = f"0x{0x99:064x}"
    delivered = [Hint(account=felt(0)), Hint(account=felt(1)), Hint(account=token), Hint(account=felt(77))]

    async def scene(process):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.router.send_delivered)
            await process.router.delivered("node", delivered)
            await anyio.sleep(1)
            await process.router.delivered("node", delivered[2:])
            tasks.cancel_scope.cancel()

    _, here = act(tmp_path, lambda intake: Process(intake, tokenkit(2)), scene)
    assert here.counted("node") == {"accepted": 2, "unknown": 1}
    assert here.marked("node") == 2
    _, away = act(
        tmp_path, lambda intake: Process(intake, exchange=exchange, polls=False, watches=index(elsewhere)), scene
    )
    assert away.counted("node") == {"accepted": 2, "unknown": 1}
    assert exchange.sent == [encode(Hint(provider="tokenkit", account=felt(n), token=token)) for n in range(2)]


def test_a_webhook_that_names_a_token_is_for_that_balance_alone_and_for_listings(tmp_path):
    exchange = Exchange()
    scopes = [
        Scope("pairs", STARKNET, felt(0), felt(10)),
        Scope("pairs", STARKNET, felt(0), felt(11)),
        Scope("listings", STARKNET, felt(0)),
    ]
    watched = WatchIndex([Watched(scope) for scope in scopes])

    async def scene(process):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.router.send_delivered)
            await process.router.delivered("node", [Hint(account=felt(0)), Hint(account=felt(11))])
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()

    act(tmp_path, lambda intake: Process(intake, exchange=exchange, polls=False, watches=watched), scene)
    assert sorted(exchange.sent) == sorted(
        [
            encode(Hint(provider="pairs", account=felt(0), token=felt(11))),
            encode(Hint(provider="listings", account=felt(0))),
        ]
    )


@pytest.mark.parametrize(
    ("beside", "marked"),
    [
        ([11], 1),  # the others have not moved
        ([11, 12], 2),
        ([], 3),
        ([77], 3),  # nothing that is watched with it: it may be of any
    ],
)
def test_a_webhook_that_names_the_token_of_a_pair_is_no_hint_for_other_pairs_of_its_account(tmp_path, beside, marked):
    pairs = [Watch(account=felt(0), token=felt(n)) for n in (10, 11, 12)]
    settings = TokenKitSettings(type="tokenkit", watch=pairs)

    async def scene(process):
        await process.router.delivered("node", [Hint(account=felt(n)) for n in (0, *beside)])

    _, process = act(tmp_path, lambda intake: Process(intake, TokenKit("tokenkit", settings, keyed=True)), scene)
    assert process.marked("node") == marked


# ── Who posts ────────────────────────────────────────────────────────────────────────────────────────────────────────

HERE, NOWHERE = Hint(provider="helius", account=solana(0)), Hint(provider="helius", account=solana(99))


def shown(process):
    return {name for name in process.router.figures if name.startswith("http")}


def learned(process):
    """Of whom something is remembered in a schedule."""
    return {name for poller in process.pollers for schedule in poller.schedules for name in schedule.hint_scores}


def test_each_token_has_figures_and_a_score_of_its_own_from_its_first_request_on(tmp_path):
    async def scene(process):
        process.router.use_senders({"one", "two", "three"})
        await process.router.posted([HERE, NOWHERE], ALL, "one")
        await process.router.posted([HERE] * 3, ALL, "two")
        await process.router.posted([HERE], ALL, "")
        await process.router.posted([HERE], ALL, "of nobody")

    _, process = act(tmp_path, lambda intake: Process(intake, helius(2)), scene)
    assert shown(process) == {"http", "http:one", "http:two"}
    assert process.counted("http:one") == {"accepted": 1, "unknown": 1}
    assert [process.marked(name) for name in ("http:one", "http:two", "http")] == [1, 3, 2]
    assert {process.router.figures[name].type for name in shown(process)} == {"http"}


def test_above_so_many_tokens_the_others_share_and_a_place_that_is_given_up_is_taken(tmp_path):
    names = [f"bot-{n}" for n in range(3 * MOST_SENDERS)]

    async def scene(process):
        process.router.use_senders(names)
        for name in names:
            await process.router.posted([HERE], ALL, name)
        assert len(shown(process)) == len(learned(process)) == MOST_SENDERS + 1
        assert process.marked("http") == 2 * MOST_SENDERS
        process.router.use_senders(names[10:])
        assert len(shown(process)) == len(learned(process)) == MOST_SENDERS - 9
        for name in reversed(names[10:]):
            await process.router.posted([HERE], ALL, name)
        (schedule,) = process.pollers[0].schedules
        assert len(schedule._hints.scores._sources) == MOST_SENDERS + 1

    _, process = act(tmp_path, lambda intake: Process(intake, helius(2)), scene)
    assert len(shown(process)) == len(learned(process)) == MOST_SENDERS + 1
    assert "http:bot-95" in shown(process)


def test_a_token_that_goes_while_its_hints_are_taken_leaves_nothing(tmp_path):
    """They come in slices; what is left of them says nothing, and the next of its name begins anew."""
    hints = [Hint(provider="helius", account=solana(n % 40)) for n in range(800)]

    async def scene(process):
        process.router.use_senders({"bot", "other"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.router.posted, hints, ALL, "bot")
            while not process.marked("http:bot"):
                await anyio.lowlevel.checkpoint()
            assert process.marked("http:bot") < len(hints)
            process.router.use_senders({"other"})
        assert learned(process) == set()
        assert shown(process) == {"http"}
        process.router.use_senders({"bot"})
        await process.router.posted([HERE], ALL, "bot")

    _, process = act(tmp_path, lambda intake: Process(intake, helius(40)), scene)
    assert process.counted("http:bot") == {"accepted": 1}
    assert process.marked("http:bot") == 1


def test_a_poller_that_begins_with_what_was_learned_of_a_token_that_is_gone_forgets_it(tmp_path):
    async def scene(process):
        process.router.use_senders({"bot", "other"})
        for name in ("bot", "other", ""):
            await process.router.posted([HERE], ALL, name)
        heirs = [*process.pollers]
        process.pollers.clear()  # one that is being made while a reload takes the token away
        process.router.use_senders({"other"})
        process.pollers += heirs
        process.router.begun(heirs[0])

    _, process = act(tmp_path, lambda intake: Process(intake, helius(2)), scene)
    assert learned(process) == {"http:other", "http"}
