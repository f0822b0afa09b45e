"""An executed report notebook as one Markdown text, for pandoc.

Only outputs that carry a `section` in their metadata enter: Markdown, and figures with
`caption` and `alt` (see `show`). The first section becomes title and subtitle.
"""

import base64
import itertools
import json
import re
from datetime import date
from pathlib import Path

from nbconvert.utils.exceptions import ConversionException
from nbformat import NotebookNode

from anomaly.report.prose import escape

SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg"}
WORDS = {
    "en": {"figure": "Figure {}", "table": "Table {}", "link": "{} (Figure {})"},
    "zh": {"figure": "图 {}", "table": "表 {}", "link": "{}（图 {}）"},
}


class ExportError(ConversionException):
    """The report could not be written; one line that says why."""


def report_outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """The outputs that make up the report; ExportError where there are none."""
    found = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "section" in output.get("metadata", {})
    ]
    if not found:
        raise ExportError("the notebook's outputs hold no report; run it first")
    return found


def language(notebook: NotebookNode) -> str:
    """The language that the report's notebook was executed in: en or zh."""
    return report_outputs(notebook)[0].metadata.get("lang", "en")


def to_markdown(notebook: NotebookNode, folder: Path, lang: str) -> str:
    """The report's text, with captions numbered; its pictures go into `folder`."""
    sections: dict[str, list[str]] = {}
    for output in report_outputs(notebook):
        texts = sections.setdefault(output.metadata.section, [])
        mime = next((mime for mime in SUFFIX if mime in output.data), None)
        if mime is None:
            texts.append("".join(output.data["text/markdown"]))
            continue
        name = output.metadata.figure + SUFFIX[mime]
        (folder / name).write_bytes(base64.b64decode("".join(output.data[mime])))
        texts.append(_figure_line(name, output.metadata.caption, output.metadata.alt))
    title, *parts = ("\n\n".join(texts) for texts in sections.values())
    return _front_matter(title, lang) + _numbered("\n\n".join(parts), lang)


def _figure_line(name, caption, alt):
    return f'![{caption}]({name}){{#fig-{Path(name).stem} alt="{escape(alt)}"}}'


def _front_matter(title, lang):
    """Metadata for pandoc from the title section: a heading and a paragraph."""
    heading, _, paragraph = title.removeprefix("# ").partition("\n\n")
    today = date.today()
    day = f"{today.day} {today:%B %Y}"
    if lang == "zh":
        day = f"{today.year} 年 {today.month} 月 {today.day} 日"
    metadata = {
        "title": heading,
        "subtitle": " ".join(paragraph.split()),
        "date": day,
        "lang": "zh-Hans" if lang == "zh" else "en",
        "toc-title": "目录" if lang == "zh" else "Contents",
    }
    # JSON strings are YAML, and pandoc reads them as Markdown
    lines = [f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in metadata.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def _numbered(text, lang):
    """Number the captions of figures and tables, and name figures in links."""
    words = WORDS[lang]
    labels = re.findall(r"^!\[.*\{#([\w-]+) alt", text, flags=re.MULTILINE)
    order = {label: index for index, label in enumerate(labels, 1)}
    tables = itertools.count(1)

    def figure(match):
        name = words["figure"].format(order[match[2]])
        return f"![**{name}.** {match[1]}{{#{match[2]} alt"

    def table(match):
        return f": **{words['table'].format(next(tables))}.** {match[1]}"

    def link(match):
        if match[2] not in order:  # a figure for which this run has no data
            return match[1]
        return f"[{words['link'].format(match[1], order[match[2]])}](#{match[2]})"

    text = re.sub(r"\[([^][]*)\]\(#([\w-]+)\)", link, text)
    text = re.sub(r"^!\[(.*)\{#([\w-]+) alt", figure, text, flags=re.MULTILINE)
    return re.sub(r"^\*(?:Table: |表：)(.*)\*$", table, text, flags=re.MULTILINE)
