"""What people do at each provider's double, and how."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

from tests.providers import (
    test_gmail_any_order,
    test_google_calendar_any_order,
    test_graph_calendar,
    test_graph_mail_any_order,
)


class People(NamedTuple):
    """``do`` does one of ``acts`` at what a provider's parts have."""

    acts: st.SearchStrategy[Any]
    do: Callable[[Any, Any], None]


PEOPLE: Final = {
    "gmail": People(
        st.one_of(test_gmail_any_order.acts, test_gmail_any_order.relabels),
        test_gmail_any_order.do,
    ),
    "google_calendar": People(test_google_calendar_any_order.acts, test_google_calendar_any_order.do),
    "graph mail": People(
        st.one_of(test_graph_mail_any_order.acts, test_graph_mail_any_order.moves),
        test_graph_mail_any_order.do,
    ),
    "graph calendar": People(test_graph_calendar.acts, test_graph_calendar.do),
}
