#!/usr/bin/env python3
"""Two front ends on one PostgreSQL: each sees the other's jobs, and what a dead one had accepted is drawn by the other. The
database is this test's own, in a folder of its own, on a socket only."""
import base64
import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _png import file_of  # noqa: E402
from _serve import Server, run_all  # noqa: E402

SMALL = {"prompt": "a red circle", "size": "64x64", "steps": 2, "seed": 3}
programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1:] or [os.path.dirname(p) for p in [shutil.which("initdb")] if p]
address = database = None


class Database:
    """Runs as user postgres where this is root: the server refuses to run as root."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="atelier-pg-", dir="/tmp"))
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user)
        self._run(["initdb", "-D", self.folder / "data", "-U", "atelier", "-A", "trust", "-N"])
        self.process = subprocess.Popen(self._as_user([f"{programs[0]}/postgres", "-D", str(self.folder / "data"), "-k", str(self.folder),
                                                       "-c", "listen_addresses=", "-c", "fsync=off"]),
                                        stdout=subprocess.DEVNULL, stderr=open(self.folder.with_suffix(".log"), "wb"))
        end = time.monotonic() + 30
        while subprocess.run([f"{programs[0]}/pg_isready", "-h", str(self.folder)], stdout=subprocess.DEVNULL).returncode:
            assert time.monotonic() < end and self.process.poll() is None, self.folder.with_suffix(".log").read_text()
            time.sleep(0.1)
        self.address = f"host={self.folder} user=atelier dbname=postgres"

    def _processes(self):
        pid = self.process.pid
        return [pid, *map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def stop(self):
        """It takes connections, and answers nothing."""
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def go_on(self):
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def _as_user(self, command):
        return ["setpriv", "--reuid", self.user, "--regid", self.user, "--clear-groups", *command] if os.geteuid() == 0 else command

    def _run(self, command):
        done = subprocess.run(self._as_user([f"{programs[0]}/{command[0]}", *map(str, command[1:])]), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def ask(self, text):
        done = subprocess.run([f"{programs[0]}/psql", "-h", str(self.folder), "-U", "atelier", "-d", "postgres", "-Atc", text],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def close(self):
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.kill(pid, signal.SIGQUIT)
            self.process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.with_suffix(".log").unlink(missing_ok=True)


def front_end(data):
    return Server(data=data, variables={"ATELIER_DATABASE": address})


def folders(count):
    return [tempfile.TemporaryDirectory() for _ in range(count)]


def test_each_sees_the_others_jobs():
    one, two = folders(2)
    with one, two, front_end(one.name) as a, front_end(two.name) as b:
        body = a.ask("POST", "/v1/images/generations", SMALL)[1]
        seen = b.wait_job(body["job"])
        assert seen["status"] == "done", seen
        assert b.ask("GET", f"/v1/jobs/{body['job']}/images/0")[0] == 200
        assert body["job"] in [j["id"] for j in b.ask("GET", "/v1/jobs")[1]["data"]]
        headers = {"Idempotency-Key": "shared"}
        first = a.ask("POST", "/v1/images/generations", SMALL, headers)[1]
        a.wait_job(first["job"])
        assert b.ask("POST", "/v1/images/generations", SMALL, headers)[1]["job"] == first["job"]


def test_one_cancels_what_the_other_draws():
    one, two = folders(2)
    with one, two, front_end(one.name) as a, front_end(two.name) as b:
        job = a.ask("POST", "/v1/images/generations", {**SMALL, "steps": 200, "size": "128x128", "async": True})[1]["id"]
        assert b.ask("POST", f"/v1/jobs/{job}/cancel")[1]["status"] == "cancelled"
        assert a.wait_job(job)["status"] == "cancelled"


def test_a_dead_ones_jobs_are_taken_over():
    one, two = folders(2)
    with one, two:
        a = front_end(one.name)
        jobs = [a.ask("POST", "/v1/images/generations", {**SMALL, "seed": seed, "steps": 40, "async": True})[1]["id"] for seed in range(4)]
        with front_end(two.name) as b:
            a.process.kill()
            a.process.wait()
            a.close()
            for job in jobs:
                assert b.wait_job(job)["status"] == "done"
            drawn = b.ask("GET", f"/v1/jobs/{jobs[2]}/images/0")[1]
            again = b.ask("POST", "/v1/images/generations", {**SMALL, "seed": 2, "steps": 40, "async": True})[1]["id"]
            b.wait_job(again)
            assert b.ask("GET", f"/v1/jobs/{again}/images/0")[1] == drawn


def test_a_job_whose_picture_cannot_be_brought_is_not_lost():
    picture = base64.b64encode(file_of(64, 64, (b"\0" + bytes([128]) * 192) * 64)).decode()
    one, two = folders(2)
    with one, two:
        a = front_end(one.name)
        edit = {**SMALL, "image": picture, "strength": 1.0, "steps": 200, "async": True}
        status, job, _ = a.ask("POST", "/v1/images/edits", edit)
        assert status == 202, job
        with front_end(two.name) as b:
            in_the_way = b.data / "data" / "pictures" / job["id"]
            in_the_way.write_text("no folder")
            a.process.kill()
            a.process.wait()
            a.close()
            deadline = time.monotonic() + 40
            while "cannot be taken up yet" not in b.errors() and time.monotonic() < deadline:
                time.sleep(0.2)
            assert "cannot be taken up yet" in b.errors(), b.errors()
            in_the_way.unlink()
            assert b.wait_job(job["id"])["status"] == "done"


def test_a_database_that_stops_holds_up_nobody():
    with tempfile.TemporaryDirectory() as data, front_end(data) as one:
        database.stop()
        try:
            time.sleep(2)  # it looks at the others in this time, and beats
            for path in ("/livez", "/v1/status", "/metrics"):
                begun = time.monotonic()
                assert one.ask("GET", path, seconds=20)[0] == 200
                assert time.monotonic() - begun < 2, path
            begun = time.monotonic()
            assert one.ask("GET", "/v1/jobs", seconds=60)[0] == 500
            assert time.monotonic() - begun < 30
        finally:
            database.go_on()
        deadline = time.monotonic() + 30
        while one.ask("GET", "/v1/jobs")[0] != 200 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert one.ask("POST", "/v1/images/generations", SMALL)[0] == 200
        database.stop()
        try:
            assert one.end() == 0
        finally:
            database.go_on()


def test_signed_addresses_hold_at_every_front_end():
    one, two = folders(2)
    public = lambda folder: Server("--public_url", "http://here", data=folder.name, variables={"ATELIER_DATABASE": address})
    with one, two, public(one) as a, public(two) as b:
        body = a.ask("POST", "/v1/images/generations", {**SMALL, "response_format": "url"})[1]
        b.wait_job(body["job"])
        path = body["data"][0]["url"].removeprefix("http://here")
        assert b.ask("GET", path)[0] == 200, path


def test_pictures_that_no_job_has_are_removed():
    with tempfile.TemporaryDirectory() as data:
        with front_end(data) as one:
            job = one.wait_job(one.ask("POST", "/v1/images/generations", SMALL)[1]["job"])["id"]
        database.ask("UPDATE atelier_pictures SET stored = now() - interval '2 hours'")
        database.ask("INSERT INTO atelier_pictures (job, name, bytes, stored) VALUES ('nobodys', 'input_image', 'x', now() - interval '2 hours'), "
                     "('to_come', 'input_image', 'x', now())")
        with front_end(data):
            left = database.ask("SELECT DISTINCT job FROM atelier_pictures")
            assert "nobodys" not in left and {job, "to_come"} <= set(left), left


def test_a_removal_is_all_or_nothing():
    """A job that is still there has its picture."""
    with Server("--database", address) as one:
        drawn = one.ask("POST", "/v1/images/generations", SMALL)[1]["job"]
        one.wait_job(drawn)
        picture = f"/v1/jobs/{drawn}/images/0"
        before = one.ask("GET", picture)[1]
        database.ask("CREATE FUNCTION never() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'never'; END $$ LANGUAGE plpgsql; "
                     "CREATE TRIGGER never BEFORE DELETE ON atelier_jobs FOR EACH ROW EXECUTE FUNCTION never()")
        time.sleep(1)  # until it is in the store alone
        assert one.ask("DELETE", f"/v1/jobs/{drawn}")[0] == 500
        status, after, _ = one.ask("GET", picture)
        assert status == 200 and after == before, status
        database.ask("DROP TRIGGER never ON atelier_jobs; DROP FUNCTION never()")
        assert one.ask("DELETE", f"/v1/jobs/{drawn}")[0] == 200
        assert one.ask("GET", picture)[0] == 404


def test_a_database_that_is_not_there_is_named():
    with tempfile.TemporaryDirectory() as data:
        try:
            Server(data=data, variables={"ATELIER_DATABASE": "host=/nowhere dbname=x"})
        except AssertionError as error:
            assert "the database cannot be reached" in str(error), error
        else:
            raise AssertionError("the server started")


def main():
    global address, database
    if not programs:
        print("skipped: no PostgreSQL server here")
        return 77
    database = Database()
    try:
        address = database.address
        return run_all([value for name, value in globals().items() if name.startswith("test_")])
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())
