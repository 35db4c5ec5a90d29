"""The command line: `python -m benchmarks`."""

import argparse
import datetime
import gc
from pathlib import Path

from benchmarks import machine
from benchmarks.cases import CASES

RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Run the chosen cases, print each table when it is there, and write all where asked."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.write and (arguments.quick or arguments.only):
        parser.error("--write is for a full run: without --quick and --only")
    rounds = 1 if arguments.quick else arguments.rounds
    head = _head(rounds, arguments.quick)
    print(head, flush=True)
    tables = []
    for name in _chosen(arguments.only):
        table = str(CASES[name](rounds, arguments.quick))
        print(table, flush=True)
        tables.append(table)
        gc.collect()  # gigabytes of examples, before the next case makes its own
    if arguments.write:
        RESULTS.write_text("\n".join([head, *tables]), encoding="utf-8")
        print(f"written to {RESULTS}")


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
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    return parser


def _head(rounds: int, quick: bool) -> str:
    kind = "a quick run on small arrays: its figures mean nothing" if quick else f"{rounds} rounds"
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"`python -m benchmarks`, {datetime.date.today():%Y-%m-%d}, {kind}.",
            "Ratios are of medians, to the contender with ratio 1; above 1 is slower.",
            "",
            *(f"- {line}" for line in machine.describe()),
            "",
        ]
    )


if __name__ == "__main__":
    main()
