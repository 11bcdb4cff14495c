"""What pollers hand their answers to: the committer of the only partition, or all partitions behind the same interface."""

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


def intake_of(committers: Sequence[Committer]) -> "Committer | Intake":
    """`committers[p]` is partition p's. An answer needs no splitting where there is one."""
    return committers[0] if len(committers) == 1 else Intake(committers)


class Intake:
    """Splits answers by partition. An account lives in one partition, so most answers have one part."""

    def __init__(self, committers: Sequence[Committer]) -> None:
        """`committers[p]` is partition p's."""
        self.committers = committers
        self._splitter = Splitter([committer.ledger for committer in committers])

    async def accept(self, answer: Answer) -> Verdict:
        """What the answer meant, over all partitions. Waits while a partition is down or full."""
        bulk = answer.readings if isinstance(answer.readings, BulkListing) else None
        parts = await (self._spread(answer.readings) if bulk is None else self._split(bulk))
        partitions = self._partitions_of(answer.listing)
        for partition in partitions:
            parts.setdefault(partition, [])
        if answer.listing is not None and len(partitions) > 1:
            answer = msgspec.structs.replace(
                answer, collapsed_from=await self._collapsed_from(answer.listing, len(answer.readings))
            )
        verdicts = [
            await self.committers[partition].accept(
                msgspec.structs.replace(answer, readings=readings, max_known=self._max_known_in(partition, answer))
            )
            for partition, readings in sorted(parts.items())
        ]
        return merge_verdicts(verdicts)

    # goes with partition = provider
    def _max_known_in(self, partition: int, answer: Answer) -> int | None:
        """Balances of the provider that the partition may know; the other partitions know the rest."""
        if answer.max_known is None:
            return None
        return answer.max_known - sum(
            committer.ledger.known(answer.provider) for committer in self.committers if committer.partition != partition
        )

    # goes with partition = provider
    async def _collapsed_from(self, scope: Scope, rows: int) -> int:
        """How many balances of a scope were above zero, where a listing of so many rows names none of them, or fewer than
        half of four and more; else 0. Rows of balances that were unknown count. One partition alone cannot answer that.
        """
        ledgers = [committer.ledger for committer in self.committers]
        if 2 * rows >= sum(map(len, ledgers)):
            return 0
        known = sum([await run_in_slices(ledger.count_above_zero(scope)) for ledger in ledgers])
        return known if not rows or (known >= COLLAPSE_FROM and 2 * rows < known) else 0

    async def repeat(self, answer: Answer) -> Verdict | None:
        """The verdict on a listing that repeats the one before. None: nobody knows that it does, so `accept` it whole."""
        verdicts = []
        for partition in self._partitions_of(answer.listing):
            verdict = await self.committers[partition].repeat(answer)
            if verdict is None:
                return None
            verdicts.append(verdict)
        return merge_verdicts(verdicts)

    # goes with partition = provider
    async def _spread(self, readings: Sequence[Reading]) -> dict[int, Sequence[Reading]]:
        parts: dict[int, list[Reading]] = {}
        for start in range(0, len(readings), PAGE_ROWS):
            for partition, part in spread(readings[start : start + PAGE_ROWS], len(self.committers)).items():
                parts.setdefault(partition, []).extend(part)
            await anyio.lowlevel.checkpoint()
        return {**parts}

    # goes with partition = provider
    async def _split(self, bulk: BulkListing) -> dict[int, Sequence[Reading]]:
        """Everything is compared before a partition gets any of it, because one wrong row spoils the whole answer."""
        parts = await run_in_slices(self._splitter.split(bulk))
        for committer, part in zip(self.committers, parts, strict=True):
            await run_in_slices(committer.ledger.compare(part))
        return {partition: part for partition, part in enumerate(parts) if len(part)}

    # goes with partition = provider
    def _partitions_of(self, listing: Scope | None) -> Sequence[int]:
        """Partitions that must get a listing although it names none of their keys: they find what is absent."""
        if listing is None:
            return ()
        if listing.chain is None or listing.account is None:
            return range(len(self.committers))
        home = f"{listing.provider}/{listing.chain}/{listing.account}"
        return (partition_of(home, len(self.committers)),)

    def note(self, key: str, data: bytes) -> None:
        """A note for the next commit of partition 0."""
        self.committers[0].note(key, data)

    async def save(self, key: str, data: bytes) -> None:
        """`note`, and return once it is committed."""
        await self.committers[0].save(key, data)

    @property
    def notes(self) -> dict[str, bytes]:
        """The notes as partition 0 restored them."""
        return self.committers[0].notes

    async def flush(self) -> None:
        """Return once everything accepted and noted before is committed, in every partition."""
        for committer in self.committers:
            await committer.flush()


# goes with partition = provider
def merge_verdicts(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for all of them."""
    return Verdict(
        changed=set().union(*(one.changed for one in verdicts)),
        candidates=set().union(*(one.candidates for one in verdicts)),
        stale=set().union(*(one.stale for one in verdicts)),
        went_back=set().union(*(one.went_back for one in verdicts)),
        accepted=sum(one.accepted for one in verdicts),
        baselines=sum(one.baselines for one in verdicts),
        refused=sum(one.refused for one in verdicts),
    )
