"""The command line: `python -m benchmarks`."""

import argparse
import datetime
import gc
import os
import re
from pathlib import Path

from benchmarks import machine
from benchmarks.cases import CASES

KERNELS = os.environ.get("OPENBLAS_CORETYPE", "")  # chosen by hand: results of their own
RESULTS = Path(__file__).parent / f"RESULTS{f'.{KERNELS}' if KERNELS else ''}.md"


def main() -> None:
    """Run the chosen cases, print each table when it is there, and write all where asked."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.write and arguments.quick:
        parser.error("--write is not for a --quick run")
    rounds = 1 if arguments.quick else arguments.rounds
    print(_head(), flush=True)
    for name in _chosen(arguments.only):
        table = _dated(str(CASES[name](rounds, arguments.quick)), rounds, arguments.quick)
        print(table, flush=True)
        if arguments.write:
            _write(table)
        gc.collect()  # gigabytes of examples, before the next case makes its own


def _dated(table: str, rounds: int, quick: bool) -> str:
    """Return a table that says when and on what it was measured."""
    kind = "a quick run on small arrays: its figures mean nothing" if quick else f"{rounds} rounds"
    heading, rest = table.split("\n", 1)
    own = f"Measured {datetime.date.today():%Y-%m-%d}, {kind}; {machine.describe()[0]}."
    return f"{heading}\n\n{own}\n{rest}"


def _write(table: str) -> None:
    """Put a table in the place of the one with the same title, or at the end."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    sections = {s.split("\n", 1)[0]: s for s in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]}
    sections[table.split("\n", 1)[0]] = table + "\n"
    RESULTS.write_text("\n".join([_head(), *sections.values()]).rstrip() + "\n", encoding="utf-8")


def _chosen(only: list[str] | None) -> list[str]:
    """Return the names of cases, for those of cases and of groups."""
    return [n for n in CASES if not only or {n, n.partition("_")[0]}.intersection(only)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time this program beside its peers and beside the limits of the machine.",
    )
    groups = list(dict.fromkeys(name.partition("_")[0] for name in CASES))
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*groups, *CASES],
        metavar="CASE",
        help=f"{', '.join(CASES)}; the word before a _ chooses all that begin with it",
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    parser.add_argument("--quick", action="store_true", help="small arrays, one round, no bars")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {RESULTS.name}")
    return parser


def _head() -> str:
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "`python -m benchmarks`. Ratios are of medians, to the contender with ratio 1;",
            "above 1 is slower. Versions and threads are those of the last table measured.",
            "",
            *(f"- {line}" for line in machine.describe()[1:]),
            "",
        ]
    )


if __name__ == "__main__":
    main()
