//! The command line: `haypile [CONF] …` starts a server and runs it until a signal or SHUTDOWN ends it; `haypile binlog …` and
//! `haypile check …` are tools that read a server's files.

use std::error::Error;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use haypile::command::manual;
use haypile::config::{Config, SETTINGS};
use haypile::daemon::{self, Detached, Event, Logging, OpenFilesError, PidFile, Signals};
use haypile::server::Server;
use haypile::tools::{self, Terminal, Verdict, check, dump, restore, stat};
use tokio::runtime;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The hidden flag that tells the process it is the daemon that another one launched.
const DETACHED: &str = "--detached";

/// Stack of a worker thread, in bytes: Lua scripts may nest calls and values deep.
const STACK_SIZE: usize = 8 << 20;
/// A worker thread takes each second task from the queue that all share, as long as there are any. When more connections are ready than a
/// thread's own queue has room for (256), the others wait there, and would wait for as long as those keep it busy: with 10,000 that was
/// seconds.
const SHARED_QUEUE_INTERVAL: u32 = 2;

const EXAMPLES: &str = "\
Examples:
  A server with the defaults (port 9221, data in ./data), and a client:
    haypile
    redis-cli -p 9221 set k v

  A second one that replicates the first, and how far it is:
    haypile conf/haypile.conf --port 9321 --dir ./b
    redis-cli -p 9321 slaveof 127.0.0.1 9221
    redis-cli -p 9321 info replication

  In the background, reachable from outside, with a password:
    haypile /etc/haypile.conf --daemonize --bind '*' --set requirepass=secret
    redis-cli -p 9221 -a secret shutdown

  Settings at run time:
    redis-cli -p 9221 config get '*log*'
    redis-cli -p 9221 config set sync always
    redis-cli -p 9221 config rewrite

  What is in the files, and whether they are sound:
    haypile binlog dump data/binlog --key 'user:*' --from 2026-01-31T23:00
    haypile check data

  A backup, and the data as they were at some time after it:
    redis-cli -p 9221 bgsave
    haypile restore data/dump/20260131-235959 --dir restored --binlog data/binlog --until '2026-02-01 12:30'

Ports: clients connect to PORT; replicas also use PORT+2000 and PORT+10001.
Signals: SIGTERM and SIGINT stop the server cleanly, SIGHUP opens the log file anew.";

/// A Redis-protocol storage server for data that outgrows memory.
///
/// Serves RESP2 and RESP3 clients from data on disk: databases of slots, each with its own
/// engine, binlog and replication. Settings come from CONF, lines of `key : value`, then from the
/// command line. `--help` lists them all, `-h` is short.
#[derive(Parser)]
#[command(name = "haypile", version, after_help = "See --help for examples and every setting.", after_long_help = long_help())]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    serve: Serve,

    #[command(subcommand)]
    tool: Option<Tool>,
}

/// What to do instead of serving.
#[derive(clap::Subcommand)]
enum Tool {
    /// Look into binlog files
    #[command(subcommand)]
    Binlog(BinlogTool),
    Check(check::Args),
    Restore(restore::Args),
    /// Print docs/commands.md: all commands, and where they differ from Redis
    #[command(hide = true)]
    Commands,
}

/// What to do with binlog files.
#[derive(clap::Subcommand)]
enum BinlogTool {
    Dump(dump::Args),
    Stat(stat::Args),
}

/// What to serve, and how.
#[derive(clap::Args)]
struct Serve {
    /// The conf file; without one, every setting is at its default
    conf: Option<PathBuf>,

    /// The port for clients
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    port: Option<String>,

    /// The addresses to listen on: "127.0.0.1 ::1", or "*" for all
    #[arg(long, value_name = "A")]
    bind: Option<String>,

    /// The folder for all data; made when missing
    #[arg(long, value_name = "D")]
    dir: Option<String>,

    /// Start as a replica of this master
    #[arg(long, value_name = "HOST:PORT")]
    slaveof: Option<String>,

    /// Any setting of the conf file; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Go to the background once the server is ready
    #[arg(long)]
    daemonize: bool,

    #[arg(long = "detached", hide = true)]
    detached: bool,
}

impl Serve {
    /// The settings that the command line gives, by name.
    fn overrides(&self) -> Result<Vec<(String, String)>, String> {
        let flags = [("port", &self.port), ("bind", &self.bind), ("dir", &self.dir), ("slaveof", &self.slaveof)];
        let flags = flags.into_iter().filter_map(|(key, value)| Some((key.to_string(), value.clone()?)));
        let daemonize = self.daemonize.then(|| ("daemonize".to_string(), "yes".to_string()));
        let set = self.set.iter().map(|text| {
            let (key, value) = text.split_once('=').ok_or_else(|| format!("--set {text}: expected --set KEY=VALUE"))?;
            Ok((key.trim().to_string(), value.trim().to_string()))
        });
        flags.chain(daemonize).map(Ok).chain(set).collect()
    }
}

/// The examples, then every setting from the table.
fn long_help() -> String {
    let settings = SETTINGS.iter().filter(|setting| !setting.is_fact());
    let settings: String = settings
        .map(|setting| format!("\n  {}\n    {}\n    {}\n", setting.name, setting.help, setting.facts()))
        .collect();
    format!("{EXAMPLES}\n\nSettings, in CONF as `key : value` or here as --set key=value:\n{settings}")
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Exit code of a tool that found damage; 1 is for what could not be done at all, a wrong command line included.
const DAMAGED: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to be told if this fails.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match cli.tool {
        Some(Tool::Commands) => io::stdout().write_all(manual::markdown().as_bytes()).map_err(Into::into),
        Some(Tool::Binlog(BinlogTool::Dump(args))) => return run_tool(|terminal| dump::run(&args, terminal)),
        Some(Tool::Binlog(BinlogTool::Stat(args))) => return run_tool(|terminal| stat::run(&args, terminal)),
        Some(Tool::Check(args)) => return run_tool(|terminal| check::run(&args, terminal)),
        Some(Tool::Restore(args)) => return run_tool(|terminal| restore::run(&args, terminal)),
        None => serve(&cli.serve),
    };
    exit_code(outcome)
}

fn run_tool(tool: impl FnOnce(&mut Terminal<'_>) -> Result<Verdict, tools::Error>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut err = io::stderr();
    let shows_progress = err.is_terminal();
    let outcome = tool(&mut Terminal { out: &mut out, err: &mut err, shows_progress });
    let outcome = outcome.and_then(|verdict| Ok(out.flush().map(|()| verdict)?));
    match outcome {
        Ok(Verdict::Sound) => ExitCode::SUCCESS,
        Ok(Verdict::Damaged) => ExitCode::from(DAMAGED),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => exit_code(Err(error.into())),
    }
}

fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("haypile: {}", error.to_string().trim_end().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Serve) -> Outcome {
    #[cfg(feature = "failpoints")]
    haypile::disk::failpoints::arm_from_environment()?;
    let config = Arc::new(Config::load(args.conf.as_deref(), &args.overrides()?)?);
    let detached = match (config.daemonize(), args.detached) {
        (true, false) => return Ok(daemon::launch(DETACHED)?),
        (true, true) => Some(Detached::enter()?),
        (false, _) => None,
    };
    let logging = Logging::start(&config)?;
    let threads = config.threads();
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("worker")
        .thread_stack_size(STACK_SIZE)
        .global_queue_interval(SHARED_QUEUE_INTERVAL)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run(config, &logging, detached));
    // The server has stopped by itself; a command still on the blocking pool has nobody to answer.
    runtime.shutdown_background();
    outcome
}

/// Starts the server and runs it to its end, acting on signals and changed settings meanwhile.
async fn run(config: Arc<Config>, logging: &Logging, detached: Option<Detached>) -> Outcome {
    // Logged later: until the data folder is known to be this server's, its log is not touched.
    let open_files = daemon::raise_open_files(&config);
    let mut signals = Signals::listen()?;
    let mut changes = config.changes();
    let mut starting = tokio::spawn(Server::start(Arc::clone(&config)));
    let server = loop {
        tokio::select! {
            started = &mut starting => break started??,
            event = signals.next() => match event {
                Event::ReopenLog => reopen(logging),
                Event::Shutdown(signal) => {
                    // Recovery can take a while and can be cut short: it begins anew at the next start.
                    tracing::info!("{signal} while starting: stopping");
                    return Ok(());
                }
            },
        }
    };
    let stopping = server.run_until_shutdown();
    let mut stopping = std::pin::pin!(stopping);
    let pidfile = announce(&config, logging, detached);
    if let Err(error) = &pidfile {
        tracing::error!("{error}: shutting down");
        server.request_shutdown();
    }
    warn_of(open_files);
    let mut signalled = false;
    loop {
        tokio::select! {
            () = &mut stopping => break,
            event = signals.next() => match event {
                Event::ReopenLog => reopen(logging),
                Event::Shutdown(signal) if signalled => tracing::info!("{signal} again: the shutdown is under way"),
                Event::Shutdown(signal) => {
                    tracing::info!("{signal}: shutting down");
                    signalled = true;
                    server.request_shutdown();
                }
            },
            Ok(()) = changes.changed() => {
                logging.set_level(config.loglevel());
                warn_of(daemon::raise_open_files(&config));
            }
        }
    }
    pidfile.map(drop)
}

/// What is left to do once the server serves: tell the launching process, the operator and the pidfile.
fn announce(
    config: &Config,
    logging: &Logging,
    detached: Option<Detached>,
) -> Result<Option<PidFile>, Box<dyn Error + Send + Sync>> {
    logging.open()?;
    let pidfile = config.pidfile().map(PidFile::write).transpose()?;
    if let Some(detached) = detached {
        // Not to keep the folder it was started in from being unmounted; every path is absolute by now.
        std::env::set_current_dir(config.dir())?;
        detached.ready()?;
    }
    Ok(pidfile)
}

fn reopen(logging: &Logging) {
    match logging.reopen() {
        Ok(()) => tracing::info!("SIGHUP: log reopened"),
        Err(error) => tracing::error!(%error, "SIGHUP: the log cannot be reopened"),
    }
}

fn warn_of(open_files: Result<(), OpenFilesError>) {
    if let Err(error) = open_files {
        tracing::warn!("{error}");
    }
}
