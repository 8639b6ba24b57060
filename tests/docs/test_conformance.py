"""The table of behaviours in the docs is the one that the suite has."""

from tests.conformance.table import PAGE, behaviours, declared, page


def test_the_page_is_in_step_with_the_suite() -> None:
    """After a change run ``make conformance``."""
    assert page() == PAGE.read_text()


def test_every_behaviour_is_told_of_every_shell() -> None:
    verdicts = declared()
    assert len(behaviours()) > 100
    assert {verdict.partition(":")[0] for verdict in verdicts.values()} <= {"yes", "no"}
