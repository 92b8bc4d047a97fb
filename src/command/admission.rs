//! Whether the state of the server lets a command run: its memory, its replicas, its master.

use super::{CommandError, Flags};
use crate::server::Server;

/// The reason why a command with these flags is refused now; the same for a client's request, for the commands of a transaction when it
/// is executed, and for what a script calls.
pub fn refusal(server: &Server, flags: Flags) -> Option<CommandError> {
    if flags.has(Flags::DENYOOM) && is_out_of_memory(server) {
        return Some(CommandError::Static("OOM command not allowed when used memory > 'maxmemory'."));
    }
    if flags.has(Flags::WRITE) && lacks_replicas(server) {
        return Some(CommandError::Static("NOREPLICAS Not enough good replicas to write."));
    }
    if !flags.has(Flags::STALE) && is_stale(server) {
        return Some(CommandError::Static(
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        ));
    }
    None
}

/// Whether more memory is in use than `maxmemory` allows, as of the last 100 ms.
pub fn is_out_of_memory(server: &Server) -> bool {
    let limit = server.config.maxmemory();
    limit > 0 && server.stats.used_memory() > limit
}

/// Whether this is a master that has fewer replicas online than `min-replicas-to-write` asks for.
pub fn lacks_replicas(server: &Server) -> bool {
    let (wanted, lag) = (server.config.min_replicas_to_write(), server.config.min_replicas_max_lag());
    wanted > 0 && !lag.is_zero() && !server.replication.is_slave() && server.replication.online_replicas(lag) < wanted
}

/// Whether this is a replica without a link to its master that `slave-serve-stale-data` tells not to answer.
pub fn is_stale(server: &Server) -> bool {
    !server.config.slave_serve_stale_data() && server.replication.is_slave() && !server.replication.is_linked()
}
