# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict about a host program: what it says of each of its tests, against what the model says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.contract.capture import RunEnd
from harness.contract.host_program import EXIT, OUTPUT, SKIPPED, Case, Outcome, ProgramEnd, results, sentence
from harness.contract.plan import Plan, from_json
from harness.contract.words import EndStatus
from harness.errors import CaptureDamaged, UsageError
from harness.evidence.host_log import read_host_log
from harness.judge.fault_shown import in_light_of_known_faults
from harness.judge.verdict_types import Finding, KnownFaultRow, Verdict
from harness.model.case_prediction import CasePrediction
from harness.model.kernels import KernelModel
from harness.model.known_faults import KNOWN_FAULTS
from harness.prediction import predict_cases
from harness.status import Status


def judge_program(files: Mapping[str, bytes], plan: Plan, end: RunEnd, kernel: KernelModel) -> Verdict:
    """Judge the capture of a host program that was started.

    :raise CaptureDamaged: what it said, or how it ended, is missing or not of this run.
    :raise ModelError: the model has no answer for this kernel.
    """
    if end.nonce != plan.nonce:
        raise CaptureDamaged(f"end.json carries nonce {end.nonce:#x}, the plan {plan.nonce:#x}: not of this run")
    if OUTPUT not in files:
        raise CaptureDamaged(f"{OUTPUT} is missing from the capture")
    output = files[OUTPUT].decode(errors="replace")
    verdict, predicted = _judge_by(files, plan, end, kernel, output)
    return in_light_of_known_faults(
        verdict, predicted, kernel, lambda other: _judge_by(files, plan, end, other, output)[0]
    )


def _judge_by(
    files: Mapping[str, bytes], plan: Plan, end: RunEnd, kernel: KernelModel, output: str
) -> tuple[Verdict, tuple[str, ...]]:
    predicted = predict_cases(plan, kernel)
    faults = tuple(dict.fromkeys(fault for each in predicted for fault in each.faults))
    try:
        said = results(output)
    except UsageError as exc:
        raise CaptureDamaged(f"{OUTPUT}: {exc.message}") from exc
    log = read_host_log(files, end)
    trouble = log.against_the_kernel
    findings = [Finding("D28", f"the host says: {line}") for line in trouble]
    if end.status is EndStatus.GUEST_TIMEOUT:
        findings.append(Finding("ending", end.reason))
    code = None if end.status is EndStatus.GUEST_TIMEOUT else _code(files)
    findings += _differences(predicted, said)
    status, reason = _status(output, code, predicted, said, findings)
    return Verdict(
        scenario=plan.scenario,
        model=kernel.name,
        variant=kernel.variant,
        status=Status.FINDING if status is Status.PASS and faults else status,
        reason=reason or "; ".join(f"{name}: {KNOWN_FAULTS[name].title}" for name in faults),
        findings=tuple(findings),
        notes=(*(f"{case}: {outcome}" for case, outcome in said), *log.starved),
        known_faults=tuple(KnownFaultRow(name, predicted=True, shown=True) for name in faults)
        if status is Status.PASS
        else (),
        log="" if status is Status.PASS else output[-4000:],
        taints=bool(trouble) or end.status is EndStatus.GUEST_TIMEOUT,
    ), faults


def _code(files: Mapping[str, bytes]) -> int:
    if EXIT not in files:
        raise CaptureDamaged(f"{EXIT} is missing from the capture")
    try:
        return from_json(ProgramEnd, files[EXIT]).code
    except UsageError as exc:
        raise CaptureDamaged(f"{EXIT}: {exc.message}") from exc


def _differences(predicted: Sequence[CasePrediction], said: Sequence[tuple[Case, Outcome]]) -> Iterator[Finding]:
    seen = dict(said)
    for each in predicted:
        outcome = seen.get(each.case)
        if outcome is not None and outcome is not each.outcome:
            yield Finding("item", f"seen: {sentence(each.case, outcome)}; predicted: {each.outcome} ({each.why})")


def _status(
    output: str,
    code: int | None,
    predicted: Sequence[CasePrediction],
    said: Sequence[tuple[Case, Outcome]],
    findings: Sequence[Finding],
) -> tuple[Status, str]:
    if code == SKIPPED and not findings:
        return Status.UNSUPPORTED, next((x for x in output.splitlines() if "# SKIP" in x), "the program skips it")
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        return Status.FAIL, f"{findings[0].rule}: {findings[0].message}{more}"
    if [case for case, _ in said] != [each.case for each in predicted]:
        last = output.strip().splitlines()[-1:] or ["it said nothing"]
        return Status.INCONCLUSIVE, f"{len(said)} of {len(predicted)} tests have a result: {last[0]}"
    # The program's own opinion of right and wrong is that of a kernel without any fault: 1 where it has one.
    if code != int(any(each.faults for each in predicted)):
        return Status.INCONCLUSIVE, f"the program ended with {code}, which its results do not explain"
    return Status.PASS, ""
