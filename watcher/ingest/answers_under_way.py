"""Which answers have come and are not evaluated to their end: they wait for the journal, or are large."""

import contextlib
import math
from collections.abc import Iterator

from watcher.model.readings import Answer


class AnswersUnderWay:
    """Those of one committer."""

    def __init__(self) -> None:
        self._answers: list[Answer] = []

    @contextlib.contextmanager
    def one(self, answer: Answer) -> Iterator[None]:
        """For as long as it is under way."""
        self._answers.append(answer)
        try:
            yield
        finally:
            self._answers = [other for other in self._answers if other is not answer]

    def oldest(self, provider: str) -> float:
        """When the oldest of the provider came (wall-clock microseconds); infinite: there is none."""
        came = (answer.times.observed_at for answer in self._answers if answer.provider == provider)
        return min(came, default=math.inf)
