#!/usr/bin/env python3
"""Sums the results of a test run (scripts/test): meson's testlog.json files, pytest's junit XML and the single steps. Lists what failed; the
last line is "N passed, N failed". A scenario that failed and passed when run again is named and counts as passed. Exits 1 when anything failed or nothing ran."""
import json
import pathlib
import sys
import xml.etree.ElementTree as ET


def read_cases(path):
    """{test name: passed, failed or skipped} of a junit file; a test that fails and errs in its teardown counts once."""
    out = {}
    for case in ET.parse(path).getroot().iter("testcase") if path.exists() else []:
        kinds = {child.tag for child in case}
        name = f"{case.get('classname')}.{case.get('name')}"
        result = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        if out.get(name) != "failed":
            out[name] = result
    return out


def main():
    folder = pathlib.Path(sys.argv[1])
    passed, failed, skipped = 0, [], 0
    steps = folder / "steps.tsv"
    for line in steps.read_text().splitlines() if steps.exists() else []:
        name, result = line.split("\t")
        if result == "pass":
            passed += 1
        else:
            failed.append(name)
    for log in sorted(folder.glob("unit-*.json")):
        for line in log.read_text().splitlines():
            test = json.loads(line)
            if test["result"] == "OK":
                passed += 1
            elif test["result"] == "SKIP":
                skipped += 1
            else:
                failed.append(f"{log.stem}: {test['name']} ({test['result']})")
    xml = folder / "scenario.xml"
    if xml.exists():
        cases = read_cases(xml)
        again = read_cases(folder / "scenario-again.xml")
        for name, result in cases.items():
            if result == "failed" and again.get(name) == "passed":
                print(f"UNSTEADY scenario: {name} passed at the second try")
                result = "passed"
            if result == "failed":
                failed.append(f"scenario: {name}")
            passed += result == "passed"
            skipped += result == "skipped"
    else:
        failed.append("scenario tests did not run")
    for name in failed:
        print(f"FAILED {name}")
    tail = f", {skipped} skipped" if skipped else ""
    print(f"{passed} passed, {len(failed)} failed{tail}")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
