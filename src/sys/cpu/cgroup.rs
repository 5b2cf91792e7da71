//! The cgroup of this process: its CPU quota, through every ancestor, and its out-of-memory kills.
//!
//! Reads `/proc/self/cgroup` and `/proc/self/mountinfo`, as cgroups(7) describes, for v1, v2 and both at
//! once. num_cpus and std each look at less: the group itself alone, or v2's ancestors but not v1's.

use std::fs;
use std::path::{Path, PathBuf};

/// One group, with those above it: `folder`, and its ancestors down to `root`, where the hierarchy is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    version: Version,
    root: PathBuf,
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The smallest CPU quota among this process's group and its ancestors, in CPUs; `None` is no limit.
pub fn cpu_quota() -> Option<f64> {
    quota_below(Path::new("/"))
}

/// How many processes of this process's group the kernel killed for want of memory; the whole machine's
/// count where the group doesn't tell.
pub fn memory_kills() -> Option<u64> {
    let groups = groups(Path::new("/"), "memory");
    let of_group = groups.iter().find_map(|group| {
        let file = match group.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        counter(&group.folder.join(file))
    });
    of_group.or_else(|| counter(Path::new("/proc/vmstat")))
}

/// The value of the line `oom_kill N`.
fn counter(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value?.trim().parse().ok()
}

/// `cpu_quota` with `/proc` and the mount points looked up below `base`.
fn quota_below(base: &Path) -> Option<f64> {
    let groups = groups(base, "cpu");
    let quotas = groups.iter().flat_map(|group| {
        let within = |folder: &&Path| folder.starts_with(&group.root);
        let folders = group.folder.ancestors().take_while(within);
        folders.filter_map(|folder| folder_quota(group.version, folder))
    });
    quotas.min_by(f64::total_cmp)
}

/// The quota that one group's own files state, in CPUs.
fn folder_quota(version: Version, folder: &Path) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let (quota, period) = match version {
        Version::V2 => {
            let text = read("cpu.max")?;
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        Version::V1 => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // No limit is "max" in v2 and -1 in v1: neither parses as a positive number.
    let quota: f64 = quota.trim().parse().ok().filter(|quota| *quota > 0.0)?;
    let period: f64 = period.trim().parse().ok().filter(|period| *period > 0.0)?;
    Some(quota / period)
}

/// The groups that this process is in and that may carry `controller`: one of v1, one of v2.
fn groups(base: &Path, controller: &str) -> Vec<Group> {
    let memberships = fs::read_to_string(base.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = fs::read_to_string(base.join("proc/self/mountinfo")).unwrap_or_default();
    let found = memberships.lines().filter_map(|line| {
        // hierarchy-ID:controller-list:path; v2 is "0::path".
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let version = if id == "0" && controllers.is_empty() {
            Version::V2
        } else if controllers.split(',').any(|name| name == controller) {
            Version::V1
        } else {
            return None;
        };
        let (mounted, root) = mount_point(&mounts, version, controller)?;
        // Seen from a container, the mount may begin at a group below the top.
        let relative = Path::new(path).strip_prefix(mounted).ok()?;
        let root = base.join(Path::new(root).strip_prefix("/").ok()?);
        Some(Group { version, folder: root.join(relative), root })
    });
    found.collect()
}

/// Which group is mounted where, from the lines of mountinfo (proc_pid_mountinfo(5)).
fn mount_point<'m>(
    mounts: &'m str,
    version: Version,
    controller: &str,
) -> Option<(&'m str, &'m str)> {
    mounts.lines().find_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let kind = filesystem.next()?;
        let options = filesystem.nth(1).unwrap_or_default();
        let fits = match version {
            Version::V2 => kind == "cgroup2",
            Version::V1 => kind == "cgroup" && options.split(',').any(|name| name == controller),
        };
        let mut place = place.split(' ').skip(3);
        fits.then(|| Some((place.next()?, place.next()?))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine's files, made below a folder of its own.
    fn quota_of(name: &str, files: &[(&str, &str)]) -> Option<f64> {
        let base =
            std::env::temp_dir().join(format!("laneway-cgroup-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = base.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let quota = quota_below(&base);
        fs::remove_dir_all(&base).unwrap();
        quota
    }

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
    const V1: &str = "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

    #[test]
    fn the_smallest_quota_of_nested_v2_groups_decides() {
        let quota = quota_of(
            "v2",
            &[
                ("proc/self/cgroup", "0::/a/b\n"),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
                ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ],
        );
        assert_eq!(quota, Some(1.5));
    }

    #[test]
    fn the_smallest_quota_of_nested_v1_groups_decides() {
        let quota = quota_of(
            "v1",
            &[
                ("proc/self/cgroup", "4:memory:/a\n3:cpu,cpuacct:/a/b\n0::/\n"),
                ("proc/self/mountinfo", V1),
                ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(quota, Some(0.5));
    }

    #[test]
    fn a_mount_that_begins_below_the_top_is_followed() {
        let quota = quota_of(
            "container",
            &[
                ("proc/self/cgroup", "0::/docker/x/inner\n"),
                (
                    "proc/self/mountinfo",
                    "30 23 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
                ),
                ("sys/fs/cgroup/cpu.max", "300000 100000\n"),
                ("sys/fs/cgroup/inner/cpu.max", "max 100000\n"),
            ],
        );
        assert_eq!(quota, Some(3.0));
    }

    #[test]
    fn no_files_and_no_limit_are_no_quota() {
        assert_eq!(quota_of("none", &[("proc/self/cgroup", "")]), None);
        let unlimited = [
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ];
        assert_eq!(quota_of("unlimited", &unlimited), None);
    }
}
