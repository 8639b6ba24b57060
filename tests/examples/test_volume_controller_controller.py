"""What the controller does next, decided from every state that there can be."""

from __future__ import annotations

from itertools import product
from typing import get_args

import attrs
import pytest
from volume_controller.backend import VolumeState
from volume_controller.config import DELETED, Desired
from volume_controller.controller import next_step
from volume_controller.steps import Operation, Step

NODES = (None, "n1", "n2")
BOTH = (False, True)

STATES = [
    VolumeState(
        provisioned=provisioned,
        attached_to=attached_to,
        blank=blank,
        mounted_on=mounted_on,
        written=written,
        checked=checked,
    )
    for provisioned, attached_to, blank, mounted_on, written, checked in product(
        BOTH, NODES, BOTH, NODES, BOTH, BOTH
    )
]
"""Also those that make no sense: a look at the world may come in the middle of an operation."""

CASES: list[tuple[Desired, VolumeState]] = list(product((*NODES, DELETED), STATES))


def is_harmless(operation: Operation, state: VolumeState) -> bool:
    """Whether *operation* destroys nothing in *state*."""
    attached, mounted = state.attached_to is not None, state.mounted_on is not None
    match operation:
        case "provision":
            return not state.provisioned
        case "attach":
            return state.provisioned and not attached and not mounted
        case "format":
            return state.blank and attached and not mounted
        case "mount":
            return not state.blank and attached and not mounted
        case "write":
            return mounted and not state.written
        case "unmount":
            return mounted
        case "detach":
            return attached and not mounted
        case "check":
            return not state.blank and not attached and not mounted
        case "delete":
            return state.provisioned and not attached and not mounted


def after(step: Step, state: VolumeState) -> VolumeState:
    """The state once *step* has succeeded."""
    match step.operation:
        case "provision":
            return attrs.evolve(state, provisioned=True, blank=True)
        case "attach":
            return attrs.evolve(state, attached_to=step.node, checked=False)
        case "format":
            return attrs.evolve(state, blank=False)
        case "mount":
            return attrs.evolve(state, mounted_on=step.node)
        case "write":
            return attrs.evolve(state, written=True)
        case "unmount":
            return attrs.evolve(state, mounted_on=None)
        case "detach":
            return attrs.evolve(state, attached_to=None)
        case "check":
            return attrs.evolve(state, checked=True)
        case "delete":
            return attrs.evolve(state, provisioned=False, checked=False)


def path(desired: Desired, state: VolumeState) -> tuple[list[Step], VolumeState]:
    """All steps from *state* on, and where they lead."""
    steps: list[Step] = []
    while (step := next_step(desired, state)) is not None:
        steps.append(step)
        assert len(steps) <= 8, "it goes round in circles"
        state = after(step, state)
    return steps, state


def test_a_new_volume_goes_all_the_way_up() -> None:
    """The steps of the demo's first phase."""
    steps, _ = path("n1", VolumeState())
    assert [
        Step("provision"),
        Step("attach", "n1"),
        Step("format"),
        Step("mount", "n1"),
        Step("write", "n1"),
    ] == steps


def test_a_mounted_volume_goes_all_the_way_down() -> None:
    """The steps of the demo's second phase."""
    state = VolumeState(
        provisioned=True, attached_to="n1", blank=False, mounted_on="n1", written=True
    )
    steps, _ = path(None, state)
    assert [Step("unmount", "n1"), Step("detach", "n1"), Step("check")] == steps


def test_a_volume_moves_from_node_to_node() -> None:
    """It leaves the one before it goes to the other."""
    state = VolumeState(
        provisioned=True, attached_to="n1", blank=False, mounted_on="n1", written=True
    )
    steps, _ = path("n2", state)
    assert [
        Step("unmount", "n1"),
        Step("detach", "n1"),
        Step("attach", "n2"),
        Step("mount", "n2"),
    ] == steps


def test_a_volume_is_deleted_from_wherever_it_is() -> None:
    """It is unmounted and detached before; nobody checks what is thrown away."""
    state = VolumeState(
        provisioned=True, attached_to="n1", blank=False, mounted_on="n1", written=True
    )
    steps, _ = path(DELETED, state)
    assert [Step("unmount", "n1"), Step("detach", "n1"), Step("delete")] == steps


def test_only_a_volume_that_is_to_go_is_deleted() -> None:
    """Whatever its state."""
    for desired, state in CASES:
        step = next_step(desired, state)
        assert step is None or step.operation != "delete" or desired is DELETED


def test_nothing_is_done_to_a_volume_that_nobody_has_made_or_wants() -> None:
    """A blank one is not checked either: there is nothing to check."""
    assert next_step(None, VolumeState()) is None
    assert next_step(None, VolumeState(provisioned=True)) is None


def test_every_state_leads_to_what_is_desired() -> None:
    """In at most eight steps, whatever the state."""
    for desired, state in CASES:
        _, end = path(desired, state)
        node = None if desired is DELETED else desired
        assert (node, node) == (end.attached_to, end.mounted_on)
        if desired is DELETED:
            assert not end.provisioned
        elif desired is not None:
            assert end.provisioned
            assert end.written
        elif end.provisioned and not end.blank:
            assert end.checked


@pytest.mark.parametrize("operation", get_args(Operation))
def test_no_step_is_taken_where_it_would_do_harm(operation: Operation) -> None:
    """Above all: only a blank volume is formatted, and none is detached while it is mounted."""
    taken = [
        state
        for desired, state in CASES
        if (step := next_step(desired, state)) is not None and step.operation == operation
    ]
    assert taken
    assert all(is_harmless(operation, state) for state in taken)
