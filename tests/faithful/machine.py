"""A host that boots real systemd and real cloud-init: systemd-nspawn on an overlay, in a network namespace of its own.

A holder process keeps the host's network and mount namespaces, so that the host can be stopped and started again on the
same disk, and so that nothing is left on this machine once the holder is gone.
"""
import glob
import os
import pathlib
import signal
import subprocess
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent


def run(*command, **keywords):
    return subprocess.run(command, check=True, capture_output=True, text=True, **keywords).stdout


class Machine:
    """`layer`: a folder that lies over the root file system; `nspawn`: more arguments of systemd-nspawn."""

    def __init__(self, rootfs, name, layer=None, nspawn=()):
        self.name = f"m8trx-faithful-{os.urandom(4).hex()}-{name}"
        self.arguments = nspawn
        self.directory = f"/run/{self.name}"
        self.console, self.nspawn, self.leader = b"", None, None
        os.mkdir(self.directory, 0o700)
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", "echo ready; exec sleep infinity"],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.holder.stdout.readline()
        run("nsenter", "-t", str(self.holder.pid), "-m", "-n", "bash", "-euc", """
          ip link set lo up
          ip address add 169.254.169.254/32 dev lo
          cd "$1"
          mount -t tmpfs -o size=6g,mode=700 tmpfs .
          cd "$1"
          mkdir upper work root
          mount -t overlay -o "lowerdir=$2,upperdir=upper,workdir=work" overlay root
        """, "-", self.directory, f"{layer}:{rootfs}" if layer else rootfs)
        outside = pathlib.Path(f"/proc/{self.holder.pid}/root{self.directory}")
        self.root, self.upper = outside / "root", outside / "upper"

    def write(self, path, text, mode=0o644):
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def cgroups(self):
        """This host's own cgroup in every hierarchy that systemd uses here."""
        mounts = [line.split() for line in open("/proc/self/mounts")]
        roots = [mount[1] for mount in mounts if mount[2] == "cgroup2" or (mount[2] == "cgroup" and "name=systemd" in mount[3])]
        return [pathlib.Path(root, self.name) for root in roots]

    def boot(self):
        for cgroup in self.cgroups():
            cgroup.mkdir(exist_ok=True)
        self.console = b""
        join = "; ".join(f"echo $$ >{cgroup}/cgroup.procs" for cgroup in self.cgroups())
        stdin, self._stdin = os.pipe()  # never /dev/null: nspawn would change its mode
        self.nspawn = subprocess.Popen(
            ["sh", "-c", join + '; exec nsenter -t "$0" -m "$@"', str(self.holder.pid),
             "systemd-nspawn", "--quiet", "--boot", f"--directory={self.directory}/root", "--register=no", "--keep-unit",
             f"--network-namespace-path=/proc/{self.holder.pid}/ns/net", "--resolv-conf=off", "--link-journal=no",
             "--timezone=off", "--console=read-only", f"--machine={self.name[-60:]}", "--hostname=ip-172-31-0-10",
             *self.arguments],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.close(stdin)
        threading.Thread(target=self._read_console, args=(self.nspawn,), daemon=True).start()
        self.leader = self._wait_for_leader()

    def _read_console(self, nspawn):
        while chunk := os.read(nspawn.stdout.fileno(), 65536):
            self.console += chunk

    def _wait_for_leader(self):
        """The host's pid 1 as this machine counts."""
        end = time.time() + 30
        while time.time() < end:
            for pid in self.processes():
                try:
                    status = pathlib.Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                spaces = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if spaces[-1] == "1" and len(spaces) > 2:
                    return pid
            if self.nspawn.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the host did not start: {self.console.decode(errors='replace')}")

    def processes(self):
        """Every process of the host, by its id on this machine."""
        found = set()
        for cgroup in self.cgroups():
            for procs in glob.glob(f"{cgroup}/**/cgroup.procs", recursive=True):
                try:
                    found.update(int(line) for line in open(procs))
                except OSError:
                    pass  # a cgroup that has just gone
        return found

    def shell(self, script, check=False):
        """Runs a script inside the host; returns its exit code and output."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "/usr/bin/env", "-i",
             "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "bash", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=300)
        if check and done.returncode:
            raise RuntimeError(f"{script}: {done.stdout}")
        return done.returncode, done.stdout

    def wait_for(self, condition, timeout, what):
        end = time.time() + timeout
        while time.time() < end:
            if condition():
                return True
            if self.nspawn and self.nspawn.poll() is not None:
                break
            time.sleep(0.1)
        print(f"# waited in vain for {what}", flush=True)
        return False

    def cloud_init_finished(self, timeout):
        return self.wait_for(lambda: (self.root / "run/cloud-init/result.json").exists() or self.shell(
            "test -f /run/cloud-init/result.json")[0] == 0, timeout, "cloud-init")

    def stop(self):
        """An orderly shutdown; the disk stays until `destroy`."""
        if self.nspawn is None:
            return
        self.nspawn.send_signal(signal.SIGTERM)
        try:
            self.nspawn.wait(60)
        except subprocess.TimeoutExpired:
            self._kill()
        os.close(self._stdin)
        self.nspawn, self.leader = None, None
        for cgroup in self.cgroups():
            for below in sorted(glob.glob(f"{cgroup}/**/", recursive=True), key=len, reverse=True):
                os.rmdir(below)

    def _kill(self):
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.nspawn.wait(30)

    def destroy(self):
        self.stop()
        self.holder.kill()
        self.holder.wait()
        os.rmdir(self.directory)

    def leftovers(self):
        """What of this host is still on the machine: processes, mounts, namespaces, cgroups, files."""
        found = [f"cgroup {cgroup}" for cgroup in self.cgroups() if cgroup.exists()]
        for process in glob.glob("/proc/[0-9]*"):
            try:
                if self.name in pathlib.Path(process, "mountinfo").read_text():
                    found.append(f"mount seen by {process}")
                if self.name in pathlib.Path(process, "cmdline").read_text() or self.name in pathlib.Path(process, "cgroup").read_text():
                    found.append(f"process {process}")
            except OSError:
                pass
        if os.path.exists(self.directory):
            found.append(self.directory)
        return found
