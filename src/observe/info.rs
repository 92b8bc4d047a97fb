//! INFO: what the server tells of itself, section by section, under Redis's field names.
//!
//! Every value is measured; a field of Redis that means nothing here is left out.

use std::{
    fmt::{Display, Write},
    fs,
    sync::atomic::Ordering::Relaxed,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        time::TimeVal,
    },
    unistd::{SysconfVar, sysconf},
};

use crate::{command::Command, net::ClientKind, script::ScriptKind, server::Server};

/// The Redis whose behaviour clients may expect; they detect features by it.
pub const REDIS_VERSION: &str = "7.4.0";
/// The version of this server.
pub const HAYPILE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// One section.
struct Section {
    name: &'static str,
    title: &'static str,
    /// Whether a plain INFO shows it.
    default: bool,
    write: fn(&Server, &mut Fields<'_>),
}

const SECTIONS: &[Section] = &[
    Section { name: "server", title: "Server", default: true, write: server_section },
    Section { name: "clients", title: "Clients", default: true, write: clients_section },
    Section { name: "memory", title: "Memory", default: true, write: memory_section },
    Section {
        name: "persistence",
        title: "Persistence",
        default: true,
        write: |server, out| server.persistence_info(out.0),
    },
    Section { name: "stats", title: "Stats", default: true, write: stats_section },
    Section {
        name: "replication",
        title: "Replication",
        default: true,
        write: |server, out| server.replication.info(out.0),
    },
    Section { name: "data", title: "Data", default: false, write: data_section },
    Section { name: "cpu", title: "CPU", default: true, write: cpu_section },
    Section { name: "commandstats", title: "Commandstats", default: false, write: commandstats_section },
    Section { name: "latencystats", title: "Latencystats", default: false, write: latencystats_section },
    Section { name: "errorstats", title: "Errorstats", default: true, write: errorstats_section },
    Section { name: "cluster", title: "Cluster", default: true, write: |_, out| out.field("cluster_enabled", 0) },
    Section { name: "keyspace", title: "Keyspace", default: true, write: keyspace_section },
];

/// The text of INFO with these section names, in any case: none or `default` = the usual ones, `all` and `everything` = all. Unknown
/// names give nothing. May take ms: not for a runtime thread.
pub fn render(server: &Server, names: &[&str]) -> String {
    let named = |name: &str| names.iter().any(|given| given.eq_ignore_ascii_case(name));
    let all = named("all") || named("everything");
    let default = names.is_empty() || named("default");
    let mut text = String::with_capacity(4096);
    for section in SECTIONS.iter().filter(|section| all || (default && section.default) || named(section.name)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str("# ");
        text.push_str(section.title);
        text.push_str("\r\n");
        (section.write)(server, &mut Fields(&mut text));
    }
    text
}

/// Writes `name:value` lines.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn field(&mut self, name: &str, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// The field if the value could be measured.
    fn known(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// Bytes as a number, then as text for people.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(&format!("{name}_human"), human(bytes));
    }
}

fn server_section(server: &Server, out: &mut Fields<'_>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let uptime = server.start_time.elapsed().unwrap_or_default().as_secs();
    out.field("redis_version", REDIS_VERSION);
    out.field("haypile_version", HAYPILE_VERSION);
    out.field("redis_mode", "standalone");
    out.known("os", operating_system());
    out.field("arch_bits", usize::BITS);
    out.field("process_id", std::process::id());
    out.field("run_id", &server.run_id);
    out.field("tcp_port", server.config.port());
    out.field("server_time_usec", now.as_micros());
    out.field("uptime_in_seconds", uptime);
    out.field("uptime_in_days", uptime / 86_400);
    out.known("executable", std::env::current_exe().ok().map(|path| path.display().to_string()));
    out.field("config_file", server.config.file().map(|path| path.display().to_string()).unwrap_or_default());
}

fn clients_section(server: &Server, out: &mut Fields<'_>) {
    out.field("connected_clients", server.clients.len());
    out.field("maxclients", server.config.maxclients());
    let (input, output) = server.clients.largest_buffers();
    out.field("client_recent_max_input_buffer", input);
    out.field("client_recent_max_output_buffer", output);
    out.field("blocked_clients", server.events.blocked.count() + server.pause.held());
    out.field("tracking_clients", server.events.tracking.clients());
    out.field("pubsub_clients", server.clients.count(ClientKind::Pubsub));
    out.field("watching_clients", server.clients.watching());
    out.field("total_blocking_keys", server.events.blocked.keys());
    out.field("total_watched_keys", server.events.watch.keys());
}

fn memory_section(server: &Server, out: &mut Fields<'_>) {
    let rss = resident_bytes();
    if let Some(memory) = server.stats.memory() {
        out.bytes("used_memory", memory.allocated);
        if let Some(rss) = rss {
            out.bytes("used_memory_rss", rss);
        }
        out.bytes("used_memory_peak", memory.peak);
        out.field("used_memory_peak_perc", format!("{:.2}%", percent(memory.allocated, memory.peak)));
        out.field("allocator_allocated", memory.allocated);
        out.field("allocator_active", memory.active);
        out.field("allocator_resident", memory.resident);
        out.field("allocator_frag_ratio", ratio(memory.active, memory.allocated));
        out.field("allocator_rss_ratio", ratio(memory.resident, memory.active));
        if let Some(rss) = rss {
            out.field("mem_fragmentation_ratio", ratio(rss, memory.allocated));
        }
    } else if let Some(rss) = rss {
        out.bytes("used_memory_rss", rss);
    }
    if let Some(total) = total_memory() {
        out.bytes("total_system_memory", total);
    }
    let (of_eval, of_functions) =
        (server.scripts.used_memory(ScriptKind::Eval), server.scripts.used_memory(ScriptKind::Function));
    let (scripts, scripts_bytes) = server.scripts.cached_scripts();
    let libraries = server.functions.current();
    let (library_count, function_count) = libraries.counts();
    let libraries_bytes: usize = libraries.iter().map(|library| library.code().len()).sum();
    out.bytes("used_memory_vm_eval", of_eval as u64);
    out.bytes("used_memory_lua", of_eval as u64);
    out.field("used_memory_scripts_eval", scripts_bytes);
    out.field("number_of_cached_scripts", scripts);
    out.field("number_of_functions", function_count);
    out.field("number_of_libraries", library_count);
    out.field("used_memory_vm_functions", of_functions);
    out.bytes("used_memory_vm_total", (of_eval + of_functions) as u64);
    out.field("used_memory_functions", libraries_bytes);
    out.bytes("used_memory_scripts", (scripts_bytes + libraries_bytes) as u64);
    out.field("mem_clients_normal", server.clients.memory());
    out.bytes("maxmemory", server.config.maxmemory());
    out.field("maxmemory_policy", server.config.maxmemory_policy());
    out.field("lazyfree_pending_objects", server.keyspace.retiring());
    let version = tikv_jemalloc_ctl::version::read().ok();
    out.known(
        "mem_allocator",
        version.and_then(|version| version.split('-').next()).map(|version| format!("jemalloc-{version}")),
    );
}

fn stats_section(server: &Server, out: &mut Fields<'_>) {
    let stats = &server.stats;
    let (bytes_in, bytes_out) = stats.bytes_per_second();
    out.field("total_connections_received", stats.connections_received.get());
    out.field("total_commands_processed", stats.commands.get());
    out.field("instantaneous_ops_per_sec", stats.ops_per_second().round());
    out.field("total_net_input_bytes", stats.net_in.get());
    out.field("total_net_output_bytes", stats.net_out.get());
    out.field("instantaneous_input_kbps", format!("{:.2}", bytes_in / 1024.0));
    out.field("instantaneous_output_kbps", format!("{:.2}", bytes_out / 1024.0));
    out.field("rejected_connections", stats.connections_rejected.get());
    let syncs = server.replication.sync_counts();
    out.field("sync_full", syncs.full);
    out.field("sync_partial_ok", syncs.partial_ok);
    out.field("sync_partial_err", syncs.partial_err);
    out.field("sync_dropped", syncs.dropped);
    out.field("sync_snapshots", syncs.snapshots);
    out.field("expired_keys", stats.expired_keys.get());
    out.field("expired_subkeys", stats.expired_fields.get());
    out.field("evicted_keys", 0);
    out.field("evicted_clients", stats.evicted_clients.get());
    // MIGRATE opens a connection each time.
    out.field("migrate_cached_sockets", 0);
    out.field("keyspace_hits", stats.keyspace_hits.get());
    out.field("keyspace_misses", stats.keyspace_misses.get());
    let (channels, patterns, shard_channels) = server.pubsub.counts();
    out.field("pubsub_channels", channels);
    out.field("pubsub_patterns", patterns);
    out.field("pubsubshard_channels", shard_channels);
    out.field("tracking_total_keys", server.events.tracking.keys());
    out.field("tracking_total_items", server.events.tracking.items());
    out.field("tracking_total_prefixes", server.events.tracking.prefixes());
    out.field("acl_access_denied_auth", stats.auth_failures.get());
    out.field("total_error_replies", stats.errors.total());
    out.field("client_query_buffer_limit_disconnections", stats.query_limit_disconnections.get());
    out.field("client_output_buffer_limit_disconnections", stats.output_limit_disconnections.get());
    out.field("total_reads_processed", stats.reads.get());
    out.field("total_writes_processed", stats.writes.get());
}

fn cpu_section(_: &Server, out: &mut Fields<'_>) {
    let seconds = |time: TimeVal| format!("{}.{:06}", time.tv_sec(), time.tv_usec());
    for (who, suffix) in [(UsageWho::RUSAGE_SELF, ""), (UsageWho::RUSAGE_CHILDREN, "_children")] {
        if let Ok(usage) = getrusage(who) {
            out.field(&format!("used_cpu_sys{suffix}"), seconds(usage.system_time()));
            out.field(&format!("used_cpu_user{suffix}"), seconds(usage.user_time()));
        }
    }
}

fn commandstats_section(server: &Server, out: &mut Fields<'_>) {
    for Command { full_name, stats, .. } in server.commands.all() {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        let (calls, usec) = (load(&stats.calls), load(&stats.usec));
        let (rejected, failed) = (load(&stats.rejected), load(&stats.failed));
        if calls + rejected + failed > 0 {
            let each = if calls == 0 { 0.0 } else { usec as f64 / calls as f64 };
            out.field(
                &format!("cmdstat_{full_name}"),
                format!(
                    "calls={calls},usec={usec},usec_per_call={each:.2},rejected_calls={rejected},failed_calls={failed}"
                ),
            );
        }
    }
}

fn latencystats_section(server: &Server, out: &mut Fields<'_>) {
    let percentiles = server.config.latency_tracking_info_percentiles();
    for Command { full_name, stats, .. } in server.commands.all() {
        if let Some(times) = stats.times.distribution() {
            let shown: Vec<String> =
                percentiles.iter().map(|percent| format!("p{percent}={:.3}", times.percentile(*percent))).collect();
            out.field(&format!("latency_percentiles_usec_{full_name}"), shown.join(","));
        }
    }
}

/// As Pika names it.
fn data_section(server: &Server, out: &mut Fields<'_>) {
    match server.keyspace.sizes() {
        Ok(sizes) => {
            out.bytes("db_size", sizes.engines.files);
            out.bytes("log_size", sizes.logs);
            out.bytes("db_memtable_usage", sizes.engines.memtables);
            out.bytes("db_tablereader_usage", sizes.engines.table_readers);
            out.field("db_pending_compaction", sizes.engines.pending_compaction);
            out.field("db_fatal", sizes.engines.errors);
        }
        Err(error) => tracing::warn!(%error, "cannot measure the data"),
    }
    out.field("is_compact", if server.keyspace.is_compacting() { "Yes" } else { "No" });
}

fn errorstats_section(server: &Server, out: &mut Fields<'_>) {
    for (code, count) in server.stats.errors.by_code() {
        out.field(&format!("errorstat_{code}"), format!("count={count}"));
    }
}

fn keyspace_section(server: &Server, out: &mut Fields<'_>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    for db in 0..server.keyspace.databases() {
        match server.keyspace.estimate(db, now) {
            Ok(counts) if counts.keys > 0 => {
                let avg_ttl = counts.ttl_sum / counts.expires.max(1);
                out.field(
                    &format!("db{db}"),
                    format!("keys={},expires={},avg_ttl={avg_ttl}", counts.keys, counts.expires),
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(db, %error, "cannot count keys"),
        }
    }
}

/// `Linux 6.1.0 x86_64`.
fn operating_system() -> Option<String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok();
    let (kind, release) = (read("ostype")?, read("osrelease")?);
    Some(format!("{} {} {}", kind.trim(), release.trim(), std::env::consts::ARCH))
}

/// Resident memory of the process.
fn resident_bytes() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

/// Memory of the machine.
fn total_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn ratio(of: u64, to: u64) -> String {
    format!("{:.2}", of as f64 / to.max(1) as f64)
}

fn percent(of: u64, to: u64) -> f64 {
    of as f64 * 100.0 / to.max(1) as f64
}

/// Bytes for people: `512B`, `1.50K`, `3.00M`.
fn human(bytes: u64) -> String {
    const UNITS: &[&str] = &["K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.2}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        for (bytes, text) in [(0, "0B"), (1023, "1023B"), (1536, "1.50K"), (3 << 20, "3.00M"), (5 << 40, "5.00T")] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn the_machine_tells() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(total_memory().unwrap() > resident_bytes().unwrap());
        assert!(operating_system().unwrap().split(' ').count() >= 3);
    }
}
