"""Executed report notebooks to one HTML file and one PDF.

    notebook 06 -> its outputs as Markdown and pictures -> pandoc -> HTML
                                                        -> pandoc -> typst -> PDF

Only outputs enter the report: Markdown, and figures that carry `caption` and `alt`
in their metadata (see `helpers.show`). Nothing is loaded from a network, and pandoc
reads the Markdown without raw HTML, TeX or typst, so that no file name is executed.
"""

import base64
import csv
import html
import itertools
import json
import os
import re
import tempfile
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pypandoc
import typst

import figures as fg
from helpers import PART, ROOT, InputError

STYLE = ROOT / "notebooks" / "06_report"
MARKDOWN = "markdown-raw_html-raw_tex-raw_attribute-citations-smart"
MARKDOWN += "+east_asian_line_breaks"
NOTEBOOK = "06_report.ipynb"
WORDS = {
    "en": {"figure": "Figure {}", "table": "Table {}", "link": "{} (Figure {})"},
    "zh": {"figure": "图 {}", "table": "表 {}", "link": "{}（图 {}）"},
}
SHARED = ("task", "method"), ("limits", "references")  # not per category
INCHES, DPI = 6.5, 160  # width of the text; pixels per inch of a figure
SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg"}


class ExportError(RuntimeError):
    """The report could not be written; one line that says why."""


def read_sections(notebook: Path, folder: Path, prefix: str) -> dict[str, str]:
    """Markdown of each section of an executed notebook; pictures go into `folder`."""
    sections: dict[str, list[str]] = {}
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        metadata, data = output.get("metadata", {}), output.get("data", {})
        if "section" not in metadata:
            continue
        texts = sections.setdefault(metadata["section"], [])
        mime = next((mime for mime in SUFFIX if mime in data), None)
        if mime is None:
            text = "".join(data["text/markdown"])
            texts.append(text.replace("](#fig-", f"](#fig-{prefix}"))
            continue
        name = f"{prefix}{metadata['figure']}{SUFFIX[mime]}"
        (folder / name).write_bytes(base64.b64decode("".join(data[mime])))
        texts.append(figure_line(name, metadata["caption"], metadata["alt"]))
    if not sections:
        raise ExportError(f"{notebook}: its outputs hold no report; run it first")
    return {name: "\n\n".join(texts) for name, texts in sections.items()}


def figure_line(name: str, caption: str, alt: str) -> str:
    return f'![{caption}]({name}){{#fig-{Path(name).stem} alt="{fg.escape(alt)}"}}'


def compare(folders: list[Path], folder: Path, lang: str) -> dict[str, str]:
    """Title and comparison of several categories, from their files."""
    runs, curves = [], {}
    for category in folders:
        metrics = json.loads((category / "metrics.json").read_text(encoding="utf-8"))
        runs.append(metrics)
        if metrics["auroc"] is not None:
            scores, is_bad = read_scores(category / "scores.csv")
            interval = metrics["auroc_ci95"]
            curves[metrics["category"]] = scores, is_bad, metrics["auroc"], interval
    sections = fg.render_prose("comparison", lang, runs=runs)

    def picture(match):
        caption, name, alt = match.groups()
        figure = fg.plot_comparison(curves, lang=lang)
        (folder / f"{name}.png").write_bytes(fg.encode(figure)[1])
        return figure_line(f"{name}.png", caption, html.unescape(alt))

    return {name: fg.FIGURE.sub(picture, text) for name, text in sections.items()}


def read_scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Scores (T,) and labels (T,) of scores.csv: 0 good, 1 bad, -1 unlabelled."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [{"good": 0, "bad": 1}.get(row["label"], -1) for row in rows]
    return np.array([float(row["score"]) for row in rows]), np.array(labels)


def number(text: str, lang: str) -> str:
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


def join(reports: list[dict[str, str]], comparison: dict[str, str], lang: str) -> str:
    """One report as it is; several below their comparison, shared sections once."""
    title, *parts = (comparison or reports[0]).values()
    if comparison:
        before, after = SHARED
        parts += [reports[0][name] for name in before]
        for report in reports:
            own = [text for name, text in report.items() if name not in before + after]
            own[0] = re.sub("^# .*?(: |：)", "# ", own[0])  # the product alone
            parts.append(re.sub("^#", "##", "\n\n".join(own), flags=re.MULTILINE))
        parts += [reports[0][name] for name in after]
    return front_matter(title, lang) + "\n\n".join(parts)


def front_matter(title: str, lang: str) -> str:
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


def convert(text: str, to: str, *options: str) -> str:
    # so wide that every table column takes the width of its text
    options = ["--standalone", "--shift-heading-level-by=-1", "--columns=999", *options]
    return pypandoc.convert_text(text, to, format=MARKDOWN, extra_args=options)


def to_html(text: str, folder: Path) -> str:
    return convert(
        text,
        "html5",
        "--embed-resources",
        "--mathml",
        "--toc",
        "--toc-depth=2",
        "--number-sections",
        f"--resource-path={folder}",
        f"--css={STYLE / 'report.css'}",
    )


def to_pdf(text: str, folder: Path, lang: str) -> bytes:
    font = fg.cjk_font()
    names = [] if lang == "zh" else ["Libertinus Serif"]
    names += [font[0]] if font else []
    source = convert(
        text,
        "typst",
        f"--template={STYLE / 'report.typ'}",
        *(f"--variable=font:{name}" for name in names),
        f"--variable=language:{lang}",
        *(["--variable=faux-bold"] if lang == "zh" else []),
    )
    alts = dict(re.findall(r'\]\(([\w.-]+)\)\{#\S+ alt="(.*)"\}$', text, flags=re.M))

    def picture(match):
        height, width = cv2.imread(str(folder / match[1])).shape[:2]
        share = min(1, width / DPI / INCHES, 1.3 * width / height)
        alt = json.dumps(html.unescape(alts[match[1]]), ensure_ascii=False)
        return f'image("{match[1]}", width: {share:.1%}, alt: {alt})'

    source = re.sub(r'image\("([\w.-]+)"\)', picture, source)
    source = source.replace("align(center)[#table(", "align(left)[#table(")
    # no font at hand has emoji: their code points instead of boxes
    source = re.sub(r"[\U00010000-\U0010FFFF]", lambda m: f"U+{ord(m[0]):X}", source)
    (folder / "report.typ").write_text(source, encoding="utf-8")
    paths = [str(font[1].parent)] if font else []
    return typst.compile(folder / "report.typ", root=folder, font_paths=paths)


def export_report(
    folders: list[Path], target: Path, lang: str, pdf: bool = True
) -> None:
    """Write target/report.html and report.pdf: both, or on an error neither.

    folders: outputs of one category each, with the executed 06_report.ipynb; several
    are compared first, from their metrics.json and scores.csv. Without `pdf` an older
    PDF is removed. Raises ExportError, or InputError where nothing can be written.
    """
    several = len(folders) > 1
    try:
        with tempfile.TemporaryDirectory(dir=target, prefix=PART) as name:
            work = Path(name)
            reports = [
                read_sections(folder / NOTEBOOK, work, f"{i}-" if several else "")
                for i, folder in enumerate(folders, 1)
            ]
            comparison = compare(folders, work, lang) if several else {}
            text = number(join(reports, comparison, lang), lang)
            done = {"report.html": to_html(text, work).encode()}
            if pdf:
                done["report.pdf"] = to_pdf(text, work, lang)
            for name, content in done.items():
                (work / name).write_bytes(content)
            for name in done:
                os.replace(work / name, target / name)
            if not pdf:
                (target / "report.pdf").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{target}: the report cannot be written ({error}); "
            "free some space, or choose another folder"
        ) from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"{target}: the report was not written: {reason}") from error
