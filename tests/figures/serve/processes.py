"""Starting, watching and stopping the programs that are measured."""

import http.client
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def stat(pid):
    """The fields of /proc/PID/stat from the third, the state, on; none when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def tree(root):
    """A process and everything that descends from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := stat(entry.name)):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left.extend(parents.get(pid, []))
    return found


class Program:
    """A program with all its processes."""

    def __init__(self, command, log, environment=None, cwd=None):
        self.log = open(log, "ab")
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, env={**os.environ, **(environment or {})}, cwd=cwd
        )

    def cpu(self):
        """Seconds of processor time so far, of children that have ended too."""
        fields = filter(None, map(stat, tree(self.process.pid)))
        return sum(sum(map(int, each[11:15])) for each in fields) / TICKS

    def memory(self):
        """Resident memory in MiB: the sum of the processes' RSS, and of their PSS, which counts shared pages once."""
        rss = pss = 0
        for pid in tree(self.process.pid):
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            for line in rollup.splitlines():
                name, _, rest = line.partition(":")
                if name == "Rss":
                    rss += int(rest.split()[0])
                elif name == "Pss":
                    pss += int(rest.split()[0])
        return rss / 1024, pss / 1024

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            for pid in tree(self.process.pid):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


class Several:
    """Programs that are one server together."""

    def __init__(self, programs):
        self.programs = programs
        self.begun = programs[0].begun

    def cpu(self):
        return sum(program.cpu() for program in self.programs)

    def memory(self):
        both = [program.memory() for program in self.programs]
        return sum(rss for rss, _ in both), sum(pss for _, pss in both)

    def stop(self):
        for program in reversed(self.programs):
            program.stop()


def status(port, path):
    """The status of a GET on the loopback address; none when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def wait_for(check, what, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return
        time.sleep(0.0005)
    raise SystemExit(f"{what} did not come within {seconds} s")
