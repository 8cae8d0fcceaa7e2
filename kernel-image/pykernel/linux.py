"""The Linux calls that Python has no function for, each raising `OSError` with the name of what was tried."""

import _ctypes
import ctypes
import mmap
import os
import re
import struct
import time

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
# Keeps the interpreter's lock: a child without a thread that holds it would wait for it for ever.
_clone = ctypes.PyDLL(None, use_errno=True).syscall
_clone.restype = ctypes.c_long
_SIGCHLD = 17
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip

PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 24, 28, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
# noroot, no_setuid_fixup, keep_caps (off), no_cap_ambient_raise, each with its lock;
# include/uapi/linux/securebits.h
SECUREBITS = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80

# The namespaces in the order they are entered: the user namespace gives the right to enter the others.
NAMESPACES = {
    "user": 0x10000000,
    "mnt": 0x00020000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "pid": 0x20000000,
}

# The first numbers that differ between architectures; the rest are the same on all.
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE_PARENT, _CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID = 0x8000, 0x200000, 0x1000000
_PR_GET_TID_ADDRESS = 40
_PROT_READ_WRITE, _MAP_SHARED_FIXED = 3, 0x11
_OMP_PAUSE_HARD = 2
_MADV_COLLAPSE, _HUGE = 25, 2 << 20
_MADV_POPULATE_WRITE = 23
# The largest area, in pages, that is looked through for pages that were written to.
_LARGE = 16384
# For the last byte of an entry in /proc/self/pagemap: 1 if the page is there, and no other process has it.
_IS_OWN = bytes(byte & 0x81 == 0x81 for byte in range(256))
_CLOSE_RANGE, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 436, 444, 445, 446
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
# How many of the file rights exist in each version of landlock; from 4 on there are others besides.
_LANDLOCK_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
# Those rights that make sense for a file: execute, write, read, truncate, ioctl on devices.
_LANDLOCK_OF_FILES = 0x1 | 0x2 | 0x4 | 0x4000 | 0x8000


def _check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option, value=0, what="prctl"):
    """Calls prctl(2) with one argument."""
    unsigned = ctypes.c_ulong
    return _check(_libc.prctl(option, unsigned(value), unsigned(0), unsigned(0), unsigned(0)), what)


def setns(descriptor, kind):
    """Enters the namespace `kind` that a descriptor stands for."""
    _check(_libc.setns(descriptor, NAMESPACES[kind]), f"setns {kind}")


def sethostname(name):
    """Sets the host name of the uts namespace."""
    raw = name.encode()
    _check(_libc.sethostname(raw, ctypes.c_size_t(len(raw))), "sethostname")


def fork():
    """Forks without telling Python's libraries: for a child that makes a few system calls and ends.

    What `os.fork` runs in the child costs more than the fork. It is safe here since there is one thread.
    """
    number = _CLONE.get(os.uname().machine)
    if number is None:
        return os.fork()
    return _check(_clone(number, ctypes.c_ulong(_SIGCHLD), 0, 0, 0, 0), "fork")


def fork_sibling():
    """Forks a child of this process's parent, of which Python and its libraries learn nothing.

    Only where there is one thread: nobody else holds a lock then, and no thread is missing in the child.
    Raises `OSError`, also where the way is not known: then `os.fork` is left.
    """
    machine = os.uname().machine
    number = _CLONE.get(machine)
    if number is None:
        raise OSError(38, f"fork: the call is not known for `{machine}`")
    # Where libc keeps the number of its thread; a fork by libc itself writes it there too (clone(2)).
    place = ctypes.c_void_p()
    zero = ctypes.c_ulong(0)
    _check(
        _libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(place), zero, zero, zero), "ask for the thread's place"
    )
    flags = ctypes.c_ulong(_CLONE_PARENT | _CLONE_CHILD_CLEARTID | _CLONE_CHILD_SETTID | _SIGCHLD)
    last = (place, zero) if machine == "x86_64" else (zero, place)
    return _check(_clone(number, flags, zero, zero, *last), "fork")


def written_pages(count):
    """Returns private memory of that many pages, each of which was written to."""
    pages = mmap.mmap(-1, count * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    time_of_writing(pages)
    return pages


def time_of_writing(pages):
    """Writes to each page and returns how long the processor took, in seconds."""
    started = time.thread_time()
    for start in range(0, len(pages), mmap.PAGESIZE):
        pages[start] = 1
    return time.thread_time() - started


def written_since_fork(most_looked_at):
    """Returns which pages this process has to itself: it has written to them since it forked.

    By the number of an area's first page there is a byte for each page, 0 or 1. None if there is more to look
    at than so many pages. See https://docs.kernel.org/admin-guide/mm/pagemap.html.
    """
    areas = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            place, rights, _ = line.split(" ", 2)
            if rights == "rw-p":
                start, end = (int(text, 16) // mmap.PAGESIZE for text in place.split("-"))
                # A large one is an array, or mostly empty.
                if end - start <= _LARGE:
                    areas.append((start, end - start))
    if sum(count for _, count in areas) > most_looked_at:
        return None
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        return {
            start: os.pread(pagemap.fileno(), count * 8, start * 8)[7::8].translate(_IS_OWN)
            for start, count in areas
        }


def write_ahead(page, count):
    """Has pages copied now that a fork shares, instead of at the next write (madvise(2), Linux 5.14)."""
    address, length = page * mmap.PAGESIZE, count * mmap.PAGESIZE
    _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), _MADV_POPULATE_WRITE)


def processor_times():
    """Returns for how long this thread has run, and for how long it has waited for a processor, in seconds.

    Nothing where Linux does not say. See https://docs.kernel.org/scheduler/sched-stats.html.
    """
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            ran, waited, _ = file.read(128).split()
    except (OSError, ValueError):
        return 0.0, 0.0
    return int(ran) / 1e9, int(waited) / 1e9


def pause_openmp():
    """Ends the threads that OpenMP keeps, in each of its runtimes: a child would wait for them for ever.

    They are made again by the next region that runs in parallel.
    """
    with open("/proc/self/maps") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if "omp" in line and "/" in line}
    for path in paths:
        if re.match(r"lib(g|i)?omp\d*[-.]", os.path.basename(path)):
            # Only those that are loaded already. Not by ctypes' own classes: they make output strict, see
            # `streams.py`.
            try:
                library = _ctypes.dlopen(path, os.RTLD_NOLOAD | os.RTLD_NOW)
                pause = _ctypes.dlsym(library, "omp_pause_resource_all")
            except OSError:
                continue
            ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(pause)(_OMP_PAUSE_HARD)


def map_shared(address, length, descriptor):
    """Maps a descriptor over memory that this process has mapped already."""
    result = _mmap(address, length, _PROT_READ_WRITE, _MAP_SHARED_FIXED, descriptor, 0)
    _check(-1 if result == ctypes.c_void_p(-1).value else 0, "map the ring")


def collapse_memory():
    """Puts the memory of this process into huge pages where it can: a fork copies one entry instead of 512.

    Only a matter of speed (madvise(2), MADV_COLLAPSE, Linux 6.1): where it does not work nothing is said.
    """
    with open("/proc/self/maps") as maps:
        areas = [line.split() for line in maps]
    for fields in areas:
        name = fields[5] if len(fields) > 5 else ""
        if fields[1].startswith("rw") and fields[4] == "0" and name in ("", "[heap]"):
            start, end = (int(text, 16) for text in fields[0].split("-"))
            start, end = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
            if start < end:
                _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE)


def _close_range(first, last):
    return _syscall(_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(0))


def close_all_but(keep):
    """Closes every descriptor that is not in `keep`."""
    start = 0
    for descriptor in [*sorted(keep), None]:
        end = 0xFFFFFFFF if descriptor is None else descriptor - 1
        if start <= end and _close_range(start, end) < 0:
            # A kernel before 5.9, or a filter that does not know the call.
            os.closerange(start, min(end + 1, os.sysconf("SC_OPEN_MAX")))
        start = (descriptor or 0) + 1


def drop_bounding_set():
    """Empties the bounding set: nothing executed later can gain a capability."""
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            if ctypes.get_errno() == 22:
                # EINVAL: the last one this kernel knows was the one before.
                return
            _check(-1, f"drop capability {capability} from the bounding set")


def drop_capabilities():
    """Empties the ambient, permitted, effective and inheritable sets."""
    ambient = ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL)
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(PR_CAP_AMBIENT, ambient, zero, zero, zero), "clear the ambient capabilities")
    header = struct.pack("<Ii", 0x20080522, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def landlock(abi, rules):
    """Restricts this process to `rules`, pairs of path and allowed rights, in everything `abi` can handle."""
    handled = (1 << _LANDLOCK_FILE_RIGHTS.get(abi, 16)) - 1
    attribute = struct.pack("<Q", handled)
    if abi >= 6:
        # Scopes: no abstract sockets and no signals out of here (the agent is PID 1 of the same namespace).
        attribute = struct.pack("<QQQ", handled, 0, 3)
    ruleset = _check(
        _syscall(_LANDLOCK_CREATE, attribute, ctypes.c_size_t(len(attribute)), ctypes.c_uint(0)),
        "landlock_create_ruleset",
    )
    try:
        for path, access in rules:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rights = access & handled
                if not os.path.isdir(path):
                    rights &= _LANDLOCK_OF_FILES
                rule = struct.pack("<Qi", rights, place)
                _check(
                    _syscall(_LANDLOCK_ADD, ruleset, 1, rule, ctypes.c_uint(0)), f"landlock_add_rule {path}"
                )
            finally:
                os.close(place)
        _check(_syscall(_LANDLOCK_RESTRICT, ruleset, ctypes.c_uint(0)), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def seccomp(program):
    """Installs a BPF program, bytes of `struct sock_filter`, as the filter of all threads."""
    if not program or len(program) % 8:
        raise OSError(22, "seccomp: the program is not a list of 8-byte instructions")
    number = _SECCOMP.get(os.uname().machine)
    if number is None:
        raise OSError(38, f"seccomp: no filter is known for `{os.uname().machine}`")
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: unsigned short len, padding, pointer
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    _check(_syscall(number, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, header), "seccomp")
