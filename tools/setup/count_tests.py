"""Counts GoogleTest cases: prints 'passed failed skipped' from a folder with ctest.xml and the programs' own *_test.xml.

A program that broke before it could write its cases, or that failed although each case passed, counts as one failure.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def cases_of(program: pathlib.Path) -> tuple[int, int, int]:
    passed = failed = skipped = 0
    for case in ElementTree.parse(program).iter("testcase"):
        if case.get("status") == "notrun":
            continue
        if case.find("failure") is not None:
            failed += 1
        elif case.get("result") == "skipped":
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    total = [0, 0, 0]
    for entry in ElementTree.parse(folder / "ctest.xml").iter("testcase"):
        program_failed = entry.get("status") != "run"
        try:
            counts = cases_of(folder / f"{entry.get('name')}_test.xml")
        except (OSError, ElementTree.ParseError):
            counts = (0, 0, 0) if program_failed else (1, 0, 0)
        if program_failed and counts[1] == 0:
            counts = (counts[0], 1, counts[2])
        total = [a + b for a, b in zip(total, counts)]
    print(*total)
    return 0


if __name__ == "__main__":
    sys.exit(main())
