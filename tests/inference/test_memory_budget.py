import threading

import pytest

from landmark_onnx.inference.memory_budget import MemoryBudget
from scheduled import PATIENCE, Gate, reached, until


@pytest.fixture
def held():
    """Starts a thread that holds bytes until its gate is opened, and ends them all."""
    started = []

    def hold(budget, size):
        gate = Gate()

        def run():
            with budget.reserved(size):
                gate()

        thread = threading.Thread(target=run)
        thread.start()
        started.append((gate, thread))
        return gate

    yield hold
    for gate, _ in started:
        gate.opened.set()
    for _, thread in started:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_as_much_is_held_as_fits(held):
    budget = MemoryBudget(10)
    gates = [held(budget, size) for size in (4, 6)]
    for gate in gates:
        reached(gate.entered)
    third = held(budget, 1)
    until(budget._turn.locked)
    assert not third.entered.is_set()
    gates[0].opened.set()
    reached(third.entered)


def test_what_is_larger_than_all_has_its_turn_alone(held):
    budget = MemoryBudget(10)
    first = held(budget, 1)
    reached(first.entered)
    huge = held(budget, 50)
    until(budget._turn.locked)
    assert not huge.entered.is_set()
    first.opened.set()
    reached(huge.entered)
    after = held(budget, 1)
    until(budget._turn.locked)
    assert not after.entered.is_set()
    huge.opened.set()
    reached(after.entered)


def test_whoever_is_small_does_not_pass_who_waits(held):
    budget = MemoryBudget(10)
    first = held(budget, 4)
    reached(first.entered)
    large = held(budget, 10)
    until(budget._turn.locked)
    small = held(budget, 1)
    assert not small.entered.wait(0.05)
    first.opened.set()
    reached(large.entered)
    large.opened.set()
    reached(small.entered)


def test_what_is_added_counts_until_it_is_released(held):
    budget = MemoryBudget(10)
    budget.add(12)
    gate = held(budget, 10)
    until(budget._turn.locked)
    budget.release(6)
    assert not gate.entered.is_set()
    budget.release(6)
    reached(gate.entered)
