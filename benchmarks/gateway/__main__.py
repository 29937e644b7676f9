"""``python -m benchmarks.gateway``: the built-in gateway against a direct connection and others of its kind.

Beside it, in the same run and in front of the same real llama.cpp servers: a bare pass-through (``bare.py``),
llama-swap (on PATH or at ``$LLAMA_SWAP``) and LiteLLM (the installed one). What is missing is said and left out. Ways
are measured by turns, so that a machine that is busy for a while slows all of them; figures of one run can be compared,
and those of a busy machine with nothing else. CPU is what the gateway's own process worked for one request.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from benchmarks.gateway import load, ways
from benchmarks.gateway.swaps import memory, swapping
from benchmarks.gateway.ways import Way
from tests.swap.bench import Bench, bench

CLIENTS: Final = (1, 16, 64)
AIM_ADDED_MS: Final = 1.0
AIM_OVER_LLAMA_SWAP: Final = 1.5
AIM_UNDER_LITELLM: Final = 10.0
AIM_WAITING_MB: Final = 150


@dataclass
class Figures:
    """What was measured of one way: by number of clients, and of streams."""

    loads: dict[int, load.Taken] = field(default_factory=dict)
    streams: load.Taken = field(default_factory=load.Taken)
    cpu: list[float] = field(default_factory=list)

    def p(self, clients: int, share: float) -> float:
        """Return the milliseconds within which so large a share of requests was answered."""
        ordered = sorted(self.loads[clients].each)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def rate(self, clients: int) -> float:
        """Return requests per second."""
        return len(self.loads[clients].each) / self.loads[clients].seconds

    @property
    def first(self) -> float:
        """Return the milliseconds until a stream's first piece."""
        return median(self.streams.first)


@contextmanager
def _all(it: Bench) -> Iterator[list[Way]]:
    """Start every way; LiteLLM first, which takes longest."""
    with ExitStack() as stack:
        started: list[Way] = []
        if (proxy := ways.litellm(it)) is not None:
            started.append(stack.enter_context(ways.launched("LiteLLM", *proxy)))
        started.append(stack.enter_context(ways.launched("bare pass-through", *ways.bare(it), {})))
        if (other := ways.llama_swap(it, start=False)) is not None:
            started.append(stack.enter_context(ways.launched("llama-swap", *other, {})))
        process = it.gateway(it.config(queue=2000))
        started += [Way("labctl", it.url, process), Way("direct", it.server_url(it.names[0]))]
        there = [way for way in reversed(started) if ways.answers(way, it.names[0])]
        yield there
        for name in sorted({"LiteLLM", "llama-swap"} - {way.name for way in there}):
            print(f"skipped: {name} is not installed, or does not start")


def measure(it: Bench, rounds: int, seconds: float, streams: int) -> dict[str, Figures]:
    """Measure every way to the first server, by turns."""
    name = it.names[0]
    with _all(it) as found:
        figures = {way.name: Figures(loads={c: load.Taken() for c in CLIENTS}) for way in found}
        for number in range(rounds + 1):  # the first one warms up
            for way in found:
                one = figures[way.name] if number else Figures(loads={c: load.Taken() for c in CLIENTS})
                _round(way, one, name, seconds if number else seconds / 4, streams)
    return figures


def _round(way: Way, figures: Figures, model: str, seconds: float, streams: int) -> None:
    for clients in CLIENTS:
        before = way.cpu()
        taken = load.run(load.load(way.url, model, clients, seconds))
        if clients == 1:
            figures.cpu.append((way.cpu() - before) / len(taken.each) * 1000)
        _add(figures.loads[clients], taken)
    _add(figures.streams, load.run(load.streams(way.url, model, streams)))


def _add(to: load.Taken, more: load.Taken) -> None:
    to.each += more.each
    to.first += more.first
    to.seconds += more.seconds


def _table(found: Mapping[str, Figures]) -> None:
    print(f"{'':18}" + "".join(f"{f'{c} clients: p50, p99 ms; req/s':>32}" for c in CLIENTS) + "  first token     CPU")
    for name, figures in found.items():
        cells = (f"{figures.p(c, 0.5):9.2f} {figures.p(c, 0.99):8.2f}; {figures.rate(c):6.0f}" for c in CLIENTS)
        cpu = f"{min(figures.cpu):5.2f} ms" if name != "direct" else ""
        print(f"{name:18}" + "".join(f"{cell:>32}" for cell in cells) + f"{figures.first:10.2f} ms  {cpu}")


def _added(found: Mapping[str, Figures]) -> None:
    direct, others = found["direct"], {n: f for n, f in found.items() if n != "direct"}
    added = {name: figures.p(1, 0.5) - direct.p(1, 0.5) for name, figures in others.items()}
    first = {name: figures.first - direct.first for name, figures in others.items()}
    print("\nadded to a direct connection at p50 with one client, and to the first token of a stream:")
    for name in others:
        ratio = "" if name == "labctl" else f"   labctl adds {added['labctl'] / added[name]:.2f}x and "
        ratio += "" if name == "labctl" else f"{first['labctl'] / first[name]:.2f}x of that"
        print(f"  {name:18} {added[name]:6.2f} ms {first[name]:6.2f} ms{ratio}")
    _verdict(f"≤ {AIM_ADDED_MS} ms", met=added["labctl"] <= AIM_ADDED_MS)
    if "llama-swap" in added:
        _verdict("≤ 1.5x of llama-swap", met=added["labctl"] <= AIM_OVER_LLAMA_SWAP * added["llama-swap"])
    if "LiteLLM" in added:
        _verdict("≤ a tenth of LiteLLM", met=AIM_UNDER_LITELLM * added["labctl"] <= added["LiteLLM"])


def _verdict(aim: str, *, met: bool) -> None:
    print(f"  aim: {aim}: {'met' if met else 'missed'}")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute in all, for a rough picture")
    quick, begun = parser.parse_args().quick, time.monotonic()
    many = {"ant": "exec {server} --threads-http 300"}  # each kept connection of each way takes one for five seconds
    with bench(["ant", "bee"], autostart=["ant"], commands=many) as it:
        found = measure(it, *((2, 0.3, 8) if quick else (6, 2.0, 30)))
    _table(found)
    _added(found)
    swapping(*((4, 8, 2) if quick else (20, 8, 6)))
    memory(1000, AIM_WAITING_MB)
    print(f"\n{time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
