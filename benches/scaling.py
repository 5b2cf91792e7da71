#!/usr/bin/env python3
"""What a load balancer in front of laneway costs, and what a rolling replacement loses, for docs/scaling.md.

    benches/scaling.py target/release/server [ROUNDS]

With the driver epoll, as in containers. CPU time of each side for a request, in turns: wrk asks one lane, then HAProxy in front of two servers of one lane each.
Medians of the rounds, in microseconds, user and system together, from /proc. Needs wrk and haproxy.
"""

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BINARY = os.path.abspath(sys.argv[1])
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
SECONDS = 3
TICKS = os.sysconf("SC_CLK_TCK")
LANES = ["127.77.0.1:8080", "127.77.0.2:8080"]
FRONT = "127.77.0.3:8080"


def server(address, folder):
    """One lane, in a process of its own."""
    settings = [f"server.listen={address}", "workers.count=1", "workers.mode=processes", "workers.pin=false",
                "workers.driver=epoll"]
    words = [word for setting in settings for word in ("--set", setting)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": folder}
    return subprocess.Popen([BINARY, *words, "--socket", f"{folder}/{address}"], env=environment, cwd=folder,
                            stderr=subprocess.DEVNULL)


def proxy(mode, folder):
    path = f"{folder}/{mode}.cfg"
    times = "timeout connect 5s\n  timeout client 20s\n  timeout server 20s"
    servers = "\n".join(f"  server s{index} {lane}" for index, lane in enumerate(LANES))
    with open(path, "w") as file:
        file.write(f"global\n  nbthread 1\ndefaults\n  {times}\nlisten front\n  mode {mode}\n  bind {FRONT}\n{servers}\n")
    return subprocess.Popen(["haproxy", "-db", "-f", path], stderr=subprocess.DEVNULL)


def listens(address):
    """Returns when something does."""
    host, port = address.split(":")
    for _ in range(200):
        try:
            socket.create_connection((host, int(port))).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    sys.exit(f"nothing listens at {address}")


def ticks(pid):
    """Of a process and its children."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = file.read().split()
    return int(fields[11]) + int(fields[12]) + sum(ticks(child) for child in children)


def asked(address, connections, pids):
    """CPU microseconds for a request, of each of these, and requests a second."""
    before = [ticks(pid) for pid in pids]
    words = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", f"http://{address}/"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in told and "Socket errors" not in told, told
    count = int(re.search(r"(\d+) requests in", told)[1])
    spent = [ticks(pid) - was for pid, was in zip(pids, before)]
    return [ticks * 1e6 / TICKS / count for ticks in spent] + [count / SECONDS]


def main():
    with tempfile.TemporaryDirectory() as folder:
        servers = [server(lane, folder) for lane in LANES]
        found = {}
        try:
            for lane in LANES:
                listens(lane)
            for _ in range(ROUNDS):
                for connections in (64, 512):
                    lane, rate = asked(LANES[0], connections, [servers[0].pid])
                    found.setdefault((connections, "directly"), []).append((lane, 0, rate))
                    for mode in ("http", "tcp"):
                        front = proxy(mode, folder)
                        try:
                            listens(FRONT)
                            one, two, own, rate = asked(FRONT, connections, [it.pid for it in servers] + [front.pid])
                        finally:
                            front.kill()
                            front.wait()
                        found.setdefault((connections, f"haproxy, {mode}"), []).append((one + two, own, rate))
        finally:
            for it in servers:
                it.terminate()
                it.wait()
        for (connections, how), rounds in found.items():
            lane, own, rate = (statistics.median(column) for column in zip(*rounds))
            print(f"{connections:4} connections, {how:14} lane {lane:5.1f} us, proxy {own:5.1f} us, {rate:7.0f} requests/s")


main()
