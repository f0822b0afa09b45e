"""Render the bundled sample data: hazelnuts and zippers, good and defective.

    python tools/make_sample_data.py                        the committed data set
    python tools/make_sample_data.py --out /tmp/tiny --image-size 64 --train-good 4 \\
        --train-bad 1 --test-good 2 --test-bad 1            a tiny one, for tests

Every picture is drawn from a seed by the formulas in sample_data/; no photograph is
involved. A hazelnut is a solid of revolution, ray-traced and lit, with a texture in
(longitude, colatitude); a zipper is a woven tape with two coils of shaded capsules.

A bad picture has a good twin: the same scene without its defect. Its mask is where the
two differ visibly, so masks are exact by construction. Layout and labels follow the
README's data contract. Same seed, same options: same files.
"""

import argparse
import signal
import sys
from dataclasses import fields
from pathlib import Path

from anomaly.errors import InputError
from anomaly.files import ROOT
from sample_data.dataset import make
from sample_data.picture import CATEGORIES
from sample_data.plan import Plan


def main(argv=None):
    """Exit status: 0 done, 2 bad options or files (one line on stderr)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="default: project root")
    parser.add_argument("--category", choices=CATEGORIES, help="default: both")
    for field in fields(Plan):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=int, default=field.default)
    args = vars(parser.parse_args(argv))
    one = args.pop("category")
    # A killed run cleans up behind itself, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        made = make(args.pop("out"), [one] if one else CATEGORIES, **args)
    except (InputError, OSError) as error:
        print(f"make_sample_data: {error}", file=sys.stderr)
        return 2
    bad = sum(entry["label"] == "bad" for entry in made.values())
    print(
        f"{len(made) - bad} good and {bad} bad test images, with their training images"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
