"""What a new owner knows of the former one's requests counts no earlier than they were."""

import anyio
from trio.testing import MockClock

from watcher.limits.budget import Budget
from watcher.limits.lease import Lease
from watcher.limits.limiter import Limiter
from watcher.limits.windows import Limit
from watcher.poller.checkpoints import Checkpoints

LIMITS = [Limit(1, 2.0)]
WALL = 1_700_000_000_000_000


class Sink:
    """Of a partition that was released."""

    def __init__(self):
        self.lease = Lease(anyio.current_time)
        self.lease.begin(anyio.current_time())
        self.in_doubt = set()


def test_a_machine_that_stands_still_between_its_two_clocks_sends_no_request_too_early():
    clock = MockClock()

    async def main():
        before = Budget(LIMITS)
        before.settle(before.grant(anyio.current_time()), asked := anyio.current_time())
        saved = before.save(anyio.current_time(), WALL)

        def wall():
            """Time passes while it is asked."""
            seen = WALL + round(1e6 * (anyio.current_time() - asked))
            clock.jump(0.007)
            return seen

        budget = Budget(LIMITS)
        Checkpoints("bank", Limiter(budget), [], None, sink=Sink(), wall=wall).restore({"limiter:bank": saved})
        assert budget.ready_at(anyio.current_time()) >= asked + 2.0

    anyio.run(main, backend="trio", backend_options={"clock": clock})
