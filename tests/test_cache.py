"""The key of a stage: the same in every process, so that the next one finds it."""

import subprocess
import sys

from anomaly.cache import code
from anomaly.files import ROOT


def test_the_code_is_the_same_in_another_process():
    script = "from anomaly.cache import code; print(code())"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(code())
