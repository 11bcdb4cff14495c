"""Runs the benchmarks: `python -m tests.bench [NAME...]`, each module beside this file that has `main(argv)`."""

import ast
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def benchmarks() -> list[str]:
    """Found by reading, not importing: one that cannot be imported here must not stop the others."""
    return [
        path.stem
        for path in sorted(HERE.glob("*.py"))
        if path.stem != "__main__"
        and any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(path.read_text()).body)
    ]


def main(wanted: list[str]) -> int:
    known = benchmarks()
    if unknown := sorted(set(wanted) - set(known)):
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted or known:
        print(f"== {name} ==", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False, cwd=HERE.parents[1]).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
