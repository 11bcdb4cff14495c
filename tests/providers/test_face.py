"""`watcher.provider`: one import for whoever writes a provider elsewhere."""

import ast
import inspect
from pathlib import Path

import pytest

from watcher import provider
from watcher.providers import bloxroute, helius, jupiter, ondo, tokenkit

OF_OURS = {
    "watcher.model.addresses",
    "watcher.model.addresses.CANONICAL_EVM",
    "watcher.model.amounts.EXACT",
    "watcher.providers.answers.BOM",
}
"""What only ours reach for, to be fast: spellings that need no look, sums of decimals, an answer that is an object by itself."""


def imported(module):
    """What a file of ours imports from others of ours, each as (module, name)."""
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("watcher"):
            yield from ((node.module, alias.name) for alias in node.names)


def test_every_name_stands_there_once_and_explains_itself():
    assert len(set(provider.__all__)) == len(provider.__all__)
    for name in provider.__all__:
        each = getattr(provider, name)
        assert each.__doc__ or not (inspect.isclass(each) or inspect.isfunction(each)), name


@pytest.mark.parametrize("module", [bloxroute, helius, jupiter, ondo, tokenkit], ids=lambda module: module.__name__)
def test_our_own_providers_need_nothing_that_it_lacks(module):
    lacking = {f"{place}.{name}" for place, name in imported(module) if name not in provider.__all__}
    assert {name for name in lacking if not name.startswith("watcher.providers.ondo_bulk.")} <= OF_OURS


def test_nothing_of_ours_imports_it():
    root = Path(provider.__file__).parent
    assert not [
        path for path in root.rglob("*.py") if "watcher.provider " in path.read_text() and path.name != "provider.py"
    ]
