# SPDX-License-Identifier: GPL-2.0-or-later
"""What is not green as annotations of the scenarios' files: results.sarif (SARIF 2.1.0), and GitHub's own commands.

A finding of a rule becomes a result of that rule; a verdict without findings one of the rule that its word names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from harness.model.protocol.rules import RULES
from harness.report.explain_verdict import explain_verdict
from harness.report.printable import printable
from harness.results import Key, Row, RunResult
from harness.status import Status

SARIF = "2.1.0"
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_FOLDER = "tests/scenarios"


@dataclass(frozen=True, slots=True)
class Annotation:
    """One of them.  ``level``: "error", "warning" or "note", as both formats have it (GitHub: "notice")."""

    rule: str
    level: str
    file: str
    title: str
    text: str


def annotations_of(result: RunResult, files: Mapping[str, str] | None = None) -> Iterator[Annotation]:
    """One for each verdict that is not green, and one for each that is missing.

    :param files: by scenario (without its matrix: "S24"), the file that it is in, relative to the repository.
    """
    for key in result.planned:
        row = result.row(key)
        if row is None:
            yield Annotation("missing", "error", _file(key, files), f"{key}: no verdict", "the run ended before")
        elif not result.is_green(row):
            rule = row.verdict.findings[0].rule if row.verdict.findings else row.status.value.lower()
            text = "\n".join(explain_verdict(row.verdict))
            yield Annotation(rule, _level(row), _file(key, files), f"{key}: {row.verdict.word}", text)


def _level(row: Row) -> str:
    return "error" if row.status in (Status.FAIL, Status.ERROR) else "warning"


def _file(key: Key, files: Mapping[str, str] | None) -> str:
    base = key.scenario.partition("/")[0].partition("@")[0]
    return (files or {}).get(base, f"{_FOLDER}/{base}.toml")


def sarif_json(result: RunResult, files: Mapping[str, str] | None = None) -> str:
    """results.sarif."""
    found = list(annotations_of(result, files))
    rules = list(dict.fromkeys(a.rule for a in found))
    return json.dumps(
        {
            "$schema": _SCHEMA,
            "version": SARIF,
            "runs": [
                {
                    "tool": {"driver": {"name": "apf", "rules": [_rule(rule) for rule in rules]}},
                    "automationDetails": {"id": f"apf/{result.run}"},
                    "invocations": [{
                        "executionSuccessful": not result.missing and not result.interrupted,
                        "exitCode": result.exit_code,
                        **({"commandLine": result.command} if result.command else {}),
                    }],
                    "results": [_result(a, rules.index(a.rule)) for a in found],
                }
            ],
        },
        indent=1,
    )  # fmt: skip


def _rule(name: str) -> dict[str, Any]:
    known = RULES.get(name)
    text = known.sentence if known is not None else _OTHERS.get(name, name)
    rule: dict[str, Any] = {"id": name, "shortDescription": {"text": text}}
    if known is not None:
        rule["help"] = {"text": f"source: {known.source}"}
    return rule


_OTHERS = {
    "item": "One touch of the plan: outcome, number of faults, who submitted the read, whether it ended.",
    "total": "A count over the whole run.",
    "value": "What the guest read is not what the page holds.",
    "unexplained": "An event that no item, no rule and no need of the guest explains.",
    "missing": "Planned, and without a verdict.",
    "inconclusive": "Nothing can be concluded from this run.",
    "unsupported": "This host cannot do it.",
    "error": "Our own or the machine's fault.",
}


def _result(a: Annotation, index: int) -> dict[str, Any]:
    return {
        "ruleId": a.rule,
        "ruleIndex": index,
        "level": a.level,
        "message": {"text": printable(f"{a.title}\n{a.text}")},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": quote(a.file)}, "region": {"startLine": 1}}}
        ],
        "partialFingerprints": {
            "apfVerdict/v1": hashlib.sha256(f"{a.rule}\n{a.title}".encode()).hexdigest()[:32]
        },
    }  # fmt: skip


def github_commands(result: RunResult, files: Mapping[str, str] | None = None) -> list[str]:
    """Workflow commands (::error file=...::text), one line each: a job's log shows them beside the changed files."""
    return [
        f"::{a.level} file={_property(a.file)},line=1,title={_property(printable(a.title))}::{_data(printable(a.text))}"
        for a in annotations_of(result, files)
    ]


def _data(text: str) -> str:
    """actions/toolkit: command.ts:escapeData."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """actions/toolkit: command.ts:escapeProperty."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
