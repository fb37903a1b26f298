# SPDX-License-Identifier: GPL-2.0-or-later
"""The Perfetto trace, read by Perfetto: trace_processor finds the tokens, and the user interface opens it.

trace_processor is used as a program where APF_TRACE_PROCESSOR or PATH has it, and as the WebAssembly that Perfetto's
interface runs (make test-browser).  Reading by the protobufs alone: test_build_timeline.py.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.model.events import Kind
from harness.report.timeline.build_timeline import build_timeline
from harness.report.timeline.perfetto_trace import perfetto_trace
from tests.unit.report.judged import golden
from tests.unit.report.timeline.perfetto_ui import EngineTransport, served, ui_folder

Query = Callable[[str], list[Any]]
CAPTURES = [("captures", "S29"), ("captures", "S64"), ("captures-noio", "S23"), ("captures-noio", "S29")]
TOKENS = "select distinct extract_arg(arg_set_id, 'debug.token') as token from slice where token is not null"
ERRORS = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"
LOOSE = "select count(*) as n from slice where dur < 0"
FLOWS = "select count(*) as n from flow"


def trace_of(folder: str, name: str) -> bytes:
    drawn = build_timeline(golden(folder, name), most_rows=1000)
    assert drawn is not None
    return gzip.compress(perfetto_trace(drawn), mtime=0)


def check(folder: str, name: str, query: Query) -> None:
    """Nothing was dropped in reading, no slice has no end, each token is there, each arrow is a flow."""
    judged = golden(folder, name)
    assert judged.evidence is not None
    assert not [(row.name, row.value) for row in query(ERRORS)]
    assert [row.n for row in query(LOOSE)] == [0]
    assert {row.token for row in query(TOKENS)} == {e.token for e in judged.evidence.events if e.kind is Kind.NP}
    drawn = build_timeline(judged, most_rows=1000)
    assert drawn is not None and drawn.predicted is not None
    assert [row.n for row in query(FLOWS)] == [len(drawn.seen.arrows) + len(drawn.predicted.arrows)]


@pytest.mark.parametrize(("folder", "name"), CAPTURES)
def test_the_program_trace_processor_finds_the_tokens(folder: str, name: str, tmp_path: Path) -> None:
    program = os.environ.get("APF_TRACE_PROCESSOR") or shutil.which("trace_processor_shell")
    if not program:
        pytest.skip("no trace_processor_shell in PATH and no APF_TRACE_PROCESSOR: as WebAssembly in make test-browser")
    from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

    file = tmp_path / "timeline.pftrace.gz"
    file.write_bytes(trace_of(folder, name))
    with TraceProcessor(trace=str(file), config=TraceProcessorConfig(bin_path=program)) as processor:
        check(folder, name, lambda sql: list(processor.query(sql)))


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page at the address of Perfetto's interface; not the interface yet."""
    folder = ui_folder()
    (manifest,) = folder.glob("v*/manifest.json")
    with served(folder) as address:
        context = browser.new_context(viewport={"width": 1500, "height": 1100})
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(f"{address}/{manifest.relative_to(folder)}")
        yield page
        context.close()


@pytest.mark.browser
@pytest.mark.parametrize(("folder", "name"), CAPTURES)
def test_trace_processor_as_webassembly_finds_the_tokens(folder: str, name: str, page: Any) -> None:
    from perfetto.common.query_result_iterator import QueryResultIterator
    from perfetto.trace_processor.platform import PlatformDelegate
    from perfetto.trace_processor.protos import ProtoFactory
    from perfetto.trace_processor.rpc import TraceProcessorRpc

    protos = ProtoFactory(PlatformDelegate())
    processor = TraceProcessorRpc(EngineTransport(page, ui_folder()), protos)

    def ask(method: int, data: bytes = b"") -> Any:
        stream = protos.TraceProcessorRpcStream()
        request = stream.msg.add()
        request.request = method
        if data:
            request.append_trace_data = data
        processor.transport.send(stream.SerializeToString())
        answer = protos.TraceProcessorRpc()
        answer.MergeFromString(processor._read_payload())
        return answer

    assert not ask(protos.TraceProcessorRpc.TPM_APPEND_TRACE_DATA, trace_of(folder, name)).append_result.error
    ask(protos.TraceProcessorRpc.TPM_FINALIZE_TRACE_DATA)

    def query(sql: str) -> list[Any]:
        result = processor.execute_query(sql)
        assert not result.error, result.error
        return list(QueryResultIterator(result.column_names, result.batch))

    check(folder, name, query)
    processor.close()


@pytest.mark.browser
def test_perfettos_interface_opens_it(page: Any, tmp_path: Path) -> None:
    file = tmp_path / "timeline.pftrace.gz"
    file.write_bytes(trace_of("captures", "S29"))
    page.goto(page.url.partition("/v")[0] + "/index.html")
    page.wait_for_selector("input.trace_file", state="attached")
    page.set_input_files("input.trace_file", str(file))
    page.get_by_text("first divergence").or_(page.get_by_text("seen", exact=True)).first.wait_for()
    page.keyboard.press("Escape")  # what greets a new user
    lanes = [page.get_by_text(name, exact=True) for name in ("vCPU 0", "kworkers")]
    page.get_by_text("seen", exact=True).first.click()
    lanes[1].first.wait_for()
    seen = [lane.count() for lane in lanes]
    page.get_by_text("the model", exact=True).first.click()
    for lane, count in zip(lanes, seen, strict=True):
        lane.nth(2 * count - 1).wait_for()
    if folder := os.environ.get("APF_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / "perfetto-ui.png"))
