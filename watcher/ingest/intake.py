"""All partitions of a journal behind one door: what the pollers hand their answers to."""

from collections.abc import Sequence

import anyio.lowlevel
import msgspec

from watcher.ingest.committer import Committer
from watcher.ingest.partitions import partition_of, spread
from watcher.ingest.splitting import Splitter
from watcher.ledger import COLLAPSE_FROM, Verdict
from watcher.model.bulk_listing import PAGE_ROWS, BulkListing
from watcher.model.keys import Scope
from watcher.model.readings import Answer, Reading
from watcher.runtime.slicing import run_in_slices


class Intake:
    """Splits answers by partition. An account lives in one partition, so most answers have one part."""

    def __init__(self, committers: Sequence[Committer]) -> None:
        """`committers[p]` is partition p's."""
        self.committers = committers
        self._splitter = Splitter([committer.ledger for committer in committers])

    async def accept(self, answer: Answer) -> Verdict:
        """What the answer meant, over all partitions. Waits while one of them is down or full."""
        if len(self.committers) == 1:
            return await self.committers[0].accept(answer)
        columns = answer.readings if isinstance(answer.readings, BulkListing) else None
        parts = await (self._spread(answer.readings) if columns is None else self._split(columns))
        spoken_for = self._spoken_for(answer.listing)
        for partition in spoken_for:
            parts.setdefault(partition, [])
        if answer.listing is not None and len(spoken_for) > 1:
            answer = msgspec.structs.replace(
                answer, collapsed_from=await self._lacking(answer.listing, len(answer.readings))
            )
        told = [
            await self.committers[partition].accept(
                msgspec.structs.replace(answer, readings=readings, max_known=self._most(answer, partition))
            )
            for partition, readings in sorted(parts.items())
        ]
        return merged(told)

    def _most(self, answer: Answer, partition: int) -> int | None:
        """Balances of the provider that the partition may know of, since the others know of the rest."""
        if answer.max_known is None:
            return None
        return answer.max_known - sum(
            committer.ledger.known(answer.provider) for committer in self.committers if committer.partition != partition
        )

    async def _lacking(self, scope: Scope, rows: int) -> int:
        """How many balances were known to be there, where a listing of so many rows names none, or of four and more fewer
        than half; else 0. Asked of the whole, for a part cannot tell. Rows of balances that were not known count.
        """
        ledgers = [committer.ledger for committer in self.committers]
        if 2 * rows >= sum(map(len, ledgers)):
            return 0
        known = sum([await run_in_slices(ledger.count_above_zero(scope)) for ledger in ledgers])
        return known if not rows or (known >= COLLAPSE_FROM and 2 * rows < known) else 0

    async def repeat(self, answer: Answer) -> Verdict | None:
        """What a listing means that repeats the one before. None: not known to, so `accept` it whole."""
        told = []
        for partition in self._spoken_for(answer.listing):
            verdict = await self.committers[partition].repeat(answer)
            if verdict is None:
                return None
            told.append(verdict)
        return merged(told)

    async def _spread(self, readings: Sequence[Reading]) -> dict[int, Sequence[Reading]]:
        parts: dict[int, list[Reading]] = {}
        for start in range(0, len(readings), PAGE_ROWS):
            for partition, part in spread(readings[start : start + PAGE_ROWS], len(self.committers)).items():
                parts.setdefault(partition, []).extend(part)
            await anyio.lowlevel.checkpoint()
        return {**parts}

    async def _split(self, columns: BulkListing) -> dict[int, Sequence[Reading]]:
        """All is compared before any partition is told of anything, for one row that is wrong spoils the answer."""
        parts = await run_in_slices(self._splitter.split(columns))
        for committer, part in zip(self.committers, parts, strict=True):
            await run_in_slices(committer.ledger.compare(part))
        return {partition: part for partition, part in enumerate(parts) if len(part)}

    def _spoken_for(self, listing: Scope | None) -> Sequence[int]:
        """Partitions that must learn of a listing although it names none of their keys: absence is told there."""
        if listing is None:
            return ()
        if listing.chain is None or listing.account is None:
            return range(len(self.committers))
        home = f"{listing.provider}/{listing.chain}/{listing.account}"
        return (partition_of(home, len(self.committers)),)

    def note(self, key: str, data: bytes) -> None:
        """A small record for partition 0's next commit."""
        self.committers[0].note(key, data)

    async def save(self, key: str, data: bytes) -> None:
        """`note`, and return once it is committed."""
        await self.committers[0].save(key, data)

    @property
    def notes(self) -> dict[str, bytes]:
        """The small records as partition 0 restored them."""
        return self.committers[0].notes

    async def ready(self) -> None:
        """Return once every partition is open."""
        for committer in self.committers:
            await committer.ready.wait()

    async def flush(self) -> None:
        """Return once everything accepted and noted before is committed, in every partition."""
        for committer in self.committers:
            await committer.flush()


def merged(told: Sequence[Verdict]) -> Verdict:
    """One verdict that says what all of them say."""
    return Verdict(
        changed=set().union(*(one.changed for one in told)),
        candidates=set().union(*(one.candidates for one in told)),
        stale=set().union(*(one.stale for one in told)),
        went_back=set().union(*(one.went_back for one in told)),
        accepted=sum(one.accepted for one in told),
        baselines=sum(one.baselines for one in told),
        refused=sum(one.refused for one in told),
    )
