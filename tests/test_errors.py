"""A message is one line that can be printed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import InputError, one_line


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_messages_stay_on_one_line_that_can_be_printed(text):
    line = str(InputError(text))
    line.encode()
    assert len(line.splitlines()) <= 1
    assert one_line(line) == line
