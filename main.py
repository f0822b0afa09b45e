"""Run the notebooks of one or all categories and export their reports.

    python main.py                                   every category of the data set
    python main.py -p category zipper -p lang zh     papermill's own -p name value

The runner holds no method. `helpers` computes, with a progress bar, what the notebooks
then find in the stage cache; papermill executes the notebooks into report/{category}/;
`export` makes HTML and PDF of the last one. Exit status: 0 done; 2 an input or a
setting is not valid, named in one line; 130 interrupted; 1 anything else.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path

import joblib
import papermill

import export
import helpers as hp

NOTEBOOKS = sorted((hp.ROOT / "notebooks").glob("0?_*.ipynb"))
PARAMETERS = {field.name: field for field in fields(hp.Settings)}


def parse(argv):
    """The command line as (parameters, options)."""
    parser = argparse.ArgumentParser(
        description="Run the notebooks and export their reports.",
        epilog="parameters: " + ", ".join(PARAMETERS),
    )
    parser.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebooks",
    )
    parser.add_argument("--no-pdf", action="store_true", help="HTML only")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="categories that run side by side",
    )
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: 1 or more is needed")
    return dict(typed(name, text) for name, text in options.parameters), options


def typed(name, text):
    """A parameter's value from its text; InputError for an unknown name."""
    if name not in PARAMETERS:
        raise hp.InputError(
            f"unknown parameter {name!r}: valid are {', '.join(PARAMETERS)}"
        )
    if PARAMETERS[name].type is str:
        return name, text
    for number in (int, float):
        try:
            return name, number(text)
        except ValueError:
            continue
    return name, text  # Settings says what is wrong with it


def execute(notebook, target, parameters):
    """Run one notebook into `target`, which is replaced only by a whole one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".run-", dir=target.parent) as folder:
        part = Path(folder) / target.name
        papermill.execute_notebook(
            notebook,
            part,
            parameters,
            kernel_name="python3",
            cwd=notebook.parent,
            progress_bar=False,
        )
        os.replace(part, target)


def run_category(parameters, pdf):
    """Everything for one category."""
    settings = hp.Settings(**parameters)
    name, clock = settings.category, time.perf_counter

    def step(what, function, *arguments, **options):
        start = clock()
        function(*arguments, **options)
        print(f"{name}: {what:<24} {clock() - start:6.1f} s", flush=True)

    step("features and scores", hp.detect, settings)
    for notebook in NOTEBOOKS:
        target = settings.output / notebook.name
        step(notebook.stem, execute, notebook, target, parameters)
    report = [settings.output / NOTEBOOKS[-1].name]
    step("report", export, report, settings.output, settings.lang, pdf)


def run(argv):
    parameters, options = parse(argv)
    base = hp.Settings(**parameters)
    names = [base.category] if "category" in parameters else hp.categories(base.data)
    if not names:
        raise hp.InputError(f"{base.data}: no category here, a folder with train/good")
    for name in names:
        hp.read_labels(hp.load_dataset(base.data, name))  # refuse early; not used
    # found out once, so that all categories run on the same backbone
    parameters["backbone"] = hp.resolve_backbone(base).backbone
    print(f"backbone {parameters['backbone']}, categories: {', '.join(names)}")
    runs = [
        replace(base, category=name, backbone=parameters["backbone"]) for name in names
    ]
    joblib.Parallel(n_jobs=min(options.jobs, len(names)))(
        joblib.delayed(run_category)(asdict(settings), not options.no_pdf)
        for settings in runs
    )
    outputs = [settings.output for settings in runs]
    if len(names) > 1:
        reports = [output / NOTEBOOKS[-1].name for output in outputs]
        export(
            reports,
            base.output.parent,
            base.lang,
            not options.no_pdf,
            front=comparison(outputs),
        )
    for output in outputs:
        metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
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
    try:
        run(sys.argv[1:] if argv is None else argv)
        return 0
    except hp.InputError as error:
        message, status = str(error), 2
    except PapermillExecutionError as error:
        message, status = error.evalue, 2 if error.ename == "InputError" else 1
    except KeyboardInterrupt:
        message, status = "interrupted; the same command goes on from here", 130
    except Exception as error:
        message, status = f"{type(error).__name__}: {error}", 1
    log = Path(tempfile.gettempdir()) / "image_anomaly.log"
    log.write_text(traceback.format_exc(), encoding="utf-8")
    print(f"error: {hp.one_line(message)} (details: {log})", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
