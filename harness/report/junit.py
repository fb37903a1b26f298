# SPDX-License-Identifier: GPL-2.0-or-later
"""junit.xml, with the reason of each skipped, failed or missing one in it (avocado's own writes a bare <skipped/>)."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from harness.report.verdict_text import reason_text, verdict_text
from harness.results import Row, RunResult
from harness.status import Status

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(result: RunResult) -> str:
    """One <testsuite> per kernel, one <testcase> per planned verdict.

    FAIL and INCONCLUSIVE are failures (their type says which), ERROR and a missing verdict are errors, UNSUPPORTED
    and FINDING are skipped where the run allows or accepts them by name and failures otherwise.
    """
    root = ET.Element("testsuites", name="apf")
    by_key = {row.key: row for row in result.rows}
    for kernel in dict.fromkeys(key.kernel for key in result.planned):
        keys = [key for key in result.planned if key.kernel == kernel]
        suite = ET.SubElement(root, "testsuite", name=kernel)
        counts = {"failures": 0, "errors": 0, "skipped": 0}
        for key in keys:
            name = key.scenario if key.repeat == 1 else f"{key.scenario} (repeat {key.repeat})"
            row = by_key.get(key)
            case = ET.SubElement(
                suite, "testcase", classname=f"apf.{kernel}", name=name, time=f"{row.seconds if row else 0:.3f}"
            )
            kind = _kind(result, row)
            if kind:
                counts[{"failure": "failures", "error": "errors", "skipped": "skipped"}[kind]] += 1
                text = reason_text(row.verdict) if row else "no verdict: the run ended before"
                node = ET.SubElement(case, kind, message=_clean(text), type=row.verdict.word if row else "MISSING")
                node.text = _clean(verdict_text(row.verdict) if row else "")
        suite.set("tests", str(len(keys)))
        for what, number in counts.items():
            suite.set(what, str(number))
        suite.set("time", f"{sum(by_key[k].seconds for k in keys if k in by_key):.3f}")
    _refused(root, result)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _refused(root: ET.Element, result: RunResult) -> None:
    """A <testsuite> of the scenario files that could not be used, where there are any."""
    if not result.refused:
        return
    number = str(len(result.refused))
    suite = ET.SubElement(root, "testsuite", name="scenario files", tests=number, failures="0", errors=number)
    for told in result.refused:
        case = ET.SubElement(suite, "testcase", classname="apf.scenario-files", name=_clean(told.partition(": ")[0]))
        ET.SubElement(case, "error", message=_clean(told.splitlines()[0]), type="REFUSED").text = _clean(told)


def _kind(result: RunResult, row: Row | None) -> str:
    if row is None or row.status is Status.ERROR:
        return "error"
    if row.status in (Status.UNSUPPORTED, Status.FINDING) and result.is_green(row):
        return "skipped"
    return "" if result.is_green(row) else "failure"


def _clean(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold: consoles are full of them."""
    return _NOT_XML.sub("?", text)
