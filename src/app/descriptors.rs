//! The limit of file descriptors: raised to what the process may have, since each relayed connection takes two.
//!
//! A limit that stays too low is no reason not to start: it is told, and `accept` then waits for descriptors.

use crate::limits::DESCRIPTORS_OF_THE_PROCESS;
use rlimit::Resource;

/// Raises the soft limit to the hard one, and warns where that is not enough for `connections_max` connections.
pub fn raise_limit(connections_max: usize) {
    let raised = Resource::NOFILE.get().and_then(|(soft, hard)| {
        Resource::NOFILE.set(hard, hard)?;
        Ok((soft, hard))
    });
    let limit = match raised {
        Ok((before, limit)) => {
            tracing::info!(before, limit, "file descriptors");
            limit
        }
        Err(error) => {
            tracing::warn!(%error, "the limit of file descriptors could not be raised");
            Resource::NOFILE.get_soft().unwrap_or(0)
        }
    };
    let needed = needed(connections_max);
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            "too few file descriptors for limits.connections_max: raise the container's limit, or lower the key"
        );
    }
}

fn needed(connections_max: usize) -> u64 {
    u64::try_from(connections_max)
        .unwrap_or(u64::MAX)
        .saturating_mul(2)
        .saturating_add(DESCRIPTORS_OF_THE_PROCESS)
}
