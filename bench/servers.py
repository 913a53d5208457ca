"""Throwaway servers on loopback, found the way the test kit finds them."""

import glob
import os
import re
import shutil
import socket
import subprocess
import threading
import time

SERVERS = os.environ.get("CUTOVER_SERVERS", "")

SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": 20,
    "max_wal_senders": 20,
    "max_logical_replication_workers": 20,
    "max_worker_processes": 40,
    "max_connections": 200,
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "dynamic_shared_memory_type": "mmap",
    "listen_addresses": "127.0.0.1",
    "autovacuum": "off",
}


def said_version(program):
    """The first number that a program answers to --version."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"\d+[\d.]*", said)
    return found.group(0) if found else None


def numbers(version):
    return tuple(int(part) for part in version.split("."))


def installs():
    """major -> bin folder of every PostgreSQL server here."""
    found = {}
    for bin_dir in sorted(glob.glob("/usr/lib/postgresql/*/bin")) + sorted(glob.glob(f"{SERVERS}/postgresql/*/bin")):
        version = said_version(f"{bin_dir}/postgres")
        if version and os.path.exists(f"{bin_dir}/initdb"):
            found.setdefault(numbers(version)[0], bin_dir)
    return found


def tools():
    """The newest folder with psql, pgbench and pg_dump: these talk to every older server."""
    folders = glob.glob("/usr/lib/postgresql/*/bin") + glob.glob(f"{SERVERS}/tools/*/bin")
    able = [folder for folder in folders if all(os.path.exists(f"{folder}/{name}") for name in ("psql", "pgbench", "pg_dump"))]
    return max(able, key=lambda folder: numbers(said_version(f"{folder}/psql")))


def bouncer_program():
    """The newest PgBouncer."""
    programs = glob.glob(f"{SERVERS}/pgbouncer/*/bin/pgbouncer") + ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
    return max((program for program in programs if said_version(program)), key=lambda program: numbers(said_version(program)))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(command, **more):
    """Runs a program to its end; what it said is in the error when it fails."""
    done = subprocess.run(command, stdin=more.pop("stdin", subprocess.DEVNULL), capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def eventually(what, limit, ready, pause=0.01):
    """Polls until `ready()` answers something true, and returns it."""
    deadline = time.monotonic() + limit
    while True:
        answer = ready()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {limit} s: {what}")
        time.sleep(pause)


class Session:
    """A psql that stays open, so that a statement costs a round trip and not a new process."""

    END = "--that was it--"

    def __init__(self, url):
        command = [f"{tools()}/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", url]
        self.psql = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def ask(self, sql):
        """The lines that a statement answers."""
        self.psql.stdin.write(f"{sql};\n\\echo {self.END}\n")
        self.psql.stdin.flush()
        lines = []
        for line in self.psql.stdout:
            if line.rstrip("\n") == self.END:
                return lines
            lines.append(line.rstrip("\n"))
        raise RuntimeError(f"psql ended in `{sql}`: {lines}")

    def one(self, sql):
        lines = self.ask(sql)
        return lines[0] if lines else ""

    def close(self):
        self.psql.stdin.close()
        self.psql.wait()
        self.psql.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Cluster:
    """A PostgreSQL server in a folder of its own. The folder can be kept as a template and copied, which is quicker
    than to fill a new one for each run."""

    def __init__(self, work, name, bin_dir, template=None):
        self.bin, self.data, self.port = bin_dir, f"{work}/{name}", free_port()
        self.version = said_version(f"{bin_dir}/postgres")
        if template is None:
            run([f"{bin_dir}/initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
        else:
            run(["cp", "-a", "--reflink=auto", template, self.data])
        with open(f"{self.data}/postgresql.auto.conf", "w", encoding="utf-8") as conf:
            for key, value in {**SETTINGS, "port": self.port, "unix_socket_directories": ""}.items():
                conf.write(f"{key} = '{value}'\n")
        self.start()

    def start(self):
        run([f"{self.bin}/pg_ctl", "-D", self.data, "-l", f"{self.data}.log", "-w", "-t", "60", "start"])

    def stop(self, mode="fast"):
        run([f"{self.bin}/pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", "60", "stop"])

    def pid(self):
        with open(f"{self.data}/postmaster.pid", encoding="utf-8") as file:
            return int(file.readline())

    def cpu_s(self):
        """Seconds of CPU that its processes have used, ended ones included."""
        postmaster, ticks = self.pid(), 0
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(path, encoding="utf-8") as file:
                    # The second field, the program's name, may hold blanks.
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(path.split("/")[2]) == postmaster or int(fields[1]) == postmaster:
                ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def destroy(self):
        """Ends it at once, and with it its folder."""
        if os.path.exists(f"{self.data}/postmaster.pid"):
            self.stop("immediate")
        shutil.rmtree(self.data)

    def url(self, db="bench", user="postgres"):
        return f"postgres://{user}@127.0.0.1:{self.port}/{db}"

    def session(self, db="bench"):
        return Session(self.url(db))


class Bouncer:
    """A PgBouncer in transaction mode, with the administrator `admin`."""

    def __init__(self, work, name, cluster):
        self.program, self.port, self.folder = bouncer_program(), free_port(), f"{work}/{name}"
        os.mkdir(self.folder)
        self.ini = f"{self.folder}/pgbouncer.ini"
        self.version = said_version(self.program)
        with open(f"{self.folder}/users.txt", "w", encoding="utf-8") as users:
            users.writelines(f'"{user}" ""\n' for user in ("postgres", "admin"))
        self.point_at(cluster)
        self.log = open(f"{self.folder}/log", "w", encoding="utf-8")
        self.process = subprocess.Popen([self.program, self.ini], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        with open(f"{self.folder}/bouncer.pid", "w", encoding="utf-8") as file:
            file.write(f"{self.process.pid}\n")
        eventually("PgBouncer is up", 20, self.answers)

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def point_at(self, cluster):
        """Rewrites the file by hand, as a runbook says to."""
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": f"{self.folder}/users.txt",
            "admin_users": "admin",
            "pool_mode": "transaction",
            "default_pool_size": 25,
            "max_client_conn": 500,
            "ignore_startup_parameters": "extra_float_digits,options",
            "server_login_retry": 1,
            "log_connections": 0,
            "log_disconnections": 0,
        }
        if numbers(self.version) >= (1, 21):
            settings["max_prepared_statements"] = 100
        text = f"[databases]\nbench = host=127.0.0.1 port={cluster.port} dbname=bench\n\n[pgbouncer]\n"
        text += "".join(f"{key} = {value}\n" for key, value in settings.items())
        with open(f"{self.ini}.new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(f"{self.ini}.new", self.ini)

    def url(self, db="bench", user="postgres"):
        return f"postgres://{user}@127.0.0.1:{self.port}/{db}"

    def destroy(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


def together(*works):
    """Runs functions at the same time and returns their results in order."""
    results, errors = [None] * len(works), []

    def call(at, work):
        try:
            results[at] = work()
        except Exception as error:  # It is raised again below, in the caller's thread.
            errors.append(error)

    threads = [threading.Thread(target=call, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
