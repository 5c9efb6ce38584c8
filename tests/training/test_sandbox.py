"""A generated program can neither do harm nor talk itself into having passed."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from training.recipe import TrainingError
from training.sandbox import Limits, Program, isolation, pass_at_k, run, run_all

ROOT = Path(__file__).parents[2]
CHECK = "def check(f):\n    assert f(2) == 4\n"
confined = pytest.mark.skipif(bool(isolation()), reason="generated programs cannot be confined here")
QUICK = Limits(cpu_s=1)


def reason_of(source: str, test: str = "assert f(2) == 4", limits: Limits = QUICK) -> str:
    return run(Program(source, test), limits=limits).reason


@confined
def test_a_program_passes_by_its_test_and_fails_by_it():
    assert run(Program("def f(x): return 2 * x", CHECK, "f")).passed
    wrong = run(Program("def f(x): return 3 * x", CHECK, "f"))
    assert (wrong.passed, wrong.reason) == (False, "failed")
    assert "AssertionError" in wrong.output
    assert reason_of("def f(x) return 2") == "failed"  # no Python
    assert reason_of("def g(x): return 2") == "failed"
    assert run(Program("def g(x): return 2", CHECK, "f")).reason == "failed"
    assert reason_of("def f(x): return 4", "assert f(2) ==") == "failed"  # nor is the test


@confined
@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    while True: pass",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "try:\n    while True: pass\nfinally:\n    while True: pass",
    ],
)
def test_a_program_that_loops_is_ended(source):
    assert reason_of(source) == "timeout"


@confined
def test_a_program_that_waits_is_ended_with_all_that_it_started():
    source = "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(600)"
    assert reason_of(source, limits=Limits(wall_s=1)) == "timeout"


@confined
@pytest.mark.parametrize("source", ["x = [0] * 10**9", "x = []\nwhile True: x.append(bytes(10**6))"])
def test_a_program_that_eats_memory_is_ended(source):
    assert reason_of(source, limits=Limits(cpu_s=5)) == "memory"


@confined
def test_a_fork_bomb_stays_small():
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    assert reason_of(bomb, limits=Limits(wall_s=2)) == "timeout"
    counted = """
import os, signal
started = 0
while True:
    try:
        if os.fork() == 0:
            signal.pause()
    except OSError:
        break
    started += 1
def f(x): return started
"""
    assert reason_of(counted, "assert 0 < f(2) < 8") == "passed"


@confined
def test_threads_are_limited_too():
    source = """
import threading
hold = threading.Event()
def f(x):
    for n in range(100):
        threading.Thread(target=hold.wait, daemon=True).start()
"""
    assert reason_of(source) == "failed"


@confined
def test_a_program_writes_to_its_own_small_folder_only(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("kept")
    prefix = os.path.realpath(sys.base_prefix)
    for path in (outside, "/etc/passwd", "/new", "/dev/new", f"{prefix}/new", "/usr/lib/new"):
        assert reason_of(f"open({str(path)!r}, 'w').write('x')\ndef f(x): return 4") == "failed"
    assert outside.read_text() == "kept"
    assert (
        reason_of("open('here', 'w').write('x')\ndef f(x): return 4 if open('/box/here').read() else 0")
        == "passed"
    )
    assert reason_of("open('here', 'wb').write(bytes(2 << 20))\ndef f(x): return 4") == "failed"
    assert (
        reason_of("import os\ndef f(x): return 4 if os.listdir() == [] else 0") == "passed"
    )  # each has its own


@confined
def test_a_program_reads_nothing_of_this_machine_but_python(tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "hunter2")
    (tmp_path / "secret").write_text("hunter2")
    seen = f"""
import os
def f(x):
    paths = [{str(tmp_path / "secret")!r}, {str(ROOT / "pyproject.toml")!r}, '/etc/passwd', '/proc/1/environ']
    return [path for path in paths if os.path.exists(path)] or 'hunter2' in str(dict(os.environ)) or 4
"""
    assert reason_of(seen) == "passed"
    reached = "import os\ndef f(x): return 4 if {os.getuid(), os.geteuid()} == {65534} else 0"
    assert reason_of(reached) == "passed"


@confined
def test_a_program_reaches_no_socket_of_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reach = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\ndef f(x): return 4"
        assert reason_of(reach) == "failed"
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    serve = "import socket\nsocket.create_server(('8.8.8.8', 80))\ndef f(x): return 4"
    assert reason_of(serve) == "failed"


@confined
def test_the_kernel_refuses_calls_that_lead_past_the_limits():
    source = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
attempts = {
    "namespaces": lambda: libc.unshare(0x10000000),
    "a child in namespaces": lambda: libc.syscall(
        {"x86_64": 56, "aarch64": 220}[os.uname().machine], ctypes.c_long(0x10000000 | 17), 0, 0, 0, 0
    ),
    "a mount": lambda: libc.mount(b"tmpfs", b"/box", b"tmpfs", 0, None),
    "shared memory": lambda: libc.shmget(0, 1 << 20, 0o1600),
    "a queue": lambda: libc.msgget(0, 0o1600),
    "another process": lambda: libc.ptrace(0, 1, 0, 0),
    "io_uring": lambda: libc.syscall(425, 8, 0),
}
def f(x):
    refused = lambda attempt: attempt() == -1 and ctypes.get_errno() == errno.EPERM
    return {name for name, attempt in attempts.items() if not refused(attempt)}
"""
    ran = run(Program(source, "print(f(2))"))
    assert (ran.reason, ran.output) == ("passed", "set()\n")


@confined
@pytest.mark.parametrize(
    "source",
    [
        "print('passed')",
        "import sys; print('passed'); sys.exit(0)",
        "import os; os._exit(0)",
        "def f(x): raise SystemExit(0)",
        "def f(x):\n    import os; os._exit(0)",
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'passed')\n    except OSError: pass",
        "def check(f): pass",
        "def f(x): return 5\nimport builtins\nbuiltins.AssertionError = StopIteration",
        "def f(x): return 5\nimport sys\nsys.excepthook = sys.__excepthook__ = lambda *a: None",
        "import os\nif os.fork() == 0:\n    def f(x): return 4",  # the child would pass
        "import atexit, os\natexit.register(os._exit, 0)",
        "import threading, os\nthreading.Thread(target=os._exit, args=(0,)).start()",
        "import sys\nsys.settrace(lambda *a: sys.exit(0))\ndef f(x): return 5",
    ],
)
def test_a_program_does_not_pass_by_saying_so(source):
    assert not run(Program(source, CHECK, "f"), limits=QUICK).passed
    assert not run(Program(source, "assert f(2) == 4"), limits=QUICK).passed


@confined
def test_the_test_sees_pythons_builtins_and_not_the_programs():
    broken = (
        "import builtins\nabs = builtins.abs = lambda x: 0\nbuiltins.len = lambda x: 4\ndef f(x): return 99"
    )
    assert reason_of(broken, "assert abs(f(2) - 4) < 1e-6 or len([f(2)]) == 4") == "failed"
    named_so = Program("def sum(x): return 4", CHECK, "sum")  # the tested one may bear a builtin's name
    assert run(named_so).passed


@confined
def test_an_early_end_and_a_crash_are_told_apart():
    assert reason_of("import sys; sys.exit(0)") == "exited"
    assert reason_of("import os; os._exit(0)") == "exited"
    assert reason_of("import ctypes; ctypes.string_at(0)") == "crashed"


@confined
def test_only_the_end_of_the_output_is_kept():
    ran = run(Program("print('x' * 50_000)\nprint('the end')\ndef f(x): return 4", "assert f(2) == 4"))
    assert ran.passed
    assert len(ran.output) <= 2000
    assert ran.output.endswith("x\nthe end\n")
    endless = run(Program("while True: print('passed' * 100)", "pass"))
    assert (endless.reason, len(endless.output) <= 2000) == ("failed", True)


@confined
def test_a_program_runs_alike_each_time():
    source = "print(hash('a'), list({'x', 'y', 'z'}))"
    assert len({run(Program(source, "pass")).output for _ in range(3)}) == 1


@confined
def test_many_programs_keep_their_order():
    programs = [Program(f"def f(x): return {n}", "assert f(2) % 3 == 0") for n in range(12)]
    assert [ran.passed for ran in run_all(programs, workers=4)] == [n % 3 == 0 for n in range(12)]
    assert run_all([]) == []


@confined
def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    assert (
        reason_of("import time\nopen('x', 'w').write('y')\ntime.sleep(60)", limits=Limits(wall_s=0.5))
        == "timeout"
    )
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_empty_test_is_refused():
    with pytest.raises(TrainingError, match="test of a program is empty"):
        run(Program("def f(x): return 4", " \n"))


ASKED = """
from training.sandbox import Program, SandboxError, isolation, run
try:
    run(Program("", "pass"))
    print("run")
except SandboxError as error:
    assert str(error) == isolation()
    print(error)
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs the program unshare, to take rights away")
@pytest.mark.parametrize(
    ("taken", "said"),
    [
        ("echo 0 > /proc/sys/user/max_net_namespaces", "could not have new namespaces"),
        ("echo 0 > /proc/sys/user/max_mnt_namespaces", "could not have new namespaces"),
        ("echo 0 > /proc/sys/user/max_user_namespaces", "could not have "),
    ],
)
def test_where_a_part_of_the_isolation_is_missing_nothing_is_run(tmp_path, taken, said):
    (tmp_path / "asked.py").write_text(ASKED)
    without = ["unshare", "--user", "--map-root-user", "sh", "-c", f'{taken} && exec "$0" "$1"']
    asked = subprocess.run(
        [*without, sys.executable, str(tmp_path / "asked.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    if asked.returncode and "unshare" in asked.stderr:
        pytest.skip("no user namespaces at all here")
    assert "was not run, for it could not be confined here" in asked.stdout, asked.stderr
    assert said in asked.stdout


def test_pass_at_k_is_the_chance_of_k_draws_without_replacement():
    assert pass_at_k(1, 1, 1) == 1.0
    assert pass_at_k(5, 2, 1) == pytest.approx(2 / 5)
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - (3 / 5) * (2 / 4))
    assert pass_at_k(5, 2, 4) == 1.0
    assert pass_at_k(200, 0, 100) == 0.0
    for n, passed, k in ((5, 2, 6), (5, 6, 1), (5, -1, 1), (5, 2, 0)):
        with pytest.raises(TrainingError, match="expected 1 <= k <= n"):
            pass_at_k(n, passed, k)
