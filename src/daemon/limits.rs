//! The system's limit of open files.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// Files beside those of clients and engines: binlogs, listeners, replicas, snapshots in transfer.
const RESERVED: u64 = 1024;

/// Why `maxclients` may be out of reach.
#[derive(Debug, thiserror::Error)]
pub enum OpenFilesError {
    #[error("the limit of open files cannot be read or raised: {0}")]
    System(#[from] nix::Error),
    #[error(
        "the limit of {limit} open files leaves no room for maxclients {maxclients}; raise it (ulimit -n, LimitNOFILE) or lower maxclients"
    )]
    TooLow { limit: u64, maxclients: u64 },
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
        return Err(OpenFilesError::TooLow { limit, maxclients });
    }
    Ok(())
}
