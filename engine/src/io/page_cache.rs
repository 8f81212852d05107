//! How much memory the page cache may have.
//!
//! Owns: [`page_cache_bytes`]. What a process reads through the cache counts against the limit of its control group.

use std::fs;
use std::path::Path;

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// Returns the most memory that the page cache may have for this process, in bytes: that of the machine, or the limit
/// of its control group.
pub fn page_cache_bytes() -> u64 {
    let machine = rustix::system::sysinfo();
    let memory = machine.totalram.saturating_mul(machine.mem_unit.into());
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let read = |file: &Path| fs::read_to_string(file).ok();
    memory.min(limit_bytes(&groups, read).unwrap_or(u64::MAX))
}

/// Returns the lowest limit of the groups that `groups` lists (`cgroups(7)`, "/proc files"), and of those around them.
fn limit_bytes(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut limits = Vec::new();
    for group in groups.lines() {
        let mut fields = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, files): (_, &[&str]) = if controllers.is_empty() {
            // Above "high" the kernel takes pages away, below "max" in any case.
            (GROUPS.into(), &["memory.max", "memory.high"])
        } else if controllers.split(',').any(|name| name == "memory") {
            (Path::new(GROUPS).join("memory"), &["memory.limit_in_bytes"])
        } else {
            continue;
        };
        // In a container the path may be that of the host, and only the mount itself is there.
        for group in Path::new(group).ancestors() {
            let group = mount.join(group.strip_prefix("/").unwrap_or(group));
            let found = files.iter().filter_map(|file| read(&group.join(file)));
            // Without a limit the file has no number.
            limits.extend(found.filter_map(|text| text.trim().parse::<u64>().ok()));
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the lowest limit counts, of the own group or of one around it, of either version of control groups, also
    /// where the path is that of the host.
    #[test]
    fn the_lowest_limit_counts() {
        let files = |file: &Path| {
            let text = match file.to_str()? {
                "/sys/fs/cgroup/a/memory.max" => "3000\n",
                "/sys/fs/cgroup/a/b/memory.max" => "5000\n",
                "/sys/fs/cgroup/d/memory.high" => "2000\n",
                "/sys/fs/cgroup/memory.max" => "max\n",
                "/sys/fs/cgroup/memory/c/memory.limit_in_bytes" => "7000\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes" => "9223372036854771712\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        for (groups, limit) in [
            ("0::/a/b\n", Some(3000)),
            ("0::/d\n", Some(2000)),
            ("0::/\n", None),
            ("12:cpu:/c\n9:hugetlb,memory:/c\n0::/\n", Some(7000)),
            ("9:memory:/docker/x\n", Some(9_223_372_036_854_771_712)),
            ("0::/a:b\nnonsense\n", None),
            ("", None),
        ] {
            assert_eq!(limit_bytes(groups, files), limit, "{groups:?}");
        }
        assert!(page_cache_bytes() > 1 << 20);
    }
}
