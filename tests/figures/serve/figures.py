"""Figures of comfy-serve beside a Python server of the usual kind, both in front of the same ComfyUI, in one run.

Prints a Markdown table and exits 1 when comfy-serve misses a figure.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from pictures import compare, photo
from processes import status
from servers import Machinery

WORKFLOWS = {
    "small": {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 4487833}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "small"}},
    },
    "photo": {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "photo"}},
    },
}


def slow(seed):
    """A workflow that takes 1.5 s, each seed anew."""
    sleep = {"image": ["1", 0], "seconds": 1.5, "steps": 15, "previews": False, "seed": seed}
    return {
        "1": WORKFLOWS["small"]["1"],
        "2": {"class_type": "TestSleep", "inputs": sleep},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "slow"}},
    }


class Probe:
    """The client, one process for each measurement."""

    def __init__(self, machinery):
        self.program = machinery.binaries / "comfy-probe"
        self.work = machinery.work
        for name, workflow in WORKFLOWS.items():
            (self.work / f"{name}.json").write_text(json.dumps(workflow))

    def start(self, *arguments):
        return subprocess.Popen([self.program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)

    @staticmethod
    def result(process):
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"the probe failed: {process.args}")
        return json.loads(output)

    def invoke(self, server, workflow, count, parallel=1, accept="", save=None):
        url, path = f"http://127.0.0.1:{server.port}/invocations", self.work / f"{workflow}.json"
        arguments = ["invoke", url, path, "--count", count, "--parallel", parallel, f"--accept={accept}"]
        result = self.result(self.start(*arguments, *(["--save", save] if save else [])))
        if set(result["statuses"]) != {"200"}:
            raise SystemExit(f"not every request for {workflow} succeeded: {result['statuses']}")
        return result["us"]

    def direct(self, comfyui, workflow, count):
        url = f"http://127.0.0.1:{comfyui.port}"
        return self.result(self.start("direct", url, self.work / f"{workflow}.json", "--count", count))["us"]


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def p50_ms(us):
    return statistics.median(us) / 1000


class Table:
    def __init__(self):
        self.rows, self.missed = [], []

    def add(self, what, reference, ours, must, ok, unit="", digits=2):
        def show(value):
            return f"{value:,.{digits}f}{unit}" if isinstance(value, (int, float)) else value

        numbers = all(isinstance(value, (int, float)) for value in (reference, ours))
        ratio = f"{ours / reference:.3f}" if numbers and reference > 0 < ours else ""
        verdict = "" if ok is None else "yes" if ok else "**no**"
        self.rows.append((what, show(reference), show(ours), ratio, must, verdict))
        print("  " + " | ".join(self.rows[-1]), file=sys.stderr, flush=True)
        if ok is False:
            self.missed.append(what)

    def markdown(self):
        head = ("what", "reference", "comfy-serve", "ratio", "must", "ok")
        return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *self.rows))


def freeze_pings(probe, comfyui, server):
    """Latencies of /ping in ms, while six jobs of 1.5 s run and ComfyUI is frozen for one second."""
    jobs = []
    for seed in range(6):
        path = probe.work / f"slow{seed}.json"
        path.write_text(json.dumps(slow(int(time.time() * 1e6) * 10 + seed)))
        url = f"http://127.0.0.1:{server.port}/invocations"
        jobs.append(probe.start("invoke", url, path, "--count", 1))
    time.sleep(0.3)
    pings = probe.start("ping", f"http://127.0.0.1:{server.port}/ping", "--seconds", 9, "--every", 10)
    freezer = threading.Timer(1.0, comfyui.signal, [signal.SIGSTOP])
    thawer = threading.Timer(2.0, comfyui.signal, [signal.SIGCONT])
    freezer.start()
    thawer.start()
    result = probe.result(pings)
    thawer.join()
    for job in jobs:
        answered = probe.result(job)["statuses"]
        if answered != {"200": 1}:
            raise SystemExit(f"a job beside /ping ended with {answered}")
    return [us / 1000 for us in result["us"]], result["statuses"]


def ping(table, probe, comfyui, reference, serve, quick):
    rounds = 1 if quick else 3
    slow_pings, fast_pings, statuses = [], [], {}
    for _ in range(rounds):
        slow_pings += freeze_pings(probe, comfyui, reference)[0]
        times, answered = freeze_pings(probe, comfyui, serve)
        fast_pings += times
        statuses.update(answered)
    ours = percentile(fast_pings, 0.99)
    ok = ours <= 5 and set(statuses) == {"200"}
    what = "/ping, 6 jobs running, ComfyUI frozen for 1 s, p99"
    table.add(what, percentile(slow_pings, 0.99), ours, "5 ms or less", ok, " ms")
    table.add("the same, longest", max(slow_pings), max(fast_pings), "", None, " ms")


def cached(table, probe, comfyui, reference, serve, quick):
    """Alternating, so that what else the machine does disturbs all alike."""
    rounds, count = (5, 100) if quick else (15, 200)
    us = {"direct": [], "reference": [], "serve": []}
    for each in (reference, serve):
        probe.invoke(each, "small", 20)
    for _ in range(rounds):
        us["direct"].append(p50_ms(probe.direct(comfyui, "small", count)))
        us["serve"].append(p50_ms(probe.invoke(serve, "small", count)))
        us["reference"].append(p50_ms(probe.invoke(reference, "small", count)))
    floor, ours, theirs = (statistics.median(us[name]) for name in ("direct", "serve", "reference"))
    what = f"cached 64x64 PNG, added to ComfyUI's own {floor:.2f} ms, p50"
    table.add(what, theirs - floor, ours - floor, "0.5 ms or less", ours - floor <= 0.5, " ms")


def cpu(table, probe, reference, serve, quick):
    """Processor time for each request, the median of alternating rounds."""
    rounds, count = (5, 20) if quick else (12, 50)
    cases = [("small", "", "cached 64x64 PNG"), ("photo", "image/png", "photo as PNG")]
    cases.append(("photo", "image/jpeg", "photo PNG to JPEG q90"))
    for workflow, accept, name in cases:
        spent = {reference: [], serve: []}
        for each in (reference, serve):
            probe.invoke(each, workflow, 6, accept=accept)
        many = count * 10 if workflow == "small" else count
        for _ in range(rounds):
            for each in (reference, serve):
                before = each.cpu()
                probe.invoke(each, workflow, many, accept=accept)
                # What is done after an answer counts too.
                time.sleep(0.1)
                spent[each].append((each.cpu() - before) / many * 1000)
        theirs, ours = statistics.median(spent[reference]), statistics.median(spent[serve])
        must, ok = ("0.25 of it or less", ours <= theirs / 4) if accept == "image/jpeg" else ("", None)
        table.add(f"{name}, processor time a request", theirs, ours, must, ok, " ms")


def quality(table, probe, reference, serve, work):
    paths = {name: work / name for name in ("original.png", "theirs.jpg", "ours.jpg")}
    probe.invoke(serve, "photo", 1, accept="image/png", save=paths["original.png"])
    probe.invoke(reference, "photo", 1, accept="image/jpeg", save=paths["theirs.jpg"])
    probe.invoke(serve, "photo", 1, accept="image/jpeg", save=paths["ours.jpg"])
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    theirs, ours = (compare(paths["original.png"], paths[name]) for name in ("theirs.jpg", "ours.jpg"))
    size = f"its size, PNG {sizes['original.png'] / 1e6:.2f} MB"
    difference = abs(sizes["ours.jpg"] / sizes["theirs.jpg"] - 1)
    table.add(size, sizes["theirs.jpg"], sizes["ours.jpg"], "within 3 %", difference <= 0.03, " bytes", 0)
    # The hundredth of a decibel that the table shows.
    table.add("its PSNR", theirs, ours, "not lower", round(ours, 2) >= round(theirs, 2), " dB")


def load(probe, server, workflow, count, accept):
    """The most resident memory, RSS and PSS in MiB, while 8 requests run at a time."""
    url = f"http://127.0.0.1:{server.port}/invocations"
    path = probe.work / f"{workflow}.json"
    process = probe.start("invoke", url, path, "--count", count, "--parallel", 8, f"--accept={accept}")
    seen = []
    while process.poll() is None:
        seen.append(server.memory())
        time.sleep(0.02)
    statuses = probe.result(process)["statuses"]
    if set(statuses) != {"200"}:
        raise SystemExit(f"not every request succeeded: {statuses}")
    return max(rss for rss, _ in seen), max(pss for _, pss in seen)


def memory(table, probe, reference, serve, quick):
    for workflow, accept, name in (("small", "", "64x64 PNG"), ("photo", "image/jpeg", "photo PNG to JPEG")):
        count = (200 if quick else 800) if workflow == "small" else (48 if quick else 200)
        (theirs_rss, theirs_pss), (ours_rss, ours_pss) = (
            load(probe, each, workflow, count, accept) for each in (reference, serve)
        )
        what = f"memory, most of 8 parallel, {name}"
        for kind, theirs, ours in (("RSS", theirs_rss, ours_rss), ("PSS", theirs_pss, ours_pss)):
            table.add(f"{what}, {kind}", theirs, ours, "0.333 of it or less", ours <= theirs / 3, " MiB", 1)


def flatness(table, probe, machinery, comfyui, quick):
    """The memory of comfy-serve as in the container, where it removes what jobs leave and keeps the last outputs. Every
    twentieth request is a photo as JPEG. What an allocator holds at one moment is chance, so the most of the requests
    of each window counts."""
    window, last = (200, 1000) if quick else (1000, 10000)
    serve = machinery.ready(machinery.comfy_serve(comfyui, cleaning=True))
    seen = []
    try:
        for _ in range(0, last, 100):
            probe.invoke(serve, "small", 95, parallel=8)
            probe.invoke(serve, "photo", 5, parallel=5, accept="image/jpeg")
            seen.append(serve.memory()[0])
    finally:
        serve.stop()
    each = window // 100
    # The first window warms everything up.
    before, after = max(seen[each : 2 * each]), max(seen[-each:])
    what = f"RSS, most of requests {window:,} to {2 * window:,}, and of the last {window:,} of {last:,}"
    table.add(what, "", f"{before:.1f}, {after:.1f} MiB", "flat: 10 % more at most", after <= before * 1.1)


def starts(table, machinery, comfyui, quick):
    """From the start of the first process to the first answer to /ping, whatever it is but nginx's own 502."""
    times = {"reference": [], "serve": []}
    for _ in range(5 if quick else 15):
        for name, start in (("reference", machinery.reference), ("serve", machinery.comfy_serve)):
            server = start(comfyui)
            while status(server.port, "/ping") not in (200, 503):
                if time.monotonic() > server.begun + 30:
                    raise SystemExit(f"{name} does not start")
                time.sleep(0.0002)
            times[name].append((time.monotonic() - server.begun) * 1000)
            server.stop()
    theirs, ours = (statistics.median(times[name]) for name in ("reference", "serve"))
    table.add("start to an answer to /ping, median", theirs, ours, "20 ms or less", ours <= 20, " ms", 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--binaries", required=True, help="directory of comfy-serve, comfyui-stand-in and comfy-probe")
    parser.add_argument("--quick", action="store_true", help="fewer requests, in about a minute")
    parser.add_argument("--only", help="ping, cached, cpu, quality, memory, flatness or start, several with commas")
    options = parser.parse_args()
    wanted = set(options.only.split(",")) if options.only else None
    table = Table()
    with tempfile.TemporaryDirectory(prefix="figures-") as work:
        machinery = Machinery(options.binaries, work)
        measure(table, machinery, options.quick, lambda name: wanted is None or name in wanted)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {'with' if machinery.nginx else 'without'} nginx\n")
    print(table.markdown())
    for what in table.missed:
        print(f"missed: {what}", file=sys.stderr)
    return 1 if table.missed else 0


def measure(table, machinery, quick, wanted):
    probe = Probe(machinery)
    photo().save(machinery.work / "input" / "photo.png")
    started = []
    try:
        started.append(comfyui := machinery.comfyui())
        started.append(reference := machinery.ready(machinery.reference(comfyui)))
        started.append(serve := machinery.ready(machinery.comfy_serve(comfyui)))
        # Memory first: of servers that have done nothing else.
        if wanted("memory"):
            memory(table, probe, reference, serve, quick)
        if wanted("ping"):
            ping(table, probe, comfyui, reference, serve, quick)
        if wanted("cached"):
            cached(table, probe, comfyui, reference, serve, quick)
        if wanted("cpu"):
            cpu(table, probe, reference, serve, quick)
        if wanted("quality"):
            quality(table, probe, reference, serve, Path(machinery.work))
        if wanted("start"):
            starts(table, machinery, comfyui, quick)
        if wanted("flatness"):
            # Its idle workers do not read their WebSockets, and ComfyUI stops sending to anybody when those are full.
            started.remove(reference)
            reference.stop()
            flatness(table, probe, machinery, comfyui, quick)
    finally:
        for program in reversed(started):
            program.stop()


if __name__ == "__main__":
    sys.exit(main())
