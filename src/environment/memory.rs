//! How much memory this process may use, and what that leaves for what only makes it faster.

use std::{fs::read_to_string, path::Path};

/// With less, less is kept in memory and fewer things are done at once.
const ENOUGH_BYTES: u64 = 384 << 20;

/// What a backup or a restore may take even so.
pub const MEMORY_MIN_BYTES: u64 = 160 << 20;

/// Returns how many bytes of memory the control groups (version 2) of this process grant it: the least that its own
/// and those above it do. None if they set no limit. `root` is `/`, the folder that holds `proc` and `sys`.
pub fn memory_max(root: &Path) -> Option<u64> {
    let groups = read_to_string(root.join("proc/self/cgroup")).ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let granted = |group: &Path| {
        let limit = read_to_string(root.join("sys/fs/cgroup").join(group).join("memory.max")).ok()?;
        limit.trim().parse::<u64>().ok()
    };
    Path::new(own).ancestors().filter_map(granted).min()
}

/// Returns how much of `wish` there is room for in a process that is granted `memory_max` bytes; never nothing.
pub fn afforded(wish: usize, memory_max: Option<u64>) -> usize {
    let granted = memory_max.unwrap_or(ENOUGH_BYTES).min(ENOUGH_BYTES);
    let part = wish as u128 * u128::from(granted) / u128::from(ENOUGH_BYTES);
    usize::try_from(part).unwrap_or(wish).max(1)
}
