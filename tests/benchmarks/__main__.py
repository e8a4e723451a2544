"""`python -m tests.benchmarks`: measures, prints a table and writes JSON. Exit code 1 if a target is missed.

The full-size parts need 5 GB of disk (once), 12 GB of memory and both cores to themselves; `--only start check window`
and the like choose some. Each figure is taken in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.children import ROUNDS, WARM_UP
from tests.benchmarks.families import families
from tests.benchmarks.inspecting import inspecting
from tests.benchmarks.material import NUM_PICTURES, machine, model_file, picture_folder, run_file, warm_file_cache
from tests.benchmarks.tools import tools
from trainer.paths import ROOT

GB = 1e9


@dataclass(frozen=True)
class Figure:
    """A row of the table. `target` is the most that is allowed, None where there is none."""

    name: str
    value: float
    unit: str
    target: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool | None:
        return None if self.target is None else self.value <= self.target


@dataclass
class Bench:
    """Where things are, and on what is measured."""

    folder: Path
    device: str
    home: Path  # a user folder of its own for caches: empty at the start

    def child(self, name: str, *arguments: str | Path) -> dict[str, Any]:
        """What a function of tests.benchmarks.children returns, called in a process of its own."""
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            line = [sys.executable, "-m", "tests.benchmarks.children", name, str(result), *map(str, arguments)]
            done = subprocess.run(
                line, cwd=ROOT, env=self.environment(), capture_output=True, text=True, encoding="utf-8"
            )
            if done.returncode or not result.exists():
                raise SystemExit(f"{name} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
            data: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            return data

    def environment(self) -> dict[str, str]:
        """The user's, but with caches of its own, no screen and no network; modules may be kept compiled, as users have."""
        own = {"ATHANOR_HOME": str(self.home), "QT_QPA_PLATFORM": "offscreen", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
        return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | own

    def run_file(self, name: str, side: int, steps: int, num_pictures: int = NUM_PICTURES) -> Path:
        pictures = picture_folder(self.folder, num_pictures, (256, 256))
        return run_file(
            self.home, name, model_file(self.folder), pictures,
            side=side, steps=steps, device=self.device, runs=self.home / f"runs-{name}",
        )  # fmt: skip


def start(bench: Bench) -> Iterator[Figure]:
    """Process start to the first forward pass, and the peak of memory: caches empty, then filled."""
    run = bench.run_file("start", 256, 3)
    for name in ("cold caches", "warm caches"):
        warm_file_cache(model_file(bench.folder))
        seen = bench.child("training", run)
        assert seen["exit_code"] == 0
        detail = {"phases": seen["phases"], "first forward done": round(seen["ends"], 2)}
        limit = 15.0 if name == "warm caches" else None
        yield Figure(f"start to first forward, {name}", seen["begins"], "s", limit, detail)
        limit = 6.0 if bench.device == "cpu" else None
        yield Figure(f"peak memory of the 256² run, {name}", seen["peak_bytes"] / GB, "GB", limit)
        if seen["peak_vram"]:
            yield Figure(f"peak VRAM of the 256² run, {name}", seen["peak_vram"] / GB, "GB")


def loading(bench: Bench) -> Iterator[Figure]:
    """The peak of loading every part in fp32, over the imports, as a share of the weights."""
    model = model_file(bench.folder)
    warm_file_cache(model)
    seen = bench.child("loading", model, bench.device)
    detail = {"seconds": round(seen["seconds"], 2), "weights_gb": round(seen["weights"] / GB, 3)}
    share = seen["over_imports"] / seen["weights"]
    yield Figure("loading: peak over imports ÷ weights", share, "×", 1.15 if bench.device == "cpu" else None, detail)
    if seen["peak_vram"]:
        yield Figure("loading: peak VRAM ÷ weights", seen["peak_vram"] / seen["weights"], "×", 1.15)


def steps(bench: Bench, side: int) -> Iterator[Figure]:
    """Seconds a step against diffusers + peft, turn by turn."""
    run = bench.run_file(f"steps{side}", side, WARM_UP + ROUNDS + 1, num_pictures=4)
    seen = bench.child("steps", run, bench.device)
    ours, plain = seen["ours"], seen["plain"]
    # Each of our steps against the plain one just before it: what disturbs the machine disturbs both.
    pairs = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
    detail = {"ours": _spread(ours), "plain": _spread(plain), "pairs": _spread(pairs), "threads": seen["threads"]}
    yield Figure(f"a step at {side}²", statistics.median(ours), "s")
    yield Figure(f"a step at {side}², plain diffusers + peft", statistics.median(plain), "s")
    yield Figure(f"a step at {side}² ÷ plain", statistics.median(pairs), "×", 1.0, detail)


def throughput(bench: Bench) -> Iterator[Figure]:
    """Pictures a second through the data's way, the VAE left out."""
    pictures = picture_folder(bench.folder, 96, (1536, 1024), "jpg")
    seen = bench.child("throughput", pictures, "512")
    for name, rate in seen["a_second"].items():
        yield Figure(f"{name} (96 JPEG of 1536×1024, to 512²)", rate, "pictures/s")


def check(bench: Bench) -> Iterator[Figure]:
    """`python -m trainer check` on a good run file, the median of five."""
    run = bench.run_file("check", 256, 10)
    yield _wall("trainer check", bench, ["-m", "trainer", "check", str(run)], 1.5)


def window(bench: Bench) -> Iterator[Figure]:
    """From the start of the process to the window's first paint, offscreen, the median of five."""
    yield _wall("window: start to first paint", bench, ["-m", "app", "--measure-start"], 1.0, first_line=True)


def stretches(bench: Bench) -> Iterator[Figure]:
    """How long a key may have to wait in the window: pages opened, a run file opened, a run of 100,000 steps opened.

    Told as processor time of the window's thread, as the clock would count what other programs take; both are in the
    details. A change of language, theme or scale builds everything anew and is excepted.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "stretches.json"
        line = [sys.executable, "-m", "tests.benchmarks.stretches", str(result)]
        subprocess.run(line, cwd=ROOT, env=bench.environment(), check=True, capture_output=True)
        found: dict[str, dict[str, float]] = json.loads(result.read_text(encoding="utf-8"))
    groups = {
        "first visit": "a page's first visit",
        "opened": "a page opened again",
        "a run of": "100,000 steps opened",
    }
    for start, name in groups.items():
        rows = {key: value for key, value in found.items() if key.startswith(start)}
        worst = max(rows, key=lambda key: rows[key]["work_ms"])
        yield Figure(f"longest stretch: {name}", rows[worst]["work_ms"], "ms", 50.0, {"worst": worst, **rows[worst]})
    others = {key: value for key, value in found.items() if not key.startswith(("language", *groups))}
    for name, row in others.items():
        yield Figure(f"longest stretch: {name}", row["work_ms"], "ms", 50.0, dict(row))


def _wall(name: str, bench: Bench, arguments: list[str], target: float, first_line: bool = False) -> Figure:
    """The median seconds of a command (to its end, or to its first line) over ROUNDS calls, after one to warm up.

    The seconds of processor time (of the whole command) are told as well: on a busy machine they say what the wall
    clock would on a quiet one.
    """
    seconds, processor = [], []
    for _ in range(1 + ROUNDS):
        before = os.times()
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=bench.environment(), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        if first_line:
            assert process.stdout.readline().strip(), f"{name} printed nothing"
            seconds.append(time.perf_counter() - began)
        process.communicate()
        assert process.returncode == 0, f"{name} ended with {process.returncode}"
        if not first_line:
            seconds.append(time.perf_counter() - began)
        after = os.times()
        processor.append(after.children_user - before.children_user + after.children_system - before.children_system)
    detail = {"spread": _spread(seconds[1:]), "processor time": _spread(processor[1:])}
    return Figure(name, statistics.median(seconds[1:]), "s", target, detail)


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


BENCHMARKS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "start": start, "loading": loading, "steps256": partial(steps, side=256), "steps512": partial(steps, side=512),
    "throughput": throughput, "check": check, "window": window, "stretches": stretches, "tools": tools,
    "inspecting": inspecting, "families": families,
}  # fmt: skip


def table_row(figure: Figure) -> str:
    """One line of the table."""
    verdict = {None: "", True: "ok", False: "MISSED"}[figure.passed]
    target = "" if figure.target is None else f"≤ {figure.target:g}"
    return f"{figure.name:<58} {figure.value:>9.3f} {figure.unit:<10} {target:<8} {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    default = Path(tempfile.gettempdir()) / "athanor-benchmarks"
    parser.add_argument("--folder", type=Path, default=default, help="for the model and the pictures; used again")
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--json", type=Path, help="the report (default: report-DEVICE.json in the folder)")
    chosen = parser.parse_args()
    figures: list[Figure] = []
    chosen.folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="athanor-home-") as home:
        bench = Bench(chosen.folder, chosen.device, Path(home))
        compiling = [sys.executable, "-m", "compileall", "-q", "app", "trainer", "captioners"]
        subprocess.run(compiling, cwd=ROOT, env=bench.environment(), check=True)
        for name in chosen.only:
            for figure in BENCHMARKS[name](bench):
                figures.append(figure)
                print(table_row(figure), flush=True)
                for key, value in figure.detail.items():
                    print(f"    {key}: {value}", flush=True)
    report = {"machine": facts, "device": chosen.device, "figures": [asdict(f) | {"passed": f.passed} for f in figures]}
    target = chosen.json or chosen.folder / f"report-{chosen.device.replace(':', '')}.json"
    target.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    print(f"written: {target.name}")
    return int(any(figure.passed is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
