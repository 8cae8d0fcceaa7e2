//! Groups on hosts of different kinds, as far as they can be told from text and directories.

use super::*;

const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

#[test]
fn a_mixed_host_has_a_hierarchy_for_each_controller() {
    let own = "8:memory:/box/7\n6:freezer:/\n2:cpu,cpuacct:/box\n0::/\n";
    let found = find(HYBRID_MOUNTS, own);
    let paths: Vec<_> = found
        .iter()
        .map(|hierarchy| hierarchy.path.to_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "/sys/fs/cgroup/cpu,cpuacct/box",
            "/sys/fs/cgroup/memory/box/7",
            "/sys/fs/cgroup/unified/"
        ]
    );
    assert_eq!(found[0].controllers, [Controller::Cpu, Controller::Cpuacct]);
}

#[test]
fn our_group_is_found_in_a_container_that_sees_only_a_part() {
    let mounts = "41 31 0:38 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate";
    let found = find(mounts, "0::/docker/abc/inner\n");
    assert_eq!(found[0].path, Path::new("/sys/fs/cgroup/inner"));
    assert!(find(mounts, "0::/elsewhere\n").is_empty());
}

#[test]
fn version_2_limits_are_written_as_it_wants_them() {
    let directory = tempfile::tempdir().unwrap();
    let group = directory.path();
    fs::write(group.join("memory.swap.max"), "max").unwrap();
    let hierarchy = Hierarchy {
        version: Version::V2,
        controllers: vec![Controller::Memory, Controller::Pids, Controller::Cpu],
        path: group.to_owned(),
    };
    let limits = Limits {
        memory_bytes: 1 << 20,
        cpu_millis: 1500,
        processes: 7,
        ..Limits::default()
    };
    v2::limit(&hierarchy, &limits).unwrap();
    let read = |file: &str| fs::read_to_string(group.join(file)).unwrap();
    // As much again for a checkpoint.
    assert_eq!(read("memory.max"), "2097152");
    assert_eq!(read("memory.swap.max"), "0");
    assert_eq!(read("pids.max"), "19");
    assert_eq!(read("cpu.max"), "150000 100000");
}
