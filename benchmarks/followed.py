"""How far a learned reward was followed when it was lost, and how well a probe projects that.

    python -m benchmarks.followed --db FILE [--db FILE …]

Of the runs of the workload ``preference`` in some archives: how many were unsafe by the √KL to the
start where they ended, for every reward model; √KL at the onset of collapse; and the rate at which
half of the runs of a setting were unsafe over that at which its probes project √KL to its level.
docs/validation.md shows what it printed.
"""

import argparse
import math
import statistics
from collections import defaultdict
from contextlib import closing
from itertools import pairwise

from advisor.experiments.followed import evidence, joined, misses
from advisor.safe_levels import safe_levels
from storage.store import Store

BINS = (0.0, 0.5, 0.66, math.inf)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--db", action="append", required=True, metavar="FILE")
    parts = []
    for db in parser.parse_args().db:
        with closing(Store.open(db, create=False)) as store:
            parts.append(evidence(store))
    known = joined(parts)
    runs, missed = known.runs, misses(known, safe_levels().sqrt_kl)
    print("| √KL at the end | unsafe |\n|---|---|")
    for low, high in pairwise(BINS):
        inside = [each.unsafe for each in runs if low <= each.at_end < high]
        print(f"| {low:g} … {high:g} | {sum(inside)} of {len(inside)} |")
    print("\n| annotator | runs, unsafe | largest safe | smallest unsafe |\n|---|---|---|---|")
    by_annotator = defaultdict(list)
    for each in runs:
        by_annotator[each.config.annotator_seed].append(each)
    for annotator, own in sorted(by_annotator.items()):
        safe = max((each.at_end for each in own if not each.unsafe), default=math.nan)
        lost = min((each.at_end for each in own if each.unsafe), default=math.nan)
        count = sum(each.unsafe for each in own)
        print(f"| {annotator} | {len(own)}, {count} | {safe:.2f} | {lost:.2f} |")
    onsets = [each.at_onset for each in runs if each.at_onset is not None]
    if onsets:
        print(f"\n{len(onsets)} collapses, at √KL = {statistics.median(onsets):.2f} (median)")
    if len(missed) > 1:
        middle, spread = math.exp(statistics.fmean(missed)), statistics.stdev(missed)
        print(f"edge over projected, {len(missed)} probes: {middle:.2f}, spread {spread:.2f}")


if __name__ == "__main__":
    main()
