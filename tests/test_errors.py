"""Messages: one line, without characters that a terminal acts on."""

from __future__ import annotations

import pytest

from redepth.checkpoints.messages import reason
from redepth.errors import InputError, cut, one_line, printable

HOSTILE = "a \x1b[2J\x07b\u202ec\x9b1md"


@pytest.mark.parametrize(
    "text",
    [cut(HOSTILE), one_line(InputError(HOSTILE)), one_line(ValueError(HOSTILE)), reason(OSError(HOSTILE))],
)
def test_no_message_acts_on_the_terminal(text: str) -> None:
    assert text.endswith(r"a \x1b[2J\x07b\u202ec\x9b1md")
    assert text.isprintable()


def test_printable_text_stays_as_it_is() -> None:
    assert printable("Grüße, 日本 [1]: 'x'") == "Grüße, 日本 [1]: 'x'"
    assert cut("two\nlines\tof text") == "two lines of text"
