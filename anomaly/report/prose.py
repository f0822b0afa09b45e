"""Prose of the report: Jinja templates of Markdown in notebooks/06_report/.

A line ![caption](figure:name "alt text") stands for a figure, <!-- name --> begins a
section. Every number in the prose comes from the run.
"""

import re

import jinja2
from markupsafe import Markup

from anomaly.files import ROOT
from anomaly.report.style import speaker

TEMPLATES = ROOT / "notebooks" / "06_report"
FIGURE = re.compile(r'^!\[(.*)\]\(figure:([\w-]+) "(.*)"\)$', re.MULTILINE)


def escape(value) -> str:
    """Text as Markdown that shows it literally, in pandoc and in JupyterLab."""
    text = re.sub(r"\s+", " ", str(value))
    return re.sub(r"[!-,/:-@[-`{-~]", lambda char: f"&#{ord(char[0])};", text)


def render_prose(name: str, lang: str, **values) -> dict[str, str]:
    """Sections {section: Markdown} of notebooks/06_report/{name}.{lang}.md.j2.

    Every inserted value is escaped, so that no name in the data can be markup; None
    becomes a dash.
    """
    source = (TEMPLATES / f"{name}.{lang}.md.j2").read_text(encoding="utf-8")
    template = _environment(lang).from_string(_unfolded(source))
    parts = re.split(r"^<!-- (\w+) -->$", template.render(values), flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))


def _unfolded(source):
    """A tag that ends a line of text keeps its newline, which trim_blocks takes."""

    def keep(line):
        has_text = re.sub(r"\{%.*?%\}", "", line[0]).strip()
        return line[0] + "\n" * bool(has_text)

    return re.sub(r"^.*%\}$", keep, source, flags=re.MULTILINE)


def _environment(lang):
    sign = speaker(lang)("\u00a0%", "%")
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _form(lambda x: f"{x:.4g}"),
        "fixed": _form(lambda x, digits: f"{x:.{digits}f}"),
        "signed": _form(lambda x, digits: f"{x:+.{digits}f}".replace("-", "−")),
        "percent": _form(lambda x: f"{100 * x:.1f}".removesuffix(".0") + sign),
        "interval": _form(lambda pair: f"{pair[0]:.3f}–{pair[1]:.3f}"),
        "chunks": _form(lambda text: " ".join(re.findall(".{1,8}", escape(text)))),
    }
    return environment


def _finalize(value):
    if isinstance(value, Markup):
        return value
    return Markup("–" if value is None else escape(value))


def _form(text):
    """A filter that passes None on."""
    return lambda value, *digits: (
        None if value is None else Markup(text(value, *digits))
    )
