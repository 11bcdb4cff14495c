"""What every journal must do with hints, if it has a way for them: a part of the suite of journals."""

import anyio

from watcher.journal import HintExchange, Journal
from watcher.model.hints import Hint, encode
from watcher.testing.journal_samples import PATIENCE

EARLIER, HINT = (encode(Hint(provider="bank", account=account)) for account in ("earlier", "account"))


class HintConformance:
    """Passes where a journal has no way at all."""

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
