"""What swapping costs: how long one takes over the server's own start, and how many a mixed load makes."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from collections.abc import Callable

import httpx

from benchmarks.gateway import load, ways
from tests.swap.bench import GIB, Bench, bench


def _answer(url: str, model: str) -> float:
    """Return the seconds until a model has answered."""
    begun = time.perf_counter()
    body = {"model": model, **load.BODY}
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120).raise_for_status()
    return time.perf_counter() - begun


def _by_hand(it: Bench, out: str, in_: str) -> float:
    """Return the seconds that stopping one server, starting another and its first answer take without any gateway."""
    begun = time.perf_counter()
    if out in it.running():
        it.call("stopProcess", out, True)  # noqa: FBT003 - supervisor's own: wait
    it.call("startProcess", in_, False)  # noqa: FBT003
    url = it.server_url(in_)
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                break
        except httpx.TransportError:
            pass
        time.sleep(0.005)
    _answer(url, in_)
    return time.perf_counter() - begun


def _times(swap: Callable[[str, str], float], names: tuple[str, ...], rounds: int) -> float:
    """Return the median of so many swaps, to and fro."""
    swap(names[1], names[0])
    turns = [(names[i % 2], names[(i + 1) % 2]) for i in range(rounds)]
    return statistics.median(swap(out, in_) for out, in_ in turns)


def swapping(rounds: int, clients: int, swaps: int) -> None:
    """Two models of which one fits: single swaps, then clients who ask for them in turn."""
    found: dict[str, tuple[float, float, int]] = {}
    with bench(["ant", "bee"]) as it:
        own = _times(lambda out, in_: _by_hand(it, out, in_), it.names, swaps)
        for name in it.running():
            it.call("stopProcess", name, True)  # noqa: FBT003
        it.gateway(it.config(cards={"gpu": 5 * GIB}, queue=2000, patience=20))
        one = _times(lambda _, in_: _answer(it.url, in_), it.names, swaps)
        before = _loads(it)
        found["labctl"] = (one, _mixed(it.url, it, rounds, clients), _loads(it) - before)
    with bench(["ant", "bee"]) as it:
        if (command := ways.llama_swap(it, start=True)) is not None:
            with ways.launched("llama-swap", command[0], command[1], {}) as way:
                ways.answers(way, it.names[0])
                one = _times(lambda _, in_: _answer(way.url, in_), it.names, swaps)
                before = _starts(it)
                found["llama-swap"] = (one, _mixed(way.url, it, rounds, clients), _starts(it) - before)
    print(f"\none model in the place of another, until its first answer ({own:.2f} s by hand, without any gateway):")
    for name, (one, _, _) in found.items():
        print(f"  {name:18} {one:6.2f} s, {one - own:+.2f} s")
    print(f"{clients} clients, {rounds} requests each, two models in turn, one fits:")
    for name, (_, taken, loads) in found.items():
        print(f"  {name:18} {taken:6.2f} s, {loads} swaps")
    if len(found) == 2:
        few = found["labctl"][2] <= found["llama-swap"][2]
        print(f"  aim: no more swaps than llama-swap: {'met' if few else 'missed'}")


def _mixed(url: str, it: Bench, rounds: int, clients: int) -> float:
    begun = time.perf_counter()
    load.run(load.in_turn(url, list(it.names), rounds, clients))
    return time.perf_counter() - begun


def _loads(it: Bench) -> int:
    figures = httpx.get(f"{it.url}/metrics").text.splitlines()
    return int(sum(float(line.split()[-1]) for line in figures if line.startswith("labctl_loads_total{")))


def _starts(it: Bench) -> int:
    return len((it.folder / "starts").read_text().splitlines())


def memory(clients: int, aim: int) -> None:
    """How much the gateway takes while many wait."""
    with bench(["ant"]) as it:
        process = it.gateway(it.config(queue=clients + 10))
        it.ask("ant")
        before, asked = ways.resident(process.pid), _Sampler(process)
        statuses = load.run(_while(asked, it, clients))
        verdict = "met" if asked.most <= aim and set(statuses) == {200} else "missed"
        print(f"\nmemory: {before:.0f} MB at rest, {asked.most:.0f} MB with {clients} clients at once, all answered")
        print(f"  aim: ≤ {aim} MB: {verdict}")


class _Sampler:
    """Looks again and again at how much a process takes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._pid, self.most = process.pid, 0.0

    async def look(self) -> None:
        """Look until cancelled."""
        while True:
            self.most = max(self.most, ways.resident(self._pid))
            await asyncio.sleep(0.05)


async def _while(sampler: _Sampler, it: Bench, clients: int) -> list[int]:
    looking = asyncio.ensure_future(sampler.look())
    try:
        return await load.at_once(it.url, "ant", clients)
    finally:
        looking.cancel()
