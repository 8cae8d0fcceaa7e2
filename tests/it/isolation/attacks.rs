//! Reaching out of the sandbox.

use super::{Arena, tries};
use crate::harness::backend::in_containers;

/// That every one of these fails: with an exception, with an error number, or by reading nothing.
async fn all_fail(arena: &Arena, expressions: &[&str]) {
    let printed = arena.server.prints("attacker", &tries(expressions)).await;
    let outcomes: Vec<&str> = printed.lines().collect();
    assert_eq!(outcomes.len(), expressions.len(), "{printed}");
    let failures = [
        "Error",
        "gaierror",
        "EPERM",
        "EACCES",
        "ENOSYS",
        "ENOENT",
        "EINVAL",
        "EAFNOSUPPORT",
        "ESRCH",
        "EROFS",
        "ENODEV",
        "ENOTDIR",
        "EBADF",
        "ENXIO",
        "EPROTONOSUPPORT",
    ];
    for (expression, outcome) in expressions.iter().zip(outcomes) {
        let nothing = ["", "b''"].contains(&outcome);
        assert!(
            nothing || failures.iter().any(|failure| outcome.ends_with(failure)),
            "{expression} gave {outcome}"
        );
    }
}

#[tokio::test]
async fn a_kernel_cannot_read_host_files() {
    let arena = Arena::new().await;
    let data = arena.server.data_dir().display().to_string();
    let here = env!("CARGO_MANIFEST_DIR");
    let mut expressions = vec![
        format!("os.listdir({data:?})"),
        format!("open({here:?} + '/Cargo.toml').read()"),
        "open('/etc/shadow').read()".to_owned(),
        "open('/etc/ssh/sshd_config').read()".to_owned(),
        "os.listdir('/home/user/../../srv')".to_owned(),
        "open('/proc/1/environ').read()".to_owned(),
        "os.listdir('/proc/1/root')".to_owned(),
        "os.listdir('/proc/1/cwd')".to_owned(),
        "os.listdir('/proc/1/fd')".to_owned(),
        "open('/proc/1/mem', 'rb').read(1)".to_owned(),
    ];
    if in_containers() {
        // Those directories are there, and the image's; but what /sys tells of the machine is not.
        for of_machine in ["block", "bus", "class", "devices", "module"] {
            expressions.push(format!("os.listdir('/sys/{of_machine}')[0]"));
        }
    } else {
        for of_host in ["/var/lib", "/boot", "/sys"] {
            expressions.push(format!("os.listdir({of_host:?})"));
        }
    }
    all_fail(
        &arena,
        &expressions.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    arena
        .attack(
            "import os\nprint(os.listdir('/home'), not os.access('/root', os.R_OK) or os.listdir('/root') in ([], ['.pyenv'], ['.local']))",
            "['user'] True",
        )
        .await;
    // Whatever is on the way to Python itself is an empty shell.
    arena
        .attack(
            "import os, sys\nhomes = [p for p in ('/root', '/home', '/srv', '/opt', '/mnt', '/media') if os.path.isdir(p)]\n\
             print([p for p in homes for f in ('.bash_history', '.ssh', '.bashrc', '.cargo') if os.path.exists(f'{p}/{f}')])",
            "[]",
        )
        .await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_kernel_cannot_write_but_where_it_may() {
    let arena = Arena::new().await;
    all_fail(
        &arena,
        &[
            "open('/usr/bin/evil', 'w')",
            "open('/etc/passwd', 'a')",
            "open('/evil', 'w')",
            "open('/opt/evercell/evil', 'w')",
            "open(os.__file__, 'a')",
            "open('/proc/sys/kernel/core_pattern', 'w')",
            "open('/proc/sysrq-trigger', 'w')",
            "os.mknod('/tmp/disk', 0o600 | 0o060000, os.makedev(8, 0))",
            "os.chmod('/usr/bin/env', 0o777)",
            "open('/dev/evil', 'w')",
        ],
    )
    .await;
    arena.attack("open('/tmp/a', 'w').write('1'); open('a', 'w').write('1'); open('/dev/shm/a', 'w').write('1'); print('ok')", "ok").await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_kernel_sees_no_process_but_its_own() {
    let arena = Arena::new().await;
    arena.attack("import os\n# The process that forked this one may still be ending.\nwhile os.getppid() != 1: pass\nprint(len([p for p in os.listdir('/proc') if p.isdigit()]) <= 3, os.getppid())", "True 1").await;
    // Nobody beyond PID 1 can be signalled, and PID 1 does not mind.
    arena
        .attack(
            "import os, signal\nfor p in list(range(2, 70000)):\n    if p != os.getpid():\n        try: os.kill(p, signal.SIGKILL)\n        except OSError: pass\n\
             for s in (9, 15, 19, 1, 2, 3, 6, 11):\n    try: os.kill(1, s)\n    except OSError: pass\nprint('alive')",
            "alive",
        )
        .await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_kernel_has_no_network() {
    let arena = Arena::new().await;
    let port = arena.server.address.rsplit(':').next().unwrap().to_owned();
    let expressions = [
        format!("socket.create_connection(('127.0.0.1', {port}), 2)"),
        "socket.create_connection(('1.1.1.1', 53), 2)".to_owned(),
        "socket.getaddrinfo('example.org', 80)".to_owned(),
        "socket.socket(socket.AF_UNIX).connect('/run/docker.sock')".to_owned(),
        "socket.socket(socket.AF_UNIX).connect('/var/run/dbus/system_bus_socket')".to_owned(),
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)".to_owned(),
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)".to_owned(),
        "socket.socket(40, socket.SOCK_STREAM)".to_owned(), // AF_VSOCK, the way to a hypervisor
        "socket.socket(38, socket.SOCK_SEQPACKET)".to_owned(), // AF_ALG, the kernel's ciphers
        "socket.socket(socket.AF_UNIX).connect('\\0@/tmp/.X11-unix/X0')".to_owned(),
    ];
    all_fail(
        &arena,
        &expressions.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    // Within itself it may speak: libraries do.
    arena
        .attack("import socket\ns = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); print('own loopback')", "own loopback")
        .await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn system_calls_that_lead_out_are_refused() {
    let arena = Arena::new().await;
    // By number on x86_64: the C library has no names for most of them.
    let calls = [
        ("ptrace", "101, 16, 1, 0, 0"),
        ("process_vm_readv", "310, 1, 0, 0, 0, 0, 0"),
        ("keyctl", "250, 0, -3, 0, 0, 0"),
        ("add_key", "248, b'user', b'k', b'v', 1, -3"),
        ("request_key", "249, b'user', b'k', 0, -3"),
        ("bpf", "321, 0, 0, 0"),
        ("perf_event_open", "298, 0, 0, 0, 0, 0"),
        ("userfaultfd", "323, 0"),
        ("io_uring_setup", "425, 1, 0"),
        ("kexec_load", "246, 0, 0, 0, 0"),
        ("kexec_file_load", "320, 0, 0, 0, 0, 0"),
        ("init_module", "175, 0, 0, 0"),
        ("finit_module", "313, 0, 0, 0"),
        ("delete_module", "176, 0, 0"),
        ("reboot", "169, 0xfee1dead, 672274793, 0x1234567, 0"),
        ("swapon", "167, b'/tmp/x', 0"),
        ("mount", "165, b'none', b'/tmp', b'tmpfs', 0, 0"),
        ("umount2", "166, b'/proc', 2"),
        ("pivot_root", "155, b'/', b'/'"),
        ("chroot", "161, b'/tmp'"),
        ("open_tree", "428, -100, b'/', 1"),
        ("move_mount", "429, -1, b'', -1, b'', 4"),
        ("fsopen", "430, b'tmpfs', 0"),
        ("mount_setattr", "442, -100, b'/', 0, 0, 0"),
        ("setns", "308, 0, 0"),
        ("unshare user", "272, 0x10000000"),
        ("unshare net", "272, 0x40000000"),
        (
            "clone into a new user namespace",
            "56, 0x10000011, 0, 0, 0, 0",
        ),
        ("name_to_handle_at", "303, -100, b'/', 0, 0, 0"),
        ("open_by_handle_at", "304, -100, 0, 0"),
        ("settimeofday", "164, 0, 0"),
        ("clock_settime", "227, 0, 0"),
        ("sethostname", "170, b'x', 1"),
        ("iopl", "172, 3"),
        ("ioperm", "173, 0, 1, 1"),
        ("acct", "163, 0"),
        ("quotactl", "179, 0, 0, 0, 0"),
        ("syslog", "103, 3, 0, 0"),
        ("personality", "135, 0x0040000"),
        ("pidfd_getfd", "438, 0, 0, 0"),
        ("kcmp", "312, 1, 1, 0, 0, 0"),
        ("lookup_dcookie", "212, 0, 0, 0"),
        ("fanotify_init", "300, 0, 0"),
        ("move_pages", "279, 1, 0, 0, 0, 0, 0"),
        ("setuid", "105, 0"),
        ("setgid", "106, 0"),
        ("setgroups", "116, 1, b'\\0\\0\\0\\0'"),
        ("capset", "126, 0, 0"),
    ];
    let expressions: Vec<String> = calls
        .iter()
        .map(|(_, call)| format!("call({call})"))
        .collect();
    let printed = arena
        .server
        .prints(
            "attacker",
            &tries(&expressions.iter().map(String::as_str).collect::<Vec<_>>()),
        )
        .await;
    let outcomes: Vec<&str> = printed.lines().collect();
    assert_eq!(outcomes.len(), calls.len(), "{printed}");
    for ((name, _), outcome) in calls.iter().zip(outcomes) {
        // An id that is not mapped is no id at all: EINVAL.
        let refusals: &[&str] = if name.starts_with("set") {
            &["EPERM", "ENOSYS", "EACCES", "EINVAL"]
        } else {
            &["EPERM", "ENOSYS", "EACCES"]
        };
        assert!(refusals.contains(&outcome), "{name} gave {outcome}");
    }
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_kernel_cannot_keep_its_agent_from_the_processors() {
    let arena = Arena::new().await;
    all_fail(
        &arena,
        &[
            "os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))",
            "os.sched_setparam(1, os.sched_param(0))",
            "os.sched_setaffinity(1, os.sched_getaffinity(0))",
            "os.setpriority(os.PRIO_PROCESS, 1, 19)",
            "os.setpriority(os.PRIO_PGRP, 0, 19)",
            "os.setpriority(os.PRIO_USER, 0, 19)",
            // By number: what the C library has no names for, and what hides in the half of an argument at which Linux does not look.
            "call(314, 1, b'0\\0\\0\\0\\5\\0\\0\\0' + bytes(40), 0)",
            "call(251, 1, 1, 0x6000)",
            "call(251, 3, 0, 0x6000)",
            "call(144, ctypes.c_long(0x100000001), 5, bytes(4))",
            "call(141, ctypes.c_long(0x100000000), ctypes.c_long(0x100000001), 19)",
        ],
    )
    .await;
    // Libraries pin their own threads, by number.
    arena
        .attack(
            "import os, threading\n\
             def pins():\n    me = threading.get_native_id(); os.sched_setaffinity(me, os.sched_getaffinity(0)); os.setpriority(os.PRIO_PROCESS, me, 19)\n    os.sched_setscheduler(me, os.SCHED_BATCH, os.sched_param(0)); print(me != os.getpid())\n\
             thread = threading.Thread(target=pins); thread.start(); thread.join()",
            "True",
        )
        .await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_kernel_has_no_privileges_and_gets_none() {
    let arena = Arena::new().await;
    arena
        .attack(
            "fields = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)\n\
             print([fields[f].strip() for f in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp')])",
            "['0000000000000000', '0000000000000000', '0000000000000000', '0000000000000000', '0000000000000000', '1', '2']",
        )
        .await;
    // A file that is setuid root, should there be one, gives nothing.
    arena
        .attack(
            "import subprocess\nprint(subprocess.run(['/bin/su', '-c', 'id -u'], capture_output=True, stdin=subprocess.DEVNULL).returncode != 0)",
            "True",
        )
        .await;
    arena
        .attack(
            "import os, subprocess, shutil\nshutil.copy('/usr/bin/id', '/tmp/id'); os.chmod('/tmp/id', 0o4755)\n\
             print(subprocess.run(['/tmp/id', '-u'], capture_output=True, text=True).stdout.strip() not in ('', '0'))",
            "True",
        )
        .await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_kernel_sees_nothing_of_the_host_in_proc() {
    let arena = Arena::new().await;
    all_fail(
        &arena,
        &[
            "open('/proc/kcore', 'rb').read(1)",
            "open('/proc/kallsyms').readline()",
            "open('/proc/kmsg').readline()",
            "open('/proc/keys').read(1)",
            "open('/proc/timer_list').read(1)",
            "open('/proc/sched_debug').read(1)",
            "open('/proc/sys/kernel/hostname', 'w')",
            "open('/proc/sys/vm/drop_caches', 'w')",
            "open('/proc/self/oom_score_adj', 'w').write('-1000')",
        ],
    )
    .await;
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    arena.attack(&format!("import os\nprint(os.uname().nodename, os.uname().nodename == {hostname:?} != 'evercell')"), "evercell False").await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_kernel_cannot_nest_namespaces() {
    let arena = Arena::new().await;
    arena
        .attack(
            "import subprocess\nprint([subprocess.run(['unshare', flag, 'true'], capture_output=True).returncode != 0 for flag in ('-U', '-Ur', '-n', '-m', '-p', '-i', '-u', '-C')])",
            "[True, True, True, True, True, True, True, True]",
        )
        .await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn one_kernel_knows_nothing_of_another() {
    let arena = Arena::new().await;
    arena
        .attack(
            "import os, glob\nfound = [p for p in glob.glob('/workspace/*') + glob.glob('/tmp/*') + glob.glob('/dev/shm/*')]\n\
             print(found, 'secret' in globals())",
            "[] False",
        )
        .await;
    // Shared memory and message queues of System V are one's own too.
    arena
        .attack(&tries(&["libc.shmget(4242, 4096, 0o1666) >= 0"]), "True")
        .await;
    let other = arena
        .server
        .prints("victim", &tries(&["libc.shmget(4242, 4096, 0o666)"]))
        .await;
    assert_eq!(other.trim_end(), "-1");
    arena.all_is_well().await;
}
