"""Reads what cargo and llvm-cov wrote: `programs BUILD_JSON` lists the test programs; `table LCOV SRC` prints the lines
of code covered in each top folder of SRC, and fails when a folder of the core is below its bar or not there.

Lines of tests inside src/ (items under `#[cfg(test)]`, files *_tests.rs and tests.rs) are not counted: they run by
their nature and would flatter the figures.
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

# What decides about runs and jobs: a line that no test runs here is a bug that no test finds.
CORE = ("store", "orchestrator", "executor", "service")
BAR_PERCENT = 80.0
TEST_FILE = re.compile(r"(^|_)tests\.rs$")


def programs(build_json: Path) -> None:
    """Prints the path of every program that the build made, one a line."""
    for line in build_json.read_text().splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["executable"]:
            print(message["executable"])


def test_lines(source: Path) -> set[int]:
    """The numbers, from 1, of the lines in `source` that belong to an item under `#[cfg(test)]`."""
    lines: set[int] = set()
    inside = False
    # rustfmt keeps a top-level item's attributes and last brace in the first column.
    for number, line in enumerate(source.read_text().splitlines(), 1):
        inside = inside or line == "#[cfg(test)]"
        if inside:
            lines.add(number)
            inside = not (line == "}" or (line.endswith(";") and line[0] not in " #/"))
    return lines


def counts(lcov: Path, src: Path) -> dict[Path, dict[int, int]]:
    """For each source file relative to `src`, how often each line of code ran."""
    files: dict[Path, dict[int, int]] = {}
    skipped: set[int] = set()
    lines: dict[int, int] = {}
    for record in lcov.read_text().splitlines():
        key, _, value = record.partition(":")
        if key == "SF":
            file = Path(value).relative_to(src)
            lines = {} if TEST_FILE.search(file.name) else files.setdefault(file, {})
            skipped = test_lines(Path(value))
        elif key == "DA":
            number, count = (int(part) for part in value.split(",")[:2])
            if number not in skipped:
                lines[number] = lines.get(number, 0) + count
    return files


def percent(lines: list[int]) -> float:
    """The share of `lines` that ran at all."""
    return 100.0 * sum(count > 0 for count in lines) / len(lines)


def row(name: str, lines: list[int], note: str = "") -> None:
    """Prints one row of the table."""
    covered = sum(count > 0 for count in lines)
    print(f"{name:<32} {covered:>6} {len(lines):>6} {percent(lines):>6.1f} %  {note}".rstrip())


def table(lcov: Path, src: Path) -> int:
    """Prints the table; returns the program's exit status."""
    folders: dict[str, list[int]] = defaultdict(list)
    weak: list[tuple[str, list[int]]] = []
    for file, by_line in sorted(counts(lcov, src).items()):
        lines = list(by_line.values())
        folder = file.parts[0].removesuffix(".rs")
        folders[folder] += lines
        if lines and folder in CORE and percent(lines) < BAR_PERCENT:
            weak.append((f"  {file}", lines))
    folders = {name: lines for name, lines in folders.items() if lines}

    print(f"\n{'src/':<32} {'ran':>6} {'lines':>6} {'share':>8}")
    for name, lines in sorted(folders.items()):
        row(name, lines, f"at least {BAR_PERCENT:.0f} %" if name in CORE else "")
    row("all", [count for lines in folders.values() for count in lines])
    if weak:
        print(f"\nFiles of the core below {BAR_PERCENT:.0f} %:")
        for name, lines in weak:
            row(name, lines)

    failed = [f"{name} has no lines" for name in CORE if name not in folders]
    failed += [
        f"{name} has {percent(folders[name]):.1f} %, needs {BAR_PERCENT:.0f} %"
        for name in CORE
        if name in folders and percent(folders[name]) < BAR_PERCENT
    ]
    for failure in failed:
        print(f"coverage: {failure}", file=sys.stderr)
    return 1 if failed else 0


def main(arguments: list[str]) -> int:
    """Runs the command that `arguments` name."""
    match arguments:
        case ["programs", build_json]:
            programs(Path(build_json))
            return 0
        case ["table", lcov, src]:
            return table(Path(lcov), Path(src))
    print("usage: table.py programs BUILD_JSON | table LCOV SRC", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
