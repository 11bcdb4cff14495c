"""What every journal must do beside the log: hints, and what a process may do that writes nothing there. A part of the suite."""

import anyio

from watcher.journal import Batch, HintExchange, Journal
from watcher.model.hints import Hint, encode
from watcher.testing.journal_samples import PATIENCE, baseline, opened, reading

EARLIER, HINT = (encode(Hint(provider="bank", account=account)) for account in ("earlier", "account"))


class AsideConformance:
    """Passes where a journal has no way for it at all."""

    async def test_a_note_is_put_in_the_place_of_the_one_that_was_seen_and_fences_nobody(
        self, journal: Journal, twin: Journal
    ) -> None:
        async with opened(journal) as (writer, _), reading(twin) as reader:
            await writer.commit(Batch([], {"limiter:bank": b"1"}))
            assert not await twin.swap_note("limiter:bank", b"another", b"2")
            assert not await twin.swap_note("limiter:bank", None, b"2")
            done = await twin.swap_note("limiter:bank", b"1", b"2")
            assert await reader.notes() == {"limiter:bank": b"2" if done else b"1"}
            await writer.commit(Batch([baseline("account1", 5)]))

    async def test_a_look_takes_no_writer_for_gone_that_is_there(self, journal: Journal, twin: Journal) -> None:
        async with opened(journal) as (writer, _):
            assert not await twin.released()
            await writer.release()
        async with opened(twin):
            assert not await journal.released()

    async def test_a_hint_reaches_every_process_that_receives_when_it_is_sent(
        self, journal: Journal, twin: Journal
    ) -> None:
        near, far = journal.hint_exchange(), twin.hint_exchange()
        if near is None or far is None:
            assert near is far
            return
        await near.send([EARLIER])
        found: dict[HintExchange, list[bytes]] = {near: [], far: []}

        async def receive(exchange: HintExchange) -> None:
            async for hints in exchange.receive():
                found[exchange] += hints

        sent = 0
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                for exchange in found:
                    tasks.start_soon(receive, exchange)
                while not all(found.values()):  # nobody tells when a receiver has begun
                    await near.send([HINT, HINT])
                    sent += 2
                    await anyio.sleep(0.05)
                tasks.cancel_scope.cancel()
        for exchange, hints in found.items():
            await exchange.close()
            assert set(hints) == {HINT}
            assert len(hints) <= sent
