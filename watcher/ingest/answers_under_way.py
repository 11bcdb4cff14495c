"""Answers that came and are not evaluated to their end: what they say is not known yet."""

import contextlib
import math
from collections.abc import Iterator

from watcher.model.readings import Answer


class AnswersUnderWay:
    """Those that wait to be evaluated, or are being."""

    def __init__(self) -> None:
        self._answers: list[Answer] = []

    @contextlib.contextmanager
    def counted(self, answer: Answer) -> Iterator[None]:
        self._answers.append(answer)
        try:
            yield
        finally:
            self._answers = [other for other in self._answers if other is not answer]

    def oldest(self, provider: str) -> float:
        """When the oldest one of the provider came (wall-clock microseconds); infinite: there is none."""
        came = (answer.times.observed_at for answer in self._answers if answer.provider == provider)
        return min(came, default=math.inf)
