"""Run the notebooks of one or all categories and export their reports.

    python main.py                                   every category of the data set
    python main.py -p category zipper -p lang zh     papermill's own -p name value
    python main.py --limits                          notebook 08, too

The runner holds no method. `helpers` computes, with a progress bar, what the notebooks
then find in the stage cache; papermill executes the notebooks into report/{category}/;
nbconvert makes HTML and PDF of 06. Exit status: 0 done; 2 an input or a
setting is not valid, named in one line; 130 interrupted; 1 anything else. What failed
is told at length in report/error.log.
"""

import os
import signal
import sys

if __name__ == "__main__":

    def leave(*_):
        os.write(2, b"error: interrupted; the same command goes on\n")
        os._exit(130)

    # for Ctrl-C while the imports run, which take seconds
    signal.signal(signal.SIGINT, leave)

import json
from contextlib import nullcontext
from dataclasses import asdict, fields, replace

import joblib
from papermill.exceptions import PapermillExecutionError
from torch import get_num_threads

import helpers
from anomaly.cache import cache_folder
from anomaly.cli import Parser, any_console, typed
from anomaly.dataset import categories, load_dataset
from anomaly.doubts import sentences
from anomaly.errors import InputError, one_line
from anomaly.files import ROOT, sweep
from anomaly.labels import read_labels
from anomaly.report.exporters import export_report
from anomaly.report.run import (
    FIRST,
    LAST,
    LIMITS,
    NOTEBOOKS,
    check_writable,
    execute,
    lanes,
    side_by_side,
    side_by_side_in,
    timed,
    without_leftovers,
    write_log,
)
from anomaly.settings import Settings


def parse(argv):
    """The command line as (parameters, options)."""
    parser = Parser(
        allow_abbrev=False,
        description="Run the notebooks and export their reports.",
        epilog="parameters: " + ", ".join(field.name for field in fields(Settings)),
    )
    parser.add_argument("--no-pdf", action="store_true", help="HTML only")
    parser.add_argument(
        "--limits",
        action="store_true",
        help="notebook 08, too: how many images it takes, and what it will miss",
    )
    spread = parser.add_mutually_exclusive_group()
    spread.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="categories that run side by side",
    )
    spread.add_argument(
        "--dask",
        metavar="SCHEDULER",
        help="address of a Dask cluster that runs the categories",
    )
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: 1 or more is needed")
    return typed(options.parameters), options


def work(settings, pdf, kernels=None, notebooks=NOTEBOOKS):
    """One category: fill the stage cache, execute every notebook, export the report."""
    any_console()  # it may be a process of its own
    name, out, usual = settings.category, settings.output, asdict(Settings())
    parameters = {k: v for k, v in asdict(settings).items() if v != usual[k]}
    stems = [path.stem for path in load_dataset(settings.data, name).test]
    timed(name, "features and scores", helpers.detect, settings)
    detection = helpers.detect(settings)
    for doubt in sentences(detection.doubts, detection.threshold, settings.max_fpr):
        print(f"{name}: {one_line(doubt)}", flush=True)

    def one(notebook, kernel):
        target = out / notebook.name
        timed(name, notebook.stem, execute, notebook, target, parameters, kernel)

    with (
        without_leftovers(out, stems),
        nullcontext(kernels) if kernels else lanes(get_num_threads()) as kernels,
    ):
        numbered = {path.stem[:2]: path for path in notebooks}
        for part in (FIRST, LAST):
            paths = [numbered[number] for number in part if number in numbered]
            side_by_side_in(kernels, one, paths)
    timed(name, "report", export_report, [out], out, settings.lang, pdf)


def run(base, names, pdf, jobs=1, scheduler=None, limits=False):
    """Everything; the last lines sum up each category."""
    for name in names:  # what is wrong with the input is said before anything is run
        dataset = load_dataset(base.data, name)
        for problem in read_labels(dataset).problems + dataset.remarks():
            print(f"{name}: {problem}", flush=True)
    base = helpers.resolve_backbone(base)  # once, so that all run on the same one
    print(f"backbone {base.backbone}; {', '.join(names)}", flush=True)
    runs = [replace(base, category=name) for name in names]
    folders = [settings.output for settings in runs]
    for folder in folders:
        check_writable(folder)
    for folder in (cache_folder(), base.output.parent, *folders):
        sweep(folder)
    jobs, notebooks = min(jobs, len(runs)), [LIMITS] * limits + NOTEBOOKS
    one_by_one = jobs == 1 and scheduler is None
    with (
        side_by_side(jobs, scheduler) as parallel,
        lanes(get_num_threads()) if one_by_one else nullcontext() as kernels,
    ):
        job = joblib.delayed(work)
        parallel(job(settings, pdf, kernels, notebooks) for settings in runs)
    if len(runs) > 1:
        export_report(folders, base.output.parent, base.lang, pdf)
    reports = base.output.parent if len(runs) > 1 else folders[0]
    print(f"report: {reports / 'report.html'}")
    for folder in folders:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        print(summary(metrics))


def summary(metrics):
    """The last line of a category."""
    if metrics["auroc"] is None:
        return f"{metrics['category']}: AUROC not defined, one class or no labels"
    low, high = metrics["auroc_ci95"]
    return (
        f"{metrics['category']}: AUROC {metrics['auroc']:.4f} [{low:.4f}, {high:.4f}]"
    )


def main(argv=None):
    """Run, and turn what goes wrong into one line, a log file and an exit status."""
    log = None
    try:
        parameters, options = parse(sys.argv[1:] if argv is None else argv)
        base = Settings(**parameters)
        names = [base.category]
        if "category" not in parameters:
            names = categories(base.data)
        if not names:
            raise InputError(f"{base.data}: no category, a folder with train/good")
        log = base.output.parent / "error.log"
        spread = options.jobs, options.dask
        run(base, names, not options.no_pdf, *spread, options.limits)
        log.unlink(missing_ok=True)
        return 0
    except KeyboardInterrupt:
        message, status = "interrupted; the same command goes on", 130
    except Exception as error:
        message, status = explain(error)
        if log or status == 1:
            log = write_log(log or ROOT / "report" / "error.log")
        if status == 1 and log:
            message = f"{one_line(message)} (details: {log})"
    print(f"error: {one_line(message)}", file=sys.stderr)
    return status


def explain(error):
    """An exception as (message, exit status)."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, PapermillExecutionError):  # what happened in the notebook
        name, text = error.ename, error.evalue
    return (text, 2) if name == "InputError" else (f"{name}: {text}", 1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
