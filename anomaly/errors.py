"""What bad input becomes: one line that names it and the remedy."""

import re

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class InputError(ValueError):
    """Bad input or setting; `str()` is one line: the file or value, the remedy."""

    def __str__(self) -> str:
        return one_line(super().__str__())

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of forty lines of traceback."""
        return [f"InputError: {self}"]


def one_line(text: str) -> str:
    """`text` with line breaks, control characters and lone surrogates escaped."""
    return CONTROLS.sub(lambda m: ascii(m[0])[1:-1], text[:1000])
