"""Giving up everything: the steps a kernel takes between its fork and its first request.

The order matters. What needs a right comes before that right is dropped, and the system call filter is last
since it denies several of the calls before it. Every part has to be named by the agent; `null` means "not
this part", a missing one is an error, so that a misspelt word never leaves a kernel without its walls.
"""

import base64
import contextlib
import os
import resource
import signal
import time

from . import linux

EXIT_CODE = 70
# What the kernel keeps: everything else that is open is closed.
KEPT = ("control", "ring", "doorbell", "space", "stdout", "stderr", "twins")


class JailError(Exception):
    """A step did not succeed; the kernel must not run."""

    def __init__(self, step, cause):
        super().__init__(f"{step}: {cause}")
        self.step = step


def enter(jail, descriptors):
    """Takes all steps, or raises `JailError`."""
    for step in (_descriptors, _place, _credentials, _limits, _landlock, _seccomp):
        try:
            step(jail, descriptors)
        except KeyError as error:
            raise JailError(
                step.__name__[1:], f"the jail has no `{error.args[0]}`: say null to go without"
            ) from error
        except Exception as error:
            raise JailError(step.__name__[1:], error) from error


def die(error):
    """Ends this process with one line on descriptor 2, which reaches the agent."""
    os.write(2, f"evercell kernel: {error}\n".encode())
    os._exit(EXIT_CODE)


def _descriptors(_jail, descriptors):
    """1. A session of its own, 0 to 2, and nothing that belongs to somebody else."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # 1 and 2 before anything that can go wrong: what goes wrong is said there.
    os.dup2(descriptors["stdout"], 1, inheritable=True)
    os.dup2(descriptors["stderr"], 2, inheritable=True)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0, inheritable=True)
    linux.close_all_but({0, 1, 2, *(descriptors[name] for name in KEPT)})
    for name in KEPT:
        os.set_inheritable(descriptors[name], False)
    try:
        os.setsid()
    except PermissionError:
        # The leader of a session or group already: it has what it needs.
        pass


def _place(jail, _descriptors):
    """2. Host name, working directory, environment, umask."""
    if jail.get("hostname") is not None:
        linux.sethostname(jail["hostname"])
    if jail["cwd"] is not None:
        os.chdir(jail["cwd"])
    if jail["env"] is not None:
        os.environ.clear()
        os.environ.update(jail["env"])
    if jail["home"] is not None:
        os.environ["HOME"] = jail["home"]
    os.umask(0o022)
    time.tzset()


def _credentials(jail, _descriptors):
    """3. Groups, ids, capabilities."""
    uid, gid = jail["uid"], jail["gid"]
    if uid is None or gid is None:
        return
    try:
        os.setgroups([])
    except PermissionError:
        # In the user namespace of an ordinary user the call is denied, and there is no group to give up.
        if not _setgroups_denied():
            raise
    os.setresgid(gid, gid, gid)
    linux.drop_bounding_set()
    linux.prctl(linux.PR_SET_SECUREBITS, linux.SECUREBITS, "lock the securebits")
    os.setresuid(uid, uid, uid)
    linux.drop_capabilities()


def _setgroups_denied():
    try:
        with open("/proc/self/setgroups") as file:
            return file.read().strip() == "deny"
    except OSError:
        return False


def _limits(jail, _descriptors):
    """4. Resource limits, the place in the queue of the OOM killer, no new privileges."""
    # A change of ids makes /proc/self root's, and the agent could not look at the kernel either.
    linux.prctl(linux.PR_SET_DUMPABLE, 1, "set dumpable")
    for name, (soft, hard) in (jail["rlimits"] or {}).items():
        which = getattr(resource, f"RLIMIT_{name}")
        present = resource.getrlimit(which)[1]
        # Never above what is there: raising is a privilege, and lower is what was wanted.
        hard = _lower(hard, present)
        # Lowering never fails on Linux. Where it does, the runtime has no such limit (gVisor).
        with contextlib.suppress(ValueError):
            resource.setrlimit(which, (_lower(soft, hard), hard))
    score = jail["oom_score_adj"]
    if score is not None:
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(str(int(score)))
        except PermissionError:
            # Lowering it is a privilege that is missing in many containers.
            pass
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1, "set no_new_privs")


def _lower(wanted, present):
    """Returns the lower of two limits; -1, or null from the agent, is no limit."""
    if wanted is None or wanted == resource.RLIM_INFINITY:
        return present
    return wanted if present == resource.RLIM_INFINITY else min(wanted, present)


def _landlock(jail, _descriptors):
    """5. The file system, once more, where the kernel has landlock."""
    wanted = jail["landlock"]
    if wanted is not None:
        linux.landlock(wanted["abi"], [(rule["path"], rule["access"]) for rule in wanted["rules"]])


def _seccomp(jail, _descriptors):
    """6. The system calls."""
    wanted = jail["seccomp"]
    if wanted is not None:
        linux.seccomp(base64.b64decode(wanted, validate=True))
