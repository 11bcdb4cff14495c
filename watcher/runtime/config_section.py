"""A table of the config as its Struct; each mistake is one line that says what to do, and all are told at once."""

import contextlib
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class SettingsError(ValueError):
    """A mistake in the config. The message is one line: where, what is wrong, a colon, and what to do.

    where: the place in the config, as in "providers.helius.watch[2].account". next_step: what to do. Both are optional:
    `check` takes them from the message where they are missing.
    """

    def __init__(self, message: str, *, where: str | None = None, next_step: str | None = None) -> None:
        super().__init__(message)
        self.where = where
        self.next_step = next_step

    @property
    def errors(self) -> "tuple[SettingsError, ...]":
        """All mistakes that were found: this one."""
        return (self,)


class SettingsErrors(SettingsError):
    """Several mistakes, a line for each."""

    def __init__(self, errors: Iterable[SettingsError]) -> None:
        self._errors = tuple(errors)
        super().__init__("\n".join(map(str, self._errors)))

    @property
    def errors(self) -> tuple[SettingsError, ...]:
        return self._errors


class Mistakes:
    """Gathers the mistakes of a config, so that all of them are told and not only the first."""

    def __init__(self) -> None:
        self.errors: list[SettingsError] = []

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """A SettingsError within ends the block, and is kept."""
        try:
            yield
        except SettingsError as error:
            self.add(error)

    def add(self, error: SettingsError) -> None:
        """One that was told before is not told again."""
        known = {str(one) for one in self.errors}
        self.errors += [one for one in error.errors if str(one) not in known]

    def raise_any(self) -> None:
        """Raises SettingsError if there was a mistake."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise SettingsErrors(self.errors)


def section(table: Any, kind: type[T], where: str) -> T:
    """One table as its Struct. Raises SettingsError for each wrong value, and for each unknown key with the nearest right one."""
    mistakes = Mistakes()
    for error in _unknown(table, msgspec.inspect.type_info(kind), where):
        mistakes.add(error)
    try:
        found = msgspec.convert(table, kind, strict=True)
    except msgspec.ValidationError as error:
        parts = list(_wrong_values(table, kind, where))
        # The whole is wrong and each part of it right where a key is missing, or unknown, which has been said.
        for one in parts or ([] if mistakes.errors else [_explain(str(error), where)]):
            mistakes.add(one)
    mistakes.raise_any()
    return found


def nearest(key: str, right: Iterable[str]) -> str:
    """The end of a message about a key that does not exist: the one that was probably meant, or all there are."""
    choice = sorted(right)
    return probably(key, choice) or f": the keys are {', '.join(choice)}"


def probably(word: str, right: Iterable[str]) -> str:
    """The end of a message that has named all words that would do: the one that was probably meant, if any was."""
    close = difflib.get_close_matches(word, sorted(right), n=1, cutoff=0.5)
    return f": did you mean `{close[0]}`?" if close else ""


def _unknown(value: Any, kind: msgspec.inspect.Type, where: str) -> Iterator[SettingsError]:
    if isinstance(kind, msgspec.inspect.UnionType):
        for part in kind.types:
            yield from _unknown(value, part, where)
    elif isinstance(kind, msgspec.inspect.StructType) and isinstance(value, Mapping):
        fields = {field.encode_name: field.type for field in kind.fields}
        for key, part in value.items():
            spot = f"{where}.{key}".lstrip(".")
            if key not in fields:
                yield SettingsError(f"unknown key `{key}` in [{where}]{nearest(key, fields)}", where=spot)
            else:
                yield from _unknown(part, fields[key], spot)
    elif isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType) and isinstance(value, list):
        for number, part in enumerate(value):
            yield from _unknown(part, kind.item_type, f"{where}[{number}]")


def _wrong_values(value: Any, kind: Any, where: str) -> Iterator[SettingsError]:
    """Each value of the wrong type, as deep as it stands: msgspec tells the first alone."""
    for one in typing.get_args(kind) if type(None) in typing.get_args(kind) else (kind,):
        if isinstance(one, type) and issubclass(one, msgspec.Struct) and isinstance(value, Mapping):
            hints = typing.get_type_hints(one, include_extras=True)
            for key in [key for key in one.__struct_fields__ if key in value]:
                yield from _wrong_values(value[key], hints[key], f"{where}.{key}".lstrip("."))
            return
        if typing.get_origin(one) in (list, tuple) and isinstance(value, list):
            for number, part in enumerate(value):
                yield from _wrong_values(part, typing.get_args(one)[0], f"{where}[{number}]")
            return
    try:
        msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        yield _no_such_word(value, _words(kind), where) or _explain(str(error), where)


def _words(kind: Any) -> list[str]:
    """Of a Literal, or of one that may be left out; none where something else may stand there too."""
    kinds = [kind] if typing.get_origin(kind) is typing.Literal else typing.get_args(kind)
    literal = all(one is type(None) or typing.get_origin(one) is typing.Literal for one in kinds)
    return [str(word) for one in kinds if literal for word in typing.get_args(one)]


def _no_such_word(value: Any, words: Sequence[str], where: str) -> SettingsError | None:
    """Of a word that is none of those that may stand there."""
    if not words or not isinstance(value, str):
        return None
    known = ", ".join(f"`{word}`" for word in words)
    return SettingsError(
        f"{where}: no such word as {value[:100]!r}: write one of {known}{probably(value, words)}", where=where
    )


def _explain(error: str, where: str) -> SettingsError:
    """msgspec's `Expected `str`, got `int` - at `$.api_key_env`` as `providers.x.api_key_env: expected …`."""
    what, _, path = error.partition(" - at `$")
    what = what.replace("`", "")
    spot = f"{where}{path.rstrip('`')}".lstrip(".")
    what = f"{what[:1].lower()}{what[1:]}"
    return SettingsError(f"{spot or 'the config'}: {what}", where=spot or None, next_step="write a value of that type")
