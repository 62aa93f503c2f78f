"""Swarm rig: N peers fetch one file from one origin inside network namespaces.

    python3 swarm.py run --impl lt --n 8 --size 64 --opts "--preset tuned"
    python3 swarm.py matrix matrix.json --results results.jsonl --budget 200
    python3 swarm.py table results.jsonl
    python3 swarm.py clean

See README.md.  Needs root, iproute2, nginx and a C++17 compiler.
"""
import argparse
import collections
import filecmp
import hashlib
import json
import math
import os
import re
import selectors
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

RIG = os.path.dirname(os.path.abspath(__file__))
CLI = os.path.normpath(os.path.join(RIG, "..", "..", "dist", "cli", "main.js"))  # llmpt, as it is built
NS = "swm"          # namespace names: swm<pid>-<node>
NET = "10.77.0."    # private, only inside our own namespaces
ORIGIN_IP, TRACKER_IP, PEER_BASE = NET + "1", NET + "2", 10
MIB = 1 << 20


# ---------------------------------------------------------------- small helpers
def benc(v):
    if isinstance(v, int):
        return b"i%de" % v
    if isinstance(v, str):
        v = v.encode()
    if isinstance(v, bytes):
        return b"%d:%s" % (len(v), v)
    if isinstance(v, list):
        return b"l" + b"".join(map(benc, v)) + b"e"
    return b"d" + b"".join(benc(k) + benc(x) for k, x in sorted(v.items())) + b"e"


def sh(*cmd):
    subprocess.run(cmd, check=True, stdout=subprocess.DEVNULL)


def python_with_libtorrent():
    for cand in (os.environ.get("SWARM_PY"), shutil.which("python3"),
                 shutil.which("python3", path=os.defpath)):
        if cand and subprocess.run([cand, "-c", "import libtorrent"],
                                   stderr=subprocess.DEVNULL).returncode == 0:
            return cand
    return sys.executable


def work_dir():
    base = os.environ.get("SWARM_WORK")
    if not base:
        shm = "/dev/shm"
        base = shm if os.path.isdir(shm) and os.access(shm, os.W_OK) else tempfile.gettempdir()
        base = os.path.join(base, "swarm-rig")
    os.makedirs(base, exist_ok=True)
    return base


def emunet_binary(work):
    src, exe = os.path.join(RIG, "emunet.cpp"), os.path.join(work, "emunet")
    if not os.path.exists(exe) or os.path.getmtime(exe) < os.path.getmtime(src):
        sh(os.environ.get("CXX", "g++"), "-O2", "-std=c++17", "-o", exe, src)
    return exe


def payload(work, size):
    """A deterministic incompressible file, cached."""
    path = os.path.join(work, f"payload-{size}.bin")
    if not os.path.exists(path):
        with open(path + ".tmp", "wb") as f:
            for i in range(0, size, MIB):
                f.write(hashlib.shake_128(b"swarm-rig %d" % i).digest(min(MIB, size - i)))
        os.rename(path + ".tmp", path)
    return path


def make_torrents(work, src, name, piece, announce, url):
    size = os.path.getsize(src)
    cache = os.path.join(work, f"pieces-{size}-{piece}.bin")
    if not os.path.exists(cache):
        with open(src, "rb") as f, open(cache, "wb") as o:
            while chunk := f.read(piece):
                o.write(hashlib.sha1(chunk).digest())
    info = {"length": size, "name": name, "piece length": piece, "pieces": open(cache, "rb").read()}
    base = {"announce": announce, "info": info}
    return benc({**base, "url-list": url}), benc(base)


def cpu_times():
    v = list(map(int, open("/proc/stat").readline().split()[1:9]))
    return sum(v), v[3] + v[4]


def realtime():
    """The emulator must not wait for a CPU behind the peers it serves."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5))
    except OSError:
        os.nice(-15)


def cpu_of(pid):
    v = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(v[11]) + int(v[12])) / os.sysconf("SC_CLK_TCK")


def check_needs(commands):
    """Ends the program with what to install, before anything is set up."""
    if os.geteuid() != 0:
        sys.exit("swarm.py: it makes network namespaces, so it must run as root")
    packages = {"nginx": "nginx-light", "ip": "iproute2", os.environ.get("CXX", "g++"): "g++"}
    for program in ("aria2c", "curl"):
        if any(c.startswith(program) for c in commands):
            packages[program] = program.replace("aria2c", "aria2")
    missing = [p for name, p in packages.items() if not shutil.which(name)]
    if any(c.startswith("{py}") for c in commands) and subprocess.run(
            [python_with_libtorrent(), "-c", "import libtorrent"], stderr=subprocess.DEVNULL).returncode:
        missing.append("python3-libtorrent")
    if missing:
        sys.exit("swarm.py: something is not installed: apt-get install " + " ".join(missing))
    if not os.path.exists("/dev/net/tun"):
        sys.exit("swarm.py: there is no /dev/net/tun, which the emulated links are made with")
    if any("{cli}" in c for c in commands) and not os.path.exists(CLI):
        sys.exit("swarm.py: the package is not built: npm run setup")


# ---------------------------------------------------------------- processes
class Proc:
    """A child in one namespace; its stdout is read line by line."""

    def __init__(self, ns, cmd, log, rt=False):
        self.cmd, self.lines, self.buf = cmd, [], b""
        self.done_at = self.exit = self.usage = None
        self.ready, self.killed, self.stat = False, False, {}
        full = (["ip", "netns", "exec", ns] if ns else []) + cmd
        self.err = open(log, "ab")
        self.p = subprocess.Popen(full, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=self.err, start_new_session=True,
                                  preexec_fn=realtime if rt else None)
        os.set_blocking(self.p.stdout.fileno(), False)

    def read(self):
        try:
            data = os.read(self.p.stdout.fileno(), 65536)
        except BlockingIOError:
            return True
        self.buf += data
        *lines, self.buf = self.buf.split(b"\n")
        for raw in lines:
            s = raw.decode("utf-8", "replace").strip()
            if s == "RIG READY":
                self.ready = True
            elif s.startswith("RIG STAT "):
                self.stat = json.loads(s[9:])
            self.lines.append(s)
        return bool(data)

    def say(self, text):
        try:
            self.p.stdin.write(text.encode())
            self.p.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass

    def poll(self):
        if self.exit is None:
            pid, status, usage = os.wait4(self.p.pid, os.WNOHANG)
            if pid:
                self.exit = os.waitstatus_to_exitcode(status)
                self.usage = usage
                self.p.returncode = self.exit
        return self.exit

    def signal(self, sig):
        if self.poll() is None:
            os.kill(self.p.pid, sig)

    def close(self):
        for f in (self.p.stdin, self.p.stdout, self.err):
            try:
                f.close()
            except OSError:
                pass

    def cpu(self):
        return self.usage.ru_utime + self.usage.ru_stime if self.usage else 0.0


class Lab:
    """Namespaces + emulator; removes everything it made on exit."""

    def __init__(self, work, mtu, cc, tso):
        self.work, self.mtu, self.cc, self.tso = work, mtu, cc, tso
        self.dir = tempfile.mkdtemp(prefix="run-", dir=work)
        self.spaces, self.procs, self.emu = {}, [], None

    def __enter__(self):
        return self

    def add(self, name, ip, up, down, rtt_ms, queue_ms):
        ns = f"{NS}{os.getpid()}-{name}"
        sh("ip", "netns", "add", ns)
        self.spaces[name] = (ns, ip, f"node {name} /run/netns/{ns} {ip} {up:.0f} {down:.0f} "
                                     f"{rtt_ms * 250:.0f} {queue_ms:.0f}\n")

    def start(self):
        self.emu = Proc(None, [emunet_binary(self.work)], os.path.join(self.dir, "emunet.err"), rt=True)
        self.emu.say("".join(s[2] for s in self.spaces.values()) + "start\n")
        self.wait_lines(self.emu, lambda: "started" in self.emu.lines, 10)
        for ns, ip, _ in self.spaces.values():
            sh("ip", "-n", ns, "link", "set", "lo", "up")
            sh("ip", "-n", ns, "addr", "add", ip + "/24", "dev", "emu0")
            sh("ip", "-n", ns, "link", "set", "emu0", "mtu", str(self.mtu), "gso_max_size", "16000", "up")
            sh("ip", "-n", ns, "route", "change", NET + "0/24", "dev", "emu0", "src", ip, "congctl", self.cc)
            sh("ip", "-n", ns, "route", "add", "224.0.0.0/4", "dev", "emu0")
            if self.tso:  # larger segmentation units: fewer packets for the emulator to move
                sh("ip", "netns", "exec", ns, "sh", "-c", f"echo {self.tso} > /proc/sys/net/ipv4/tcp_min_tso_segs")

    def wait_lines(self, proc, ok, secs):
        end = time.monotonic() + secs
        while not ok():
            if time.monotonic() > end or (proc.poll() is not None and not proc.read()):
                raise RuntimeError(f"{proc.cmd[0]} did not get ready: {proc.lines[-3:]}")
            proc.read()
            time.sleep(0.02)

    def spawn(self, name, cmd):
        p = Proc(self.spaces[name][0], cmd, os.path.join(self.dir, name + ".err"))
        self.procs.append(p)
        return p

    def stat(self):
        n = len(self.emu.lines)
        self.emu.say("stat\n")
        self.wait_lines(self.emu, lambda: len(self.emu.lines) > n, 10)
        return json.loads(self.emu.lines[-1])

    def __exit__(self, *exc):
        for p in self.procs + ([self.emu] if self.emu else []):
            p.signal(signal.SIGKILL)
        for p in self.procs + ([self.emu] if self.emu else []):
            end = time.monotonic() + 5
            while p.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            p.close()
        for ns, _, _ in self.spaces.values():
            subprocess.run(["ip", "netns", "del", ns])
        if not os.environ.get("SWARM_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)


# One process: a worker would outlive a master that is killed.
NGINX = """daemon off; master_process off; pid {d}/nginx.pid; error_log {d}/nginx.err;
events {{ worker_connections 1024; }}
http {{ sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000; default_type application/octet-stream;
 log_format rig '$remote_addr $status $body_bytes_sent $request_time $http_range';
 access_log {d}/access.log rig; client_body_temp_path {d}; proxy_temp_path {d}; fastcgi_temp_path {d};
 uwsgi_temp_path {d}; scgi_temp_path {d};
 server {{ listen {ip}:80; location /f/ {{ alias {d}/www/; max_ranges 1; }} }} }}
"""

DEFAULTS = {"impl": "lt", "opts": "", "seed_opts": "", "n": 8, "size": 64, "piece": 1024, "up": 50.0, "down": 50.0,
            "origin": 100.0, "rtt": 20.0, "queue": 50.0, "mtu": 1500, "tso": 8, "cc": "cubic",
            "scenario": "flash", "webseed": "all", "seeds": 0, "interval": 30, "timeout": 180.0,
            "stall": 20.0, "kill": 0.3, "seed_gone": 0, "label": "", "spread": 0.0, "trace": 0.0}


def bound(c, size, ups, downs):
    """Fluid lower bound on the makespan, payload bytes over nominal link rates."""
    us, n = c["origin"] * 1e6 / 8, c["n"]
    dmin = min(downs) * 1e6 / 8
    sum_up = sum(ups) * 1e6 / 8
    if c["p2p"]:
        src = us if c["webseed"] != "none" else 0
        src += c["seeds"] * c["up"] * 1e6 / 8
        return max(size / max(src, 1), size / dmin, n * size / (src + sum_up))
    return max(size / dmin, n * size / us)


def one_run(c, impls, verbose=False):
    c = {**DEFAULTS, **c}
    impl = impls[c["impl"]]
    c["p2p"] = impl.get("p2p", True)
    scen = c["scenario"]
    if scen == "warm":
        c["seeds"] = c["seeds"] or 1
    n, size = c["n"], int(c["size"] * MIB)
    work = work_dir()
    src = payload(work, size)
    name = "model.safetensors"
    url, ann = f"http://{ORIGIN_IP}/f/{name}", f"http://{TRACKER_IP}:6969/announce"
    t_ws, t_plain = make_torrents(work, src, name, c["piece"] * 1024, ann, url)
    # heterogeneous links: peer i gets rate * (1 +/- spread)
    k = [1 + c["spread"] * (2 * i / max(n - 1, 1) - 1) for i in range(n)]
    ups, downs = [c["up"] * x for x in k], [c["down"] * x for x in k]
    res = {"label": c["label"] or f"{c['impl']} {c['opts']}".strip(), "cfg": c}
    py, node = python_with_libtorrent(), os.environ.get("SWARM_NODE", shutil.which("node") or "node")

    with Lab(work, c["mtu"], c["cc"], c["tso"]) as lab:
        d = lab.dir
        lab.add("origin", ORIGIN_IP, c["origin"] * 1e6, 1e9, c["rtt"], c["queue"])
        lab.add("tracker", TRACKER_IP, 1e9, 1e9, c["rtt"], c["queue"])
        extra = c["seeds"] + (1 if scen == "bad" else 0)
        for i in range(n + extra):
            up, down = (ups[i], downs[i]) if i < n else (c["up"], c["down"])
            lab.add(f"p{i}", NET + str(PEER_BASE + i), up * 1e6, down * 1e6, c["rtt"], c["queue"])
        lab.start()
        os.mkdir(d + "/www")
        os.link(src, f"{d}/www/{name}") if os.stat(src).st_dev == os.stat(d).st_dev else os.symlink(src, f"{d}/www/{name}")
        open(d + "/ws.torrent", "wb").write(t_ws)
        open(d + "/plain.torrent", "wb").write(t_plain)
        open(d + "/nginx.conf", "w").write(NGINX.format(d=d, ip=ORIGIN_IP))
        nginx = lab.spawn("origin", ["nginx", "-e", d + "/nginx.err", "-c", d + "/nginx.conf", "-p", d])
        tracker = lab.spawn("tracker", [sys.executable, RIG + "/tracker.py", "6969", str(c["interval"])])
        lab.wait_lines(tracker, lambda: tracker.ready, 10)

        def launch(i, role):
            spec = impls["bad"] if role == "bad" else impl
            out = f"{d}/p{i}"
            os.mkdir(out)
            if role == "seed":
                shutil.copyfile(src, f"{out}/{name}")
            with_ws = c["webseed"] == "all" or (str(c["webseed"]).isdigit() and i < int(c["webseed"]))
            f = {"py": py, "node": node, "cli": CLI, "rig": RIG, "work": work, "ip": NET + str(PEER_BASE + i), "i": i, "n": n,
                 "port": 6881, "out": out, "file": src, "name": name, "size": size, "url": url,
                 "announce": ann, "role": role, "torrent": f"{d}/{'ws' if with_ws else 'plain'}.torrent",
                 "url_option": f"--url {url}" if with_ws else "",
                 "opts": c["opts"] + (f' {spec.get("seed_opts", "")} {c["seed_opts"]}' if role == "seed" else "")}
            cmd = spec.get("seed_cmd", spec["cmd"]) if role == "seed" else spec["cmd"]
            p = lab.spawn(f"p{i}", shlex.split(cmd.format(**f)))
            p.i, p.role, p.spec = i, role, spec
            if role == "seed" and "seed_ready" in spec:
                lab.wait_lines(p, lambda: any(re.search(spec["seed_ready"], s) for s in p.lines), 30)
            elif role == "bad" or (role == "seed" and spec.get("gate")):
                lab.wait_lines(p, lambda: p.ready, 30)
                p.say("GO\n")
            return p

        others = [launch(n + j, "seed") for j in range(c["seeds"])]
        if scen == "bad":
            others.append(launch(n + extra - 1, "bad"))
        if others:
            time.sleep(1.5)  # let them announce
        gated = impl.get("gate", False)
        cpu0 = None
        peers = []
        if gated:
            peers = [launch(i, "leech") for i in range(n)]
            for p in peers:
                lab.wait_lines(p, lambda: p.ready, 60)
            time.sleep(0.3)
            cpu0, t0 = cpu_times(), time.monotonic()
            for p in peers:
                p.say("GO\n")
        else:
            cpu0, t0 = cpu_times(), time.monotonic()
            peers = [launch(i, "leech") for i in range(n)]

        sel = selectors.DefaultSelector()
        for p in peers + others + [nginx, tracker]:
            sel.register(p.p.stdout, selectors.EVENT_READ, p)
        rx = impl.get("done", "exit")
        pat = None if rx == "exit" else re.compile(rx)
        seen = collections.defaultdict(int)
        acted, resume_at, next_poll, next_trace, next_gone = False, None, t0 + 0.5, t0, t0
        while True:
            now = time.monotonic()
            live = [p for p in peers if not p.killed]
            if all(p.done_at or p.exit is not None for p in live) or now - t0 > c["timeout"]:
                break
            for key, _ in sel.select(0.05):
                if not key.data.read():
                    sel.unregister(key.fileobj)
            now = time.monotonic()
            for p in peers:
                if p.done_at is None and pat:
                    for s in p.lines[seen[p.i]:]:
                        if pat.search(s):
                            p.done_at = now - t0
                    seen[p.i] = len(p.lines)
                if p.exit is None and p.poll() is not None and p.done_at is None and pat is None and p.exit == 0:
                    p.done_at = now - t0
            if scen in ("churn", "stall") and not acted and now > next_poll:
                next_poll = now + 0.25
                st = lab.stat()
                cols = [sum(r[j] for r in st["matrix"]) for j, nm in enumerate(st["names"]) if nm.startswith("p")]
                progress = sum(cols) / (n * size * 1.036)
                if progress >= (0.5 if scen == "churn" else 0.4):
                    acted = True
                    res["event_at"] = round(now - t0, 2)
                    if scen == "churn":
                        victims = [p for p in peers if p.done_at is None][:math.ceil(c["kill"] * n)]
                        for p in victims:
                            p.killed = True
                            p.signal(signal.SIGKILL)
                    else:
                        lab.emu.say("up origin 0\n")
                        resume_at = now + c["stall"]
            if c["trace"] and now > next_trace:
                next_trace = now + c["trace"]
                st = lab.stat()
                res.setdefault("trace", []).append(
                    [round(now - t0, 2), round(sum(st["matrix"][0]) / MIB, 1),
                     round(sum(sum(r) for r, x in zip(st["matrix"], st["names"]) if x.startswith("p")) / MIB, 1)])
            if c["seed_gone"] and not res.get("gone_at") and now > next_gone:
                next_gone = now + 0.25
                st = lab.stat()
                if sum(st["matrix"][0]) >= c["seed_gone"] * size * 1.036:
                    res["gone_at"] = round(now - t0, 2)
                    lab.emu.say("up origin 0\n")
            if resume_at and now > resume_at:
                lab.emu.say(f"up origin {c['origin'] * 1e6:.0f}\n")
                resume_at = None
        t_end = time.monotonic() - t0
        cpu1 = cpu_times()
        st = lab.stat()
        for p in peers + others:
            p.signal(signal.SIGTERM)
        tracker.signal(signal.SIGTERM)
        nginx.signal(signal.SIGTERM)
        end = time.monotonic() + 8
        for p in peers + others + [tracker, nginx]:
            while p.poll() is None and time.monotonic() < end:
                p.read()
                time.sleep(0.01)
            p.signal(signal.SIGKILL)
            while p.poll() is None:
                time.sleep(0.01)
            while p.read() and p.exit is None:
                pass
        live = [p for p in peers if not p.killed]
        good = [p for p in live if p.done_at is not None]
        wrong = [p.i for p in good if not filecmp.cmp(src, f"{d}/p{p.i}/{name}", shallow=False)]
        log = [x.split(None, 4) for x in open(d + "/access.log")] if os.path.exists(d + "/access.log") else []
        times = sorted(p.done_at for p in good)
        egress_link = sum(st["matrix"][0])
        b = bound(c, size, ups, downs)
        ok = len(good) == len(live) and not wrong
        res.update({
            "ok": ok, "done": len(good), "live": len(live), "wrong": wrong,
            "makespan": round(times[-1], 2) if ok and times else None,
            "mean": round(statistics.mean(times), 2) if times else None,
            "first": round(times[0], 2) if times else None, "wall": round(t_end, 2),
            "bound": round(b, 2), "eff": round(b / times[-1], 3) if ok and times else None,
            "origin_ratio": round(egress_link / 1.036 / size, 3),
            "origin_http_ratio": round(sum(int(x[2]) for x in log) / size, 3), "http_requests": len(log),
            "p2p_ratio": round(sum(sum(r[j] for j, y in enumerate(st["names"]) if y.startswith("p"))
                                   for r, x in zip(st["matrix"], st["names"]) if x.startswith("p")) / 1.036 / size / n, 3),
            "cpu_peers": round(sum(p.cpu() for p in peers), 2), "cpu_nginx": round(nginx.cpu(), 2),
            "cpu_emu": round(cpu_of(lab.emu.p.pid), 2),
            "rss_mb": max([p.usage.ru_maxrss // 1024 for p in peers if p.usage] or [0]),
            "machine_busy": round(1 - (cpu1[1] - cpu0[1]) / max(1, cpu1[0] - cpu0[0]), 2),
            "drops": sum(st["up_drops"]) + sum(st["down_drops"]), "late": st["late_over_2ms"],
            "late_max_ms": st["late_max_us"] // 1000, "tracker": tracker.stat,
            "redundant": sum(p.stat.get("redundant", 0) for p in peers),
            "failed": sum(p.stat.get("failed", 0) for p in peers),
            "http_pieces": sum(p.stat.get("http_pieces", 0) for p in peers),
            "other": [p.stat for p in others], "peer_stats": [p.stat for p in peers],
            "times": [round(p.done_at, 2) if p.done_at else None for p in peers]})
        if not ok or verbose:
            errs = {}
            for p in peers:
                e = open(f"{d}/p{p.i}.err", errors="replace").read()[-300:]
                errs[p.i] = [p.exit, p.lines[-2:], e]
            res["errs"] = dict(list(errs.items())[:3])
    return res


COLS = ["label", "n", "size", "makespan", "mean", "bound", "eff", "origin_ratio", "p2p_ratio", "cpu_peers", "machine_busy"]


def table(rows):
    groups = collections.OrderedDict()
    for r in rows:
        c = r["cfg"]
        groups.setdefault((r["label"], c["scenario"], c["n"], c["size"]), []).append(r)
    print("| label | scen | N | MiB | runs ok | makespan s | mean s | bound s | eff | origin x | p2p share | redundant MiB | http reqs | cpu s | busy |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for (label, scen, n, size), rs in groups.items():
        good = [r for r in rs if r["ok"]]
        med = lambda k, s=rs: (round(statistics.median([r[k] for r in s if r[k] is not None]), 2)
                               if any(r[k] is not None for r in s) else "-")
        print(f"| {label} | {scen} | {n} | {size} | {len(good)}/{len(rs)} | {med('makespan')} | {med('mean')} | "
              f"{med('bound')} | {med('eff')} | {med('origin_ratio')} | {med('p2p_ratio')} | "
              f"{round(statistics.median([r['redundant'] for r in rs]) / MIB, 1)} | {med('http_requests')} | "
              f"{med('cpu_peers')} | {med('machine_busy')} |")


def clean():
    out = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for line in out.splitlines():
        m = re.match(rf"({NS}(\d+)-\S+)", line)
        if m and not os.path.exists(f"/proc/{m[2]}"):
            subprocess.run(["ip", "netns", "del", m[1]])
    for e in os.scandir(work_dir()):
        if e.name.startswith("run-"):
            shutil.rmtree(e.path, ignore_errors=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="cmd", required=True)
    r = sub.add_parser("run")
    for k, v in DEFAULTS.items():
        r.add_argument("--" + k.replace("_", "-"), type=type(v) if not isinstance(v, bool) else None, default=v)
    r.add_argument("--peer-cmd", help="template of your own peer; overrides --impl")
    r.add_argument("--peer-done", default="^RIG DONE", help='regex on its stdout, or "exit"')
    r.add_argument("--peer-gate", action="store_true", help="it prints RIG READY and waits for a line")
    r.add_argument("--reps", type=int, default=1)
    r.add_argument("--results")
    r.add_argument("-v", action="store_true")
    m = sub.add_parser("matrix")
    m.add_argument("file")
    m.add_argument("--results", required=True)
    m.add_argument("--budget", type=float, default=200)
    t = sub.add_parser("table")
    t.add_argument("results", nargs="+")
    sub.add_parser("clean")
    a = ap.parse_args()
    impls = json.load(open(os.path.join(RIG, "impls.json")))
    if a.cmd == "run":
        check_needs([a.peer_cmd or impls[a.impl]["cmd"]])
    elif a.cmd == "matrix":
        with open(a.file) as f:
            spec = json.load(f)
        check_needs([impls[{**DEFAULTS, **spec.get("base", {}), **e}["impl"]]["cmd"] for e in spec["runs"]])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def emit(res, path):
        line = {k: res[k] for k in ("label", "ok", "makespan", "mean", "bound", "eff", "origin_ratio", "p2p_ratio",
                                    "cpu_peers", "machine_busy", "http_requests", "redundant", "failed")}
        print(json.dumps(line), flush=True)
        if not res["ok"]:
            print(json.dumps(res.get("errs"))[:1500], flush=True)
        if path:
            with open(path, "a") as f:
                f.write(json.dumps(res) + "\n")

    if a.cmd == "clean":
        return clean()
    if a.cmd == "table":
        return table([json.loads(x) for f in a.results for x in open(f)])
    if a.cmd == "run":
        if a.peer_cmd:
            impls["custom"] = {"cmd": a.peer_cmd, "done": a.peer_done, "gate": a.peer_gate, "p2p": True}
            a.impl = "custom"
        cfg = {k: getattr(a, k) for k in DEFAULTS}
        for _ in range(a.reps):
            res = one_run(cfg, impls, a.v)
            emit(res, a.results)
            if a.v:
                print(json.dumps(res, indent=1))
        return
    start = time.monotonic()
    have = collections.Counter()
    if os.path.exists(a.results):
        for x in open(a.results):
            rec = json.loads(x)
            have[rec["label"]] += 1
    todo = failed = 0
    for rep in range(max(e.get("reps", spec.get("reps", 1)) for e in spec["runs"])):
        for e in spec["runs"]:
            cfg = {**spec.get("base", {}), **{k: v for k, v in e.items() if k != "reps"}}
            label = cfg.get("label") or f"{cfg.get('impl')} {cfg.get('opts', '')}".strip()
            if rep >= e.get("reps", spec.get("reps", 1)) or have[label] > rep:
                continue
            if time.monotonic() - start > a.budget:
                todo += 1
                continue
            cfg["label"] = label
            try:
                emit(one_run(cfg, impls), a.results)
            except (RuntimeError, subprocess.SubprocessError, OSError) as e:
                failed += 1
                print(json.dumps({"label": label, "setup_error": str(e)}), flush=True)
            have[label] += 1
    print(f"left: {todo}", flush=True)
    sys.exit(1 if failed else 3 if todo else 0)


if __name__ == "__main__":
    main()
