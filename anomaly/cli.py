"""The one parser of all commands: `-p name value`, and errors in one line."""

import argparse
import sys
from contextlib import suppress
from dataclasses import fields

from anomaly.errors import InputError
from anomaly.settings import Settings


def any_console():
    """Let the console take every name: what it cannot show is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


class Parser(argparse.ArgumentParser):
    """One line about what is wrong, without the usage; `-p` sets parameters."""

    def __init__(self, **options):
        super().__init__(**options)
        any_console()
        self.add_argument(
            "-p",
            dest="parameters",
            nargs=2,
            action="append",
            default=[],
            metavar=("NAME", "VALUE"),
            help="set a parameter of the notebooks",
        )

    def error(self, message):
        raise InputError(f"{message} (see --help)")


def typed(pairs):
    """A command line's texts [(name, value)] as arguments of Settings."""
    types, values = {field.name: field.type for field in fields(Settings)}, {}
    for name, text in pairs:
        if name not in types:
            valid = ", ".join(types)
            raise InputError(f"unknown parameter {name!r}: valid are {valid}")
        values[name] = text
        for number in () if types[name] is str else (float, int):
            with suppress(ValueError):  # else Settings says what is wrong
                values[name] = number(text)
    return values


def run(parser, work):
    """work(options) of the command line; the exit status: 0, or 2 for bad input.

    What is wrong is one line on the standard error.
    """
    any_console()
    try:
        work(parser.parse_args())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
