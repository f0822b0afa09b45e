"""Run the notebooks of one or all categories and export their reports.

    python main.py                                   every category of the data set
    python main.py -p category zipper -p lang zh     papermill's own -p name value

The runner holds no method. `helpers` computes, with a progress bar, what the notebooks
then find in the stage cache; papermill executes the notebooks into report/{category}/;
`export` makes HTML and PDF of the last one. Exit status: 0 done; 2 an input or a
setting is not valid, named in one line; 130 interrupted; 1 anything else. What failed
is told at length in report/error.log.
"""

import os
import signal
import site
import sys

if __name__ == "__main__":

    def leave(*_):
        os.write(2, b"error: interrupted; the same command goes on\n")
        os._exit(130)

    # for Ctrl-C while the imports run, which take seconds
    signal.signal(signal.SIGINT, leave)

import asyncio
import json
import tempfile
import time
import traceback
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path

import joblib
import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from papermill.exceptions import PapermillExecutionError

import helpers as hp
from export import export_report

# without 07, the explorer, which writes nothing and wants a hand that moves it
NOTEBOOKS = sorted((hp.ROOT / "notebooks").glob("0[1-6]_*.ipynb"))
DASK_SECONDS = 10  # within which the scheduler has to answer


def parse(argv):
    """The command line as (parameters, options)."""
    parser = hp.Parser(
        allow_abbrev=False,
        description="Run the notebooks and export their reports.",
        epilog="parameters: " + ", ".join(field.name for field in fields(hp.Settings)),
    )
    parser.add_argument("--no-pdf", action="store_true", help="HTML only")
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
    return hp.typed(options.parameters), options


@contextmanager
def shared_kernel():
    """A kernel for several notebooks, since its start and imports take seconds."""
    manager = AsyncKernelManager(kernel_name="python3")  # papermill starts it
    try:
        yield manager
    finally:
        if manager.has_kernel:
            run_sync(manager.shutdown_kernel)(now=True)


async def forget(manager):
    """Empty the kernel: a notebook sees nothing of the one before it."""
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        await client.execute("get_ipython().reset()", silent=True, reply=True)
    finally:
        client.stop_channels()


def execute(notebook, target, parameters, manager):
    """Run one notebook into `target`, which is replaced only by a whole one."""
    if manager.has_kernel:
        run_sync(forget)(manager)
    executed = papermill.execute_notebook(
        notebook,
        None,
        parameters,
        kernel_name="python3",
        cwd=notebook.parent,
        progress_bar=False,
        km=manager,
        extra_arguments=[
            "--log-level=CRITICAL"
        ],  # of the kernel: no warnings of its own
    )
    hp.write_file(target, nbformat.writes(executed).encode())


def timed(category, what, function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    print(f"{category}: {what:<24}{time.perf_counter() - start:7.1f} s", flush=True)


def compute(settings):
    """Fill the stage cache for one category."""
    timed(settings.category, "features and scores", hp.detect, settings)


def tell(settings, pdf, manager=None):
    """Execute every notebook and export the report of one category."""
    name, parameters, out = settings.category, asdict(settings), settings.output
    with nullcontext(manager) if manager else shared_kernel() as manager:
        for notebook in NOTEBOOKS:
            target = out / notebook.name
            timed(name, notebook.stem, execute, notebook, target, parameters, manager)
    timed(name, "report", export_report, [out], out, settings.lang, pdf)


@contextmanager
def side_by_side(jobs, scheduler):
    """A joblib.Parallel of processes here, or of a cluster that sees the same files.

    The processes share the cores: joblib gives each cores // jobs threads.
    """
    if scheduler is None:
        yield joblib.Parallel(n_jobs=jobs)
        return
    try:
        from distributed import Client, Security
        from distributed.comm import connect
    except ImportError as error:
        remedy = "pip install distributed"
        raise hp.InputError(f"--dask needs a package: {remedy}") from error

    async def reach():  # Client itself waits for ever where nobody speaks
        async with asyncio.timeout(DASK_SECONDS):
            arguments = Security().get_connection_args("client")
            (await connect(scheduler, **arguments)).abort()

    try:
        asyncio.run(reach())
        client = Client(scheduler, timeout=DASK_SECONDS)
    except Exception as error:  # what is no scheduler may answer anything
        raise hp.InputError(
            f"--dask {scheduler}: no scheduler answers there within {DASK_SECONDS} s"
        ) from error
    with client:
        client.run(site.addsitedir, str(hp.ROOT))  # where workers find the helpers
        with joblib.parallel_config(backend="dask", client=client):
            yield joblib.Parallel(n_jobs=-1)


def run(base, names, pdf, jobs=1, scheduler=None):
    """Everything; the last lines sum up each category."""
    for name in names:  # what is wrong with the input is said before anything is run
        hp.read_labels(hp.load_dataset(base.data, name))
    base = hp.resolve_backbone(base)  # once, so that all run on the same one
    print(f"backbone {base.backbone}; {', '.join(names)}", flush=True)
    runs = [replace(base, category=name) for name in names]
    folders = [settings.output for settings in runs]
    for folder in folders:
        check_writable(folder)
    for folder in (hp.cache_folder(), base.output.parent, *folders):
        hp.sweep(folder)
    jobs = min(jobs, len(runs))
    one_by_one = jobs == 1 and scheduler is None
    with (
        side_by_side(jobs, scheduler) as parallel,
        shared_kernel() if one_by_one else nullcontext() as manager,
    ):
        # in two rounds, since notebook 3 compares the categories that have features
        parallel(joblib.delayed(compute)(settings) for settings in runs)
        parallel(joblib.delayed(tell)(settings, pdf, manager) for settings in runs)
    if len(runs) > 1:
        export_report(folders, base.output.parent, base.lang, pdf)
    reports = base.output.parent if len(runs) > 1 else folders[0]
    print(f"report: {reports / 'report.html'}")
    for folder in folders:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        print(summary(metrics))


def check_writable(folder):
    """InputError now rather than after the minutes that the features take."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise hp.InputError(
            f"visualization_dir: {folder} cannot be written ({error.strerror}); "
            "choose another folder"
        ) from error


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
        base = hp.Settings(**parameters)
        names = [base.category]
        if "category" not in parameters:
            names = hp.categories(base.data)
        if not names:
            raise hp.InputError(f"{base.data}: no category, a folder with train/good")
        log = base.output.parent / "error.log"
        run(base, names, not options.no_pdf, options.jobs, options.dask)
        log.unlink(missing_ok=True)
        return 0
    except KeyboardInterrupt:
        message, status = "interrupted; the same command goes on", 130
    except Exception as error:
        message, status = explain(error)
        if log or status == 1:
            log = write_log(log or hp.ROOT / "report" / "error.log")
        if status == 1 and log:
            message = f"{hp.one_line(message)} (details: {log})"
    print(f"error: {hp.one_line(message)}", file=sys.stderr)
    return status


def explain(error):
    """An exception as (message, exit status)."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, PapermillExecutionError):  # what happened in the notebook
        name, text = error.ename, error.evalue
    return (text, 2) if name == "InputError" else (f"{name}: {text}", 1)


def write_log(path):
    """Write the traceback, elsewhere if not there; its path, None on a full disk."""
    text = traceback.format_exc().encode("utf-8", "backslashreplace")
    name = f"image-anomaly-{os.getpid()}.log"
    for place in (path, Path(tempfile.gettempdir()) / name):
        with suppress(hp.InputError):
            hp.write_file(place, text)
            return place
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
