"""A table of the config as its Struct; each mistake is one line that says what to do."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class SettingsError(ValueError):
    """A mistake in the config. The message is one line that names the table and says what to do."""


def section(table: Mapping[str, Any], kind: type[T], where: str) -> T:
    """One table as its Struct. Raises SettingsError naming the key, and the nearest right one when it is unknown."""
    _refuse_unknown(table, msgspec.inspect.type_info(kind), where)
    try:
        return msgspec.convert(table, kind, strict=True)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), where)) from None


def nearest(key: str, right: Iterable[str]) -> str:
    """The end of a message about a key that does not exist: the one that was probably meant, or all there are."""
    choice = sorted(right)
    close = difflib.get_close_matches(key, choice, n=1, cutoff=0.5)
    return f": did you mean `{close[0]}`?" if close else f": the keys are {', '.join(choice)}"


def _refuse_unknown(value: Any, kind: msgspec.inspect.Type, where: str) -> None:
    if isinstance(kind, msgspec.inspect.UnionType):
        for part in kind.types:
            _refuse_unknown(value, part, where)
    elif isinstance(kind, msgspec.inspect.StructType) and isinstance(value, Mapping):
        fields = {field.encode_name: field.type for field in kind.fields}
        for key, part in value.items():
            if key not in fields:
                raise SettingsError(f"unknown key `{key}` in [{where}]{nearest(key, fields)}")
            _refuse_unknown(part, fields[key], f"{where}.{key}".lstrip("."))
    elif isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType) and isinstance(value, list):
        for part in value:
            _refuse_unknown(part, kind.item_type, where)


def _explain(error: str, where: str) -> str:
    """msgspec's `Expected `str`, got `int` - at `$.api_key_env`` as `providers.x.api_key_env: expected …`."""
    what, _, path = error.partition(" - at `$")
    what = what.replace("`", "")
    spot = f"{where}{path.rstrip('`')}".lstrip(".")
    return f"{spot or 'the config'}: {what[:1].lower()}{what[1:]}"
