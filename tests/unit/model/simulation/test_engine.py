# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulation's clock: order, signals, timeouts."""

from __future__ import annotations

from harness.model.simulation.engine import Engine, Process, Signal, Wait


def test_ties_run_in_the_order_they_were_asked_for() -> None:
    engine, seen = Engine(), []
    for name in "abc":
        engine.at(5, lambda name=name: seen.append(name))  # type: ignore[misc]
    engine.at(1, lambda: seen.append("first"))
    engine.run(10)
    assert seen == ["first", "a", "b", "c"]
    assert engine.now == 10


def test_a_signal_wakes_once_and_a_timeout_after_it_does_nothing() -> None:
    engine, signal, woken = Engine(), Signal(), []

    def process() -> Process:
        yield Wait(until_ns=100, signals=(signal,))
        woken.append(engine.now)
        yield Wait(signals=(signal,))
        woken.append(engine.now)

    engine.spawn(process())
    engine.at(30, lambda: engine.fire(signal))
    engine.run(500)
    assert woken == [30]
    engine.fire(signal)
    engine.run(600)
    assert woken == [30, 500]


def test_a_timeout_ends_the_wait_for_a_signal() -> None:
    engine, signal, woken = Engine(), Signal(), []

    def process() -> Process:
        yield Wait(until_ns=100, signals=(signal,))
        woken.append(engine.now)

    engine.spawn(process(), delay_ns=7)
    engine.run(1000)
    engine.fire(signal)
    engine.run(2000)
    assert woken == [100]


def test_what_lies_behind_the_limit_is_not_run() -> None:
    engine, seen = Engine(), []
    engine.at(11, lambda: seen.append(1))
    assert not engine.step(10)
    assert (seen, engine.now) == ([], 10)
    assert engine.step(11)
    assert seen == [1]


def test_two_signals_either_wakes() -> None:
    engine, one, two, woken = Engine(), Signal(), Signal(), []

    def process() -> Process:
        while True:
            yield Wait(signals=(one, two))
            woken.append(engine.now)

    engine.spawn(process())
    engine.at(1, lambda: engine.fire(two))
    engine.at(2, lambda: engine.fire(one))
    engine.run(9)
    assert woken == [1, 2]
