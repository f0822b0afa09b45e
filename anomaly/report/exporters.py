"""Exporters of nbconvert that turn the executed report notebook into HTML and PDF.

    notebook 06 -> its outputs as Markdown and pictures -> pandoc -> HTML
                                                        -> pandoc -> typst -> PDF

pyproject.toml registers them: jupyter nbconvert --to anomaly-html …/06_report.ipynb.
Nothing is loaded from a network, and pandoc reads the Markdown without raw HTML, TeX or
typst, so that no file name is executed.
"""

import os
import re
import tempfile
import time
from pathlib import Path

import nbformat
import pypandoc
import typst
from nbconvert.exporters import Exporter
from traitlets import Unicode, default

from anomaly.errors import InputError
from anomaly.files import PART
from anomaly.report.joint import compare, joint
from anomaly.report.layout import arranged
from anomaly.report.markdown import ExportError, language, to_markdown
from anomaly.report.prose import TEMPLATES
from anomaly.report.style import cjk_font

NOTEBOOK = "06_report.ipynb"
MARKDOWN = "markdown-raw_html-raw_tex-raw_attribute-citations-smart"
MARKDOWN += "+east_asian_line_breaks"


class ReportExporter(Exporter):
    """What both have in common; raises ExportError, or OSError on a full disk."""

    lang = Unicode(help="en or zh; empty: as the notebook was executed")
    lang = lang.tag(config=True)

    def from_notebook_node(self, nb, resources=None, **kwargs):
        """The report as (text or bytes, resources)."""
        nb, resources = super().from_notebook_node(nb, resources, **kwargs)
        lang = self.lang or language(nb)
        with tempfile.TemporaryDirectory(prefix="image-anomaly-report-") as name:
            text = to_markdown(nb, Path(name), lang)
            try:
                return self.typeset(text, Path(name), lang), resources
            except RuntimeError as error:  # of pandoc and typst
                raise ExportError(" ".join(str(error).split())) from error

    def typeset(self, text, folder, lang):
        """Markdown, whose pictures lie in `folder`, as the finished file's content."""
        raise NotImplementedError


class HTMLReport(ReportExporter):
    """One HTML file that refers to nothing outside."""

    export_from_notebook = "Report, HTML"  # in JupyterLab's menu
    output_mimetype = "text/html"

    @default("file_extension")
    def _extension(self):
        return ".html"

    def typeset(self, text, folder, lang):
        return _pandoc(
            text,
            "html5",
            "--embed-resources",
            "--mathml",
            "--toc",
            "--toc-depth=2",
            "--number-sections",
            f"--resource-path={folder}",
            f"--css={TEMPLATES / 'report.css'}",
        )


class PDFReport(ReportExporter):
    """A PDF by typst, with links, outline and embedded fonts."""

    export_from_notebook = "Report, PDF"
    output_mimetype = "application/pdf"

    @default("file_extension")
    def _extension(self):
        return ".pdf"

    def typeset(self, text, folder, lang):
        font = cjk_font()
        names = [] if lang == "zh" else ["Libertinus Serif"]
        names += [font[0]] if font else []
        source = _pandoc(
            text,
            "typst",
            f"--template={TEMPLATES / 'report.typ'}",
            *(f"--variable=font:{name}" for name in names),
            f"--variable=language:{lang}",
            *(["--variable=faux-bold"] if lang == "zh" else []),
        )
        source = source.replace("align(center)[#table(", "align(left)[#table(")
        source = arranged(source, text, folder)
        # no font at hand has emoji: their code points instead of boxes
        source = re.sub(
            r"[\U00010000-\U0010FFFF]", lambda m: f"U+{ord(m[0]):X}", source
        )
        (folder / "report.typ").write_text(source, encoding="utf-8")
        return typst.compile(
            folder / "report.typ",
            root=folder,
            font_paths=[str(font[1].parent)] if font else [],
            timestamp=int(time.time() // 86400 * 86400),  # on one day, the same bytes
        )


def _pandoc(text, to, *options):
    # so wide that every table column takes the width of its text
    options = ["--standalone", "--shift-heading-level-by=-1", "--columns=999", *options]
    return pypandoc.convert_text(text, to, format=MARKDOWN, extra_args=options)


def export_report(
    folders: list[Path], target: Path, lang: str, pdf: bool = True
) -> None:
    """Write target/report.html and report.pdf: both, or on an error neither.

    folders: outputs of one category each, with the executed 06_report.ipynb; several
    are compared first, from their metrics.json and scores.csv. Without `pdf` an older
    PDF is removed. Raises ExportError, or InputError where nothing can be written.
    """
    try:
        notebooks = [
            nbformat.read(folder / NOTEBOOK, as_version=4) for folder in folders
        ]
        notebook = notebooks[0]
        if len(folders) > 1:
            notebook = joint(notebooks, compare(folders, lang))
        done = {}
        for exporter in [HTMLReport, PDFReport][: 1 + pdf]:
            content, resources = exporter(lang=lang).from_notebook_node(notebook)
            done["report" + resources["output_extension"]] = content
        _replace(target, done)
        if not pdf:
            (target / "report.pdf").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{target}: the report cannot be written ({error}); "
            "free some space, or choose another folder"
        ) from error
    except ExportError as error:
        raise ExportError(f"{target}: the report was not written: {error}") from error


def _replace(target, contents):
    """Write {name: text or bytes} into a folder, once all of them have room there."""
    with tempfile.TemporaryDirectory(dir=target, prefix=PART) as part:
        for name, content in contents.items():
            content = content.encode() if isinstance(content, str) else content
            (Path(part) / name).write_bytes(content)
        for name in contents:
            os.replace(Path(part) / name, target / name)
