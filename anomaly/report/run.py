"""Notebooks executed by papermill, on few kernels, and categories side by side."""

import asyncio
import logging
import os
import site
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import joblib
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbformat import read, writes

from anomaly.errors import InputError
from anomaly.files import ROOT, stamp, write_file
from anomaly.names import nfc
from anomaly.report.translation import translated

NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[1-7]_*.ipynb"))
LIMITS = ROOT / "notebooks" / "08_limits.ipynb"  # where it is asked for
FIRST = ("08", "05", "03", "04", "01", "02")  # side by side, the longest first
LAST = ("06", "07")  # they tell what 5 and 8 have found
INJECTED = "injected-parameters"  # papermill's tag
DASK_SECONDS = 10  # within which the scheduler has to answer


@contextmanager
def shared_kernel(threads=None):
    """A kernel for several notebooks, since its start and imports take seconds."""
    manager = AsyncKernelManager(kernel_name="python3")  # papermill starts it
    if threads:
        manager.kernel_spec.env["OMP_NUM_THREADS"] = str(threads)
    try:
        yield manager
    finally:
        stop(manager)


def stop(manager):
    if manager.has_kernel:
        run_sync(manager.shutdown_kernel)(now=True)


@contextmanager
def lanes(cores):
    """[(thread, kernel)], two where there are two cores, for notebooks side by side.

    The kernels share the cores. Each stays with its thread, whose loop it knows.
    """
    count = min(2, cores)
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            manager = stack.enter_context(shared_kernel(cores // count))
            thread = stack.enter_context(ThreadPoolExecutor(1))
            stack.callback(thread.submit, stop, manager)
            found.append((thread, manager))
        yield found


def side_by_side_in(found, work, notebooks):
    """work(notebook, kernel) of each, one a lane at a time; the first error ends all."""
    todo = iter(notebooks)
    jobs = [
        thread.submit(lambda kernel: [work(path, kernel) for path in todo], manager)
        for thread, manager in found
    ]
    try:
        for job in as_completed(jobs):
            job.result()
    except BaseException:  # Ctrl-C, too
        logging.getLogger("papermill").setLevel(logging.CRITICAL)  # of dead kernels
        while wait(jobs, timeout=0.1).not_done:
            for _, manager in found:
                if manager.has_kernel:
                    manager.provisioner.process.kill()
        raise


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
    source = read(notebook, as_version=4)
    if parameters.get("lang") == "zh":
        translated(source.cells, notebook)
    executed = papermill.execute_notebook(
        source,
        None,
        parameters,
        kernel_name="python3",
        cwd=notebook.parent,
        progress_bar=False,
        km=manager,
        extra_arguments=["--log-level=CRITICAL"],  # no warnings of the kernel's own
    )
    write_file(target, writes(timeless(executed)).encode())


def timeless(executed):
    """The executed notebook without clock and machine: the same run, the same bytes."""
    executed.metadata.pop("papermill", None)
    executed.metadata.get("language_info", {}).pop("version", None)
    for cell in executed.cells:
        for volatile in ("papermill", "execution"):
            cell.metadata.pop(volatile, None)
        if INJECTED in cell.metadata.get("tags", []):
            cell.id = INJECTED  # else drawn anew in each run
            cell.metadata["jupyter"] = {"source_hidden": True}
    return executed


@contextmanager
def without_leftovers(out, stems):
    """Remove what an earlier run wrote of test images, and the block did not.

    Heat maps of images that are there no more, by the `stems` of those that are; and
    the summary, which is not drawn without labels.
    """
    summary = out / "summary" / "performance_summary.png"
    before = stamp(summary) if summary.exists() else None
    yield
    if before and stamp(summary) == before:
        summary.unlink()
    there = set(map(nfc, stems))
    for path in (out / "heatmaps").glob("heatmap_*.png"):
        if nfc(path.stem.removeprefix("heatmap_")) not in there:
            path.unlink()


def timed(category, what, function, *arguments):
    """Call, and print a line of progress with the seconds that it took."""
    start = time.perf_counter()
    function(*arguments)
    print(f"{category}: {what:<24}{time.perf_counter() - start:7.1f} s", flush=True)


@contextmanager
def side_by_side(jobs, scheduler):
    """A joblib.Parallel of processes here, or of a cluster that sees the same files.

    The processes share the cores: joblib gives each cores // jobs threads. Raises
    InputError where no scheduler answers.
    """
    if scheduler is None:
        yield joblib.Parallel(n_jobs=jobs)
        return
    with connected(scheduler) as client:
        client.run(site.addsitedir, str(ROOT))  # for workers of another environment
        with joblib.parallel_config(backend="dask", client=client):
            yield joblib.Parallel(n_jobs=-1)


def connected(scheduler):
    """A client of a Dask cluster; InputError where there is none."""
    try:
        from distributed import Client, Security
        from distributed.comm import connect
    except ImportError as error:
        remedy = "pip install distributed"
        raise InputError(f"--dask needs a package: {remedy}") from error

    async def reach():  # Client itself waits for ever where nobody speaks
        async with asyncio.timeout(DASK_SECONDS):
            arguments = Security().get_connection_args("client")
            (await connect(scheduler, **arguments)).abort()

    try:
        asyncio.run(reach())
        return Client(scheduler, timeout=DASK_SECONDS)
    except Exception as error:  # what is no scheduler may answer anything
        raise InputError(
            f"--dask {scheduler}: no scheduler answers there within {DASK_SECONDS} s"
        ) from error


def check_writable(folder):
    """InputError now rather than after the minutes that the features take."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"visualization_dir: {folder} cannot be written ({error.strerror}); "
            "choose another folder"
        ) from error


def write_log(path):
    """Write the traceback, elsewhere if not there; its path, None on a full disk."""
    text = traceback.format_exc().encode("utf-8", "backslashreplace")
    name = f"image-anomaly-{os.getpid()}.log"
    for place in (path, Path(tempfile.gettempdir()) / name):
        with suppress(InputError):
            write_file(place, text)
            return place
    return None
