"""``python -m benchmarks.vram --data DIR``: the table of errors, ours and the peer's."""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.vram import measured, peers, vllm
from benchmarks.vram.aims import FALSE_REFUSALS, aim_of, verdict
from benchmarks.vram.cases import Case, Skipped, read
from benchmarks.vram.score import Pair, Score, score
from labctl.vram.footprint import Footprint
from labctl.vram.llama_cpp import estimate

Scores = dict[str, dict[str, Score]]
"""Group → estimator → score."""
AIMS = f"All groups with an aim: false fits none, false refusals ≤ {FALSE_REFUSALS} %."


def ours(cases: Sequence[Case]) -> list[int]:
    """Our bytes for each case; one estimate serves all devices of a server."""
    estimated = Estimator()
    return [estimated(case) for case in cases]


def attempts(cases: Sequence[Case], skipped: Skipped) -> list[int | None]:
    """Our bytes for each case; None where there is no estimate, which is counted in ``skipped``."""
    estimated = Estimator()
    found: list[int | None] = []
    with seldom_collecting():
        for case in cases:
            try:
                found.append(estimated(case))
            except (ValueError, LookupError, ArithmeticError, TypeError) as error:
                skipped[f"{case.model}: no estimate: {type(error).__name__}: {error}"] += 1
                found.append(None)
    return found


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Look for garbage in cycles seldom: the graphs that are replayed are many small objects and soon gone."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class Estimator:
    """Estimates of servers, each worked out once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, object], Footprint] = {}

    def __call__(self, case: Case) -> int:
        """Return our bytes on the case's device."""
        key = (id(case.facts), case.settings)
        if key not in self._known:
            self._known[key] = estimate(case.facts, case.settings)
        footprint = self._known[key]
        return footprint.host if case.device < 0 else footprint.devices[case.device].total


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
    lines = [f"{heading} {'false fits %':>13} {'false refusals %':>17}  {'aim: median / p95 / max %':26} met"]
    for group, by in sorted(found.items()):
        aim = aim_of(group)
        for name, s in by.items():
            lines.append(
                f"{group:34} {name:24} {s.rows:5} {s.median:9.4f} {s.p95:8.3f} {s.worst:8.3f} "
                f"{s.worst_bytes / 2**20:8.2f} {s.false_fits:13.2f} {s.false_refusals:17.2f}  "
                f"{aim or '–'!s:26} {verdict(aim.met(s) if aim else None)}"
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
    cases, skipped = read(chosen.data)
    if chosen.limit and len(cases) > chosen.limit:
        cases = [cases[i * len(cases) // chosen.limit] for i in range(chosen.limit)]
    start, start_cpu = time.perf_counter(), time.process_time()
    estimators: dict[str, Sequence[int | None]] = {"labctl": attempts(cases, skipped)}
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    remark = ""
    if chosen.peer:
        try:
            estimators[peers.NAME] = peer_estimates(cases)
        except peers.MissingPeerError as error:
            remark = f"{peers.NAME} is missing from this table: {error}"
    found = scores(cases, estimators)
    logs = measured.compare(chosen.data)
    servers = vllm.compare(chosen.data)
    if chosen.json:
        print(json.dumps(document(found, logs, servers, skipped) | {"seconds": seconds, "remark": remark}, indent=2))
        return
    left_out = [f"skipped: {reason} ({rows} rows)" for reason, rows in skipped.items()]
    print("\n".join([*table(found), AIMS, *left_out, "", *measured.lines(logs), "", *vllm.lines(servers), ""]))
    each = seconds / max(len(cases), 1) * 1000
    print(f"{len(cases)} rows in {seconds:.1f} s ({cpu:.1f} s of CPU): {each:.1f} ms each. {remark}".rstrip())


def document(found: Scores, logs: list[measured.Log], servers: vllm.Comparison, skipped: Skipped) -> dict[str, object]:
    """All figures as JSON has them."""
    return {
        "groups": {group: {name: asdict(s) for name, s in by.items()} for group, by in found.items()},
        "aims": {
            group: {"aim": asdict(aim), "met": {name: aim.met(s) for name, s in by.items()}}
            for group, by in found.items()
            if (aim := aim_of(group))
        },
        "skipped": dict(skipped),
        "measured": logs,
        "vllm": {
            "parts": [asdict(part) for part in servers.parts],
            "summary": asdict(servers.summary),
            "skipped": [asdict(skip) for skip in servers.skipped],
        },
    }


if __name__ == "__main__":
    main()
