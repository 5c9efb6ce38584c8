"""Enter the sandbox, then become the interpreter that runs the program: what `training.sandbox` starts.

Runs as a script of its own, on the standard library alone, without site-packages: nothing of ours is
imported.

    launcher (this)   new namespaces: mounts, processes, network, IPC, host name; waits +- init
    process 1 of them: a root of its own, no rights; when it ends the kernel ends all beneath
       +- interpreter a fresh one under limits and a filter of calls, with the payload, the nonce, a pipe

Whatever fails before the interpreter starts is told to the parent, as a line that starts with "isolation",
and nothing is run. There is no way on without a step.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import marshal
import os
import resource
import signal
import struct
import sys

NOBODY = 65534
BOX = "/box"  # where the program stands, and all that it can write to

# of <linux/mount.h>, <linux/sched.h>, <sys/prctl.h>
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 4096, 16384, 1 << 18, 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, AT_RECURSIVE = 1, 2, 4, 0x8000
SYS_MOUNT_SETATTR = 442  # one number on every architecture, as of Linux 5.12
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 1 << 17, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38

# Calls that a program has no use for, and that lead past its limits: memory that counts for no process, more
# namespaces, other processes, the kernel's keys. Their numbers per machine are of <asm/unistd.h>,
# its audit architecture of <linux/audit.h>; clone is allowed where it asks for no namespace.
MACHINES = {
    "x86_64": {"audit": 0xC000003E, "clone": 56},
    "aarch64": {"audit": 0xC00000B7, "clone": 220},
}
REFUSED = {
    "x86_64": (
        *(29, 64, 68, 240),  # shmget, semget, msgget, mq_open
        *(165, 166, 155, 161, 272, 308),  # mount, umount2, pivot_root, chroot, unshare, setns
        *(101, 310, 311),  # ptrace, process_vm_readv, process_vm_writev
        *(248, 249, 250),  # add_key, request_key, keyctl
        *(298, 321, 323),  # perf_event_open, bpf, userfaultfd
    ),
    "aarch64": (194, 190, 186, 180, 40, 39, 41, 51, 97, 268, 117, 270, 271, 217, 218, 219, 241, 280, 282),
}
REFUSED_EVERYWHERE = (425, 428, 429, 430, 432, 438, 442)  # io_uring_setup, the newer mount calls, pidfd_getfd
CLONE3 = 435  # hides its flags from a filter; the C library falls back to clone

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Descriptors and limits come as marshalled argument; the exit status says nothing, `told` does."""
    plan = marshal.loads(bytes.fromhex(sys.argv[1]))
    told = _out_of_the_way(plan["told"])
    inherit = [_out_of_the_way(fd) for fd in plan["inherit"]]
    plan |= {"told": told, "inherit": inherit}
    try:
        _die_with_parent()
        _first_to_go()
        dropped = os.geteuid() == 0 and _maps(NOBODY)  # root leaves its rights behind for good
        spaces = NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS
        if not dropped:
            spaces |= NEWUSER
        user, group = os.geteuid(), os.getegid()
        _call("unshare", spaces, why="new namespaces")
        if not dropped:
            _map(user, group)
        init = os.fork()
        if init == 0:
            os.write(told, _as_init(plan, dropped=dropped))
            os._exit(0)
        os.waitpid(init, 0)
    except OSError as error:
        os.write(told, f"isolation {error}".encode())
    os._exit(0)


def _as_init(plan: dict, *, dropped: bool) -> bytes:
    """How the interpreter ended, as one line: exit status and seconds of computing."""
    try:
        _build_root(plan["stage"], plan["binds"], plan["box_bytes"])
        if dropped:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            # so that RLIMIT_NPROC counts this sandbox alone
            _call("unshare", NEWUSER, why="a user namespace")
        _die_with_parent()  # after the change of user, which forgets it
        _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, why="no new rights")
        os.chdir(BOX)
        program = os.fork()
    except OSError as error:
        return f"isolation {error}".encode()
    if program == 0:
        try:
            _limit(plan)
            _keep_open(plan["inherit"])
            _filter_calls(os.uname().machine)
            os.execve(plan["python"], plan["argv"], plan["env"])
        except OSError as error:
            os.write(plan["told"], f"isolation {error}".encode())
        os._exit(1)
    while True:
        pid, status, used = os.wait3(0)
        if pid == program:
            return f"ended {os.waitstatus_to_exitcode(status)} {used.ru_utime + used.ru_stime}".encode()


def _build_root(stage: str, binds: list, box_bytes: int) -> None:
    """A root that holds the interpreter and its libraries, read-only, and one small folder to write to."""
    _mount("none", "/", None, MS_REC | MS_PRIVATE, None)
    _mount("tmpfs", stage, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in binds:
        inside = stage + path
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), inside)
            continue
        if os.path.isdir(path):
            os.makedirs(inside, exist_ok=True)
        else:
            os.close(os.open(inside, os.O_CREAT | os.O_WRONLY))
        _mount(path, inside, None, MS_BIND | MS_REC, None)
        _read_only(inside, also=MOUNT_ATTR_NOSUID | (0 if path.startswith("/dev/") else MOUNT_ATTR_NODEV))
    os.makedirs(stage + BOX)
    _mount("tmpfs", stage + BOX, "tmpfs", MS_NOSUID | MS_NODEV, f"size={box_bytes},nr_inodes=256,mode=1777")
    os.chdir(stage)
    _call("pivot_root", b".", b".", why="a root of its own")
    _call("umount2", b".", MNT_DETACH, why="to let go of the old root")
    os.chdir("/")
    _read_only("/", recursive=False)


def _limit(plan: dict) -> None:
    for name, most in plan["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    cpu = plan["cpu_s"]
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))  # a signal, then a second to ignore it in


def _filter_calls(machine: str) -> None:
    """From here on the kernel refuses REFUSED; a machine whose numbers are not known is refused itself."""
    if machine not in MACHINES:
        raise OSError(f"could not have a filter of calls (none is known for {machine})")
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06  # of <linux/bpf_common.h>
    allow, kill, denied, unknown = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
    number, audit, flags = 0, 4, 16  # offsets in struct seccomp_data
    steps = [(load, 0, 0, audit), (equal, 1, 0, MACHINES[machine]["audit"]), (answer, 0, 0, kill)]
    steps += [(load, 0, 0, number), (at_least, 0, 1, 1 << 30), (answer, 0, 0, denied)]  # x32's numbers
    for refused in (*REFUSED[machine], *REFUSED_EVERYWHERE):
        steps += [(equal, 0, 1, refused), (answer, 0, 0, denied)]
    steps += [(equal, 0, 1, CLONE3), (answer, 0, 0, unknown)]
    spaces = NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
    steps += [(equal, 0, 3, MACHINES[machine]["clone"]), (load, 0, 0, flags), (any_bit, 0, 1, spaces)]
    steps += [(answer, 0, 0, denied), (answer, 0, 0, allow)]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = struct.pack("@HP", len(steps), ctypes.addressof(held := ctypes.create_string_buffer(code)))
    _call("prctl", PR_SET_SECCOMP, 2, program, 0, 0, why=f"a filter of {len(held) // 8} calls")


def _keep_open(inherit: list) -> None:
    """The program gets what it needs, from descriptor 3 on; all else closes with exec."""
    for number, fd in enumerate(inherit, start=3):
        os.dup2(fd, number)


def _out_of_the_way(fd: int) -> int:
    """The same file under a high number, which closes with exec."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(fd)
    return high


def _maps(user: int) -> bool:
    with open("/proc/self/uid_map") as table:
        return any(int(start) <= user < int(start) + int(n) for start, _, n in map(str.split, table))


def _map(user: int, group: int) -> None:
    """Inside it is nobody, which has no rights after exec; outside it stays who it was."""
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as table:
            table.write(line)


def _first_to_go() -> None:
    """Where memory runs out, the kernel takes this first."""
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def _die_with_parent() -> None:
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0, why="an end with its parent")


class _Attributes(ctypes.Structure):
    """`struct mount_attr`."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


def _read_only(path: str, *, also: int = 0, recursive: bool = True) -> None:
    wanted = _Attributes(attr_set=MOUNT_ATTR_RDONLY | also)
    arguments = (
        ctypes.c_long(SYS_MOUNT_SETATTR),
        ctypes.c_int(-1),
        ctypes.c_char_p(path.encode()),
        ctypes.c_uint(AT_RECURSIVE if recursive else 0),
        ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )
    if libc.syscall(*arguments) != 0:
        raise _failed(f"{path} read-only")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    if libc.mount(*encoded, ctypes.c_ulong(flags), None if options is None else options.encode()) != 0:
        raise _failed(f"{source} mounted on {target}")


def _call(name: str, *arguments: int | bytes, why: str) -> None:
    if getattr(libc, name)(*arguments) != 0:
        raise _failed(why)


def _failed(why: str) -> OSError:
    return OSError(f"could not have {why} ({os.strerror(ctypes.get_errno())})")


if __name__ == "__main__":
    main()
