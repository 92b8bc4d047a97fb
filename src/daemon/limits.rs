//! The system's limit of open files, and how it is shared: some for clients, some for the engines, and the rest is kept for what must not
//! fail because clients have come: the binlogs' next files, flushes, snapshots, replicas.

use std::os::fd::RawFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// Files beside those of clients and engines: binlogs, listeners, replicas, snapshots in transfer.
const RESERVED: u64 = 1024;
/// Data files that an engine is given at least.
const MIN_A_SLOT: u64 = 32;

/// Why `maxclients` may be out of reach.
#[derive(Debug, thiserror::Error)]
pub enum OpenFilesError {
    #[error("the limit of open files cannot be read or raised: {0}")]
    System(#[from] nix::Error),
    #[error(
        "the limit of {limit} open files leaves no room for maxclients {maxclients}: about {possible} clients can connect; raise it (ulimit -n, LimitNOFILE) or lower maxclients"
    )]
    TooLow { limit: u64, maxclients: u64, possible: u64 },
}

/// Raises this process's limit of open files, as far as the system allows, to what `maxclients` and `max-open-files`
/// can need. After an error the server works, with fewer clients than it is meant for.
pub fn raise_open_files(config: &Config) -> Result<(), OpenFilesError> {
    let maxclients = config.maxclients() as u64;
    let slots = config.databases() as u64 * u64::from(config.slot_num());
    // -1 means every file there is.
    let a_slot = u64::try_from(config.max_open_files()).unwrap_or(u64::MAX);
    let wanted = (maxclients + RESERVED).saturating_add(slots.saturating_mul(a_slot));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = wanted.min(hard).max(soft);
    if limit > soft {
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    }
    if limit < maxclients + RESERVED {
        return Err(OpenFilesError::TooLow { limit, maxclients, possible: limit - reserved(limit) });
    }
    Ok(())
}

/// Data files that each slot may keep open: `max-open-files`, or fewer where the limit of the process would not do for all slots.
pub fn open_files_a_slot(config: &Config) -> i32 {
    let wanted = config.max_open_files();
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let slots = config.databases() as u64 * u64::from(config.slot_num());
    let clients = (config.maxclients() as u64).min(limit / 2);
    let share = limit.saturating_sub(clients + reserved(limit)) / slots.max(1);
    let share = i32::try_from(share.max(MIN_A_SLOT)).unwrap_or(i32::MAX);
    if wanted < 0 { share } else { wanted.min(share) }
}

/// The files of a limit that no client may take.
fn reserved(limit: u64) -> u64 {
    RESERVED.min(limit / 4)
}

/// The process's limit of open files, when a client with this file descriptor leaves too few. The system gives the lowest number that is free:
/// below this one all are in use.
pub fn without_room(fd: RawFd) -> Option<u64> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let fd = u64::try_from(fd).unwrap_or_default();
    (fd >= limit - reserved(limit)).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_do_not_get_the_last_files() {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let last = RawFd::try_from(limit - 1).unwrap_or(RawFd::MAX);
        assert_eq!(without_room(0), None);
        assert_eq!(without_room(last), (u64::try_from(last).unwrap() >= limit - reserved(limit)).then_some(limit));
        assert_eq!((reserved(200), reserved(1 << 20)), (50, RESERVED));
    }
}
