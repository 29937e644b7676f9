"""``python -m benchmarks.vram --data DIR``: the table of errors, ours and the peer's."""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.vram import measured, peers
from benchmarks.vram.cases import Case, load
from benchmarks.vram.score import Pair, Score, score
from labctl.vram.footprint import Footprint
from labctl.vram.llama_cpp import estimate

Scores = dict[str, dict[str, Score]]
"""Group → estimator → score."""


def ours(cases: Sequence[Case]) -> list[int]:
    """Our bytes for each case; one estimate serves all devices of a server."""
    known: dict[tuple[int, object], Footprint] = {}
    found = []
    for case in cases:
        key = (id(case.facts), case.settings)
        if key not in known:
            known[key] = estimate(case.facts, case.settings)
        footprint = known[key]
        found.append(footprint.host if case.device < 0 else footprint.devices[case.device].total)
    return found


def scores(cases: Sequence[Case], estimators: dict[str, Sequence[int | None]]) -> Scores:
    """Scores by group and estimator."""
    pairs: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for name, values in estimators.items():
        for case, value in zip(cases, values, strict=True):
            if value is not None:
                pairs[case.group][name].append((value, case.truth))
    return {group: {name: score(found) for name, found in by.items()} for group, by in pairs.items()}


def table(found: Scores) -> list[str]:
    """The scores as lines of text."""
    heading = f"{'group':34} {'estimator':24} {'rows':>5} {'median %':>9} {'p95 %':>8} {'max %':>8} {'max MiB':>8}"
    lines = [f"{heading} {'false fits %':>13} {'false refusals %':>17}"]
    for group, by in sorted(found.items()):
        for name, s in by.items():
            lines.append(
                f"{group:34} {name:24} {s.rows:5} {s.median:9.4f} {s.p95:8.3f} {s.worst:8.3f} "
                f"{s.worst_bytes / 2**20:8.2f} {s.false_fits:13.2f} {s.false_refusals:17.2f}"
            )
    return lines


def peer_estimates(cases: Sequence[Case]) -> Sequence[int | None]:
    """The peer's answers for cases on one GPU; None elsewhere."""
    single = [case for case in cases if case.device == 0 and case.settings.devices == 1]
    answers = iter(peers.estimates(single))
    return [next(answers) if case.device == 0 and case.settings.devices == 1 else None for case in cases]


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vram", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of truth rows, laid out as tests/data/vram")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    parser.add_argument("--limit", type=int, default=0, help="take at most N rows, evenly spread")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="run gguf-parser-go too")
    return parser.parse_args()


def main() -> None:
    """Estimate every case and print how far off it was."""
    chosen = arguments()
    cases = load(chosen.data)
    if chosen.limit and len(cases) > chosen.limit:
        cases = [cases[i * len(cases) // chosen.limit] for i in range(chosen.limit)]
    start = time.perf_counter()
    estimators: dict[str, Sequence[int | None]] = {"labctl": ours(cases)}
    seconds = time.perf_counter() - start
    remark = ""
    if chosen.peer:
        try:
            estimators[peers.NAME] = peer_estimates(cases)
        except peers.MissingPeerError as error:
            remark = f"{peers.NAME} is missing from this table: {error}"
    found = scores(cases, estimators)
    logs = measured.compare(chosen.data)
    if chosen.json:
        groups = {group: {name: asdict(s) for name, s in by.items()} for group, by in found.items()}
        print(json.dumps({"groups": groups, "measured": logs, "seconds": seconds, "remark": remark}, indent=2))
        return
    print("\n".join([*table(found), "", *(measured.lines(logs)), ""]))
    print(f"{len(cases)} rows in {seconds:.1f} s: {seconds / max(len(cases), 1) * 1000:.1f} ms each. {remark}".rstrip())


if __name__ == "__main__":
    main()
