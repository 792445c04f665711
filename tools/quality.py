#!/usr/bin/env python3
"""docs/quality.md: every point of the quality bar with the tests that hold it and what they last gave.

quality.py            checks the page: every point and test is in it, no cell is empty, nothing failed
quality.py RESULTS    first brings the page up to date from a test run's folder (*_test.xml of GoogleTest, checks.txt of the
                      scripts); a test that did not run, or was skipped, keeps its last result
./test names the folder by ATELIER_TEST_RESULTS. Exits 1 with a line for each fault."""
import json
import os
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

from quality_points import POINTS, WEAKNESSES

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "quality.md"
HEAD = """# The quality bar and its tests

Written by the test run (`./test`, with `--slow` for names that begin with Slow or slow); the list is
`tools/quality_points.py`. A name with a dot is a GoogleTest case, `FILE:test_x` a function of a script. The last result is
that of the last run in which the test ran; a file of `tests/results/` holds the numbers behind it. An empty cell fails.

"""
ROW = re.compile(r"^\| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$")


def gtest_results(folder):
    out = {}
    for file in folder.glob("*_test.xml"):
        for case in ElementTree.parse(file).iter("testcase"):
            if case.get("status") == "notrun" or case.get("result") == "skipped":
                continue
            failed = case.find("failure") is not None
            out[f"{case.get('classname')}.{case.get('name')}"] = "failed" if failed else "passed"
    return out


def script_results(folder):
    out = {}
    file = folder / "checks.txt"
    for line in file.read_text().splitlines() if file.exists() else []:
        result, _, test = line.partition(" ")
        if result in ("passed", "failed"):
            out[test] = result
    return out


def with_numbers(test, result):
    """The one-line summary of a slow script's result file belongs to its result."""
    name = re.match(r"tests/slow_(\w+)\.", test)
    file = ROOT / "tests" / "results" / f"{name.group(1)}.json" if name else None
    if not file or not file.exists():
        return result
    summary = json.loads(file.read_text()).get("summary") if file.suffix == ".json" else None
    return f"{result}: {summary}" if summary and result.startswith("passed") else result


def rows():
    """(table, point, what, test) of every line of the page."""
    for number, table in enumerate((POINTS, WEAKNESSES)):
        for point, what, tests in table:
            for test in tests:
                yield number, point, what, test


def last_results():
    out = {}
    for line in PAGE.read_text().splitlines() if PAGE.exists() else []:
        found = ROW.match(line)
        if found:
            out[found.group(3).strip("`")] = found.group(4)
    return out


def write(results):
    last, lines = last_results(), [HEAD.rstrip(), ""]
    table = -1
    for number, point, what, test in rows():
        if number != table:
            table = number
            if number:
                lines += ["", "Known weaknesses of comparable servers, each with the tests that would find it here:", ""]
            lines += ["| Point | What must hold | Test | Last result |", "|---|---|---|---|"]
        old = last.get(test, "").split(":")[0]
        is_test = not test.startswith("none")
        result = with_numbers(test, results.get(test, old)) if is_test else "open"
        lines.append(f"| {point} | {what} | {f'`{test}`' if is_test else test} | {result} |")
    text = "\n".join(lines) + "\n"
    if not PAGE.exists() or PAGE.read_text() != text:
        PAGE.write_text(text)


def sources():
    cases = set()
    for file in (ROOT / "src").rglob("*_test.cpp"):
        for suite, name in re.findall(r"^TEST(?:_F|_P)?\((\w+),\s*(\w+)\)", file.read_text(), re.M):
            cases.add(f"{suite}.{name}")
    return cases


def is_there(test, cases):
    if test.startswith("none"):
        return True
    file, _, function = test.partition(":")
    if not file.startswith(("tests/", "tools/")):
        return test in cases
    path = ROOT / file
    return path.exists() and (not function or f"def {function}(" in path.read_text())


def faults():
    cases, found, seen = sources(), [], {}
    for line in PAGE.read_text().splitlines() if PAGE.exists() else []:
        match = ROW.match(line)
        if match and match.group(1) not in ("Point", "---"):
            seen[(match.group(1), match.group(3).strip("`"))] = match.groups()
    for _, point, what, test in rows():
        cells = seen.pop((point, test), None)
        if not is_there(test, cases):
            found.append(f"{point}: there is no test {test}")
        elif cells is None:
            found.append(f"docs/quality.md: {point} lacks {test}; ./test writes it")
        elif not all(c.strip() for c in cells):
            found.append(f"docs/quality.md: {point}, {test}: no result yet; the test run writes it")
        elif cells[3].startswith("failed"):
            found.append(f"docs/quality.md: {point}, {test}: failed")
    found += [f"docs/quality.md: {point}, {test} is not in tools/quality_points.py" for point, test in seen]
    return found


def main():
    named = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ATELIER_TEST_RESULTS")
    if named:
        folder = pathlib.Path(named)
        write({**gtest_results(folder), **script_results(folder)})
    found = faults()
    print("\n".join(found) or f"{len(list(rows()))} tests of {len(POINTS) + len(WEAKNESSES)} points")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
