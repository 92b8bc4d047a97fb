//! What a script may ask of the server: commands, with the checks that concern scripts.

use std::sync::Arc;

use bytes::Bytes;

use super::Call;
use crate::command::admission::{is_out_of_memory, is_stale, lacks_replicas};
use crate::command::dispatch::{call_within, reply_error};
use crate::command::rules::{READONLY, may_write, releases_keys};
use crate::command::{After, Command, CommandError, Ctx, Flags, Lookup, Within};
use crate::keyspace::Transaction;
use crate::net::{Client, Reply};
use crate::script::{Abort, Host, LogLevel, Run, ScriptFlags};
use crate::server::Server;

/// Runs the commands of a script in the transaction of the command that runs it.
pub(super) struct ScriptHost<'h, 'k> {
    server: &'h Server,
    client: &'h mut Client,
    tx: &'h mut Transaction<'k>,
    after: &'h mut Vec<After>,
    now: u64,
    read_only: bool,
    allow_oom: bool,
    /// Whether memory was short when the script began.
    out_of_memory: bool,
    wrote: bool,
    run: Option<Arc<Run>>,
    /// Why the run is to be discarded.
    suspended: Option<CommandError>,
}

impl<'h, 'k> ScriptHost<'h, 'k> {
    /// For a script that is called by the command of `ctx`; and where its reply goes.
    pub fn new(ctx: &'h mut Ctx<'_, 'k>, call: &Call<'_>) -> (Self, &'h mut Reply) {
        let declares = |flag| !call.flags.has(ScriptFlags::UNDECLARED) && call.flags.has(flag);
        let host = ScriptHost {
            server: ctx.server,
            client: &mut *ctx.client,
            tx: &mut *ctx.tx,
            after: &mut *ctx.after,
            now: ctx.now,
            read_only: call.read_only || declares(ScriptFlags::NO_WRITES),
            allow_oom: declares(ScriptFlags::ALLOW_OOM),
            out_of_memory: is_out_of_memory(ctx.server),
            wrote: false,
            run: None,
            suspended: None,
        };
        (host, &mut *ctx.reply)
    }

    /// Why the run is to be discarded, if it is.
    pub fn into_suspended(self) -> Option<CommandError> {
        self.suspended
    }

    /// Why a script may not run this command now.
    fn refusal(&self, command: &Command, args: &[Bytes]) -> Option<&'static str> {
        let flags = command.spec.flags;
        if !command.spec.arity_fits(args.len()) {
            return Some("ERR Wrong number of args calling Redis command from script");
        }
        // What waits for others who may need the keys of the script would wait for ever.
        let never = flags.has(Flags::NO_MULTI) || releases_keys(command.spec, args);
        if never || flags.has(Flags::NOSCRIPT) && self.server.switches.deny_scripts() {
            return Some("ERR This Redis command is not allowed from script");
        }
        if !flags.has(Flags::STALE) && is_stale(self.server) {
            return Some("ERR Can not execute the command on a stale replica");
        }
        if self.read_only && (flags.has(Flags::WRITE) || flags.has(Flags::MAY_REPLICATE)) {
            return Some("ERR Write commands are not allowed from read-only scripts.");
        }
        if !may_write(self.server, self.client.db(), command.spec, args) {
            return Some(READONLY);
        }
        // What has begun to write goes on.
        if self.wrote {
            return None;
        }
        if flags.has(Flags::WRITE) && lacks_replicas(self.server) {
            return Some("NOREPLICAS Not enough good replicas to write.");
        }
        if flags.has(Flags::DENYOOM) && self.out_of_memory && !self.allow_oom {
            return Some("OOM command not allowed when used memory > 'maxmemory'.");
        }
        None
    }
}

impl Host for ScriptHost<'_, '_> {
    fn call(&mut self, args: Vec<Bytes>, reply: &mut Reply) -> Result<(), Abort> {
        let server = self.server;
        let Lookup::Found(command) = server.commands.lookup(&args) else {
            let error = CommandError::Static("ERR Unknown Redis command called from script");
            reply_error(server, reply, 0, &error);
            return Ok(());
        };
        if let Some(refusal) = self.refusal(command, &args) {
            command.stats.rejected.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            reply_error(server, reply, 0, &CommandError::Static(refusal));
            return Ok(());
        }
        if command.spec.flags.has(Flags::WRITE) {
            self.wrote = true;
            if let Some(run) = &self.run {
                run.set_wrote();
            }
        }
        let mut ctx = Ctx {
            server,
            client: &mut *self.client,
            reply: &mut *reply,
            tx: &mut *self.tx,
            after: &mut *self.after,
            now: self.now,
            within: Within::Script,
            on_pool: true,
            waited: false,
        };
        match call_within(&mut ctx, Within::Script, command, &args) {
            Ok(()) => Ok(()),
            Err(suspend @ CommandError::Suspend(_)) => {
                self.suspended = Some(suspend);
                Err(Abort)
            }
            Err(error) => {
                reply_error(server, reply, 0, &error);
                Ok(())
            }
        }
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        match level {
            LogLevel::Debug | LogLevel::Verbose => tracing::debug!("script: {text}"),
            LogLevel::Notice => tracing::info!("script: {text}"),
            LogLevel::Warning => tracing::warn!("script: {text}"),
        }
    }

    /// Whatever a script writes is logged, and goes to the replicas with the log.
    fn set_repl(&mut self, _log: bool, _replicas: bool) {}

    /// There is one user, who may run everything.
    fn acl_check_cmd(&mut self, args: &[Bytes]) -> Option<bool> {
        matches!(self.server.commands.lookup(args), Lookup::Found(_)).then_some(true)
    }

    fn started(&mut self, run: &Arc<Run>) {
        self.run = Some(Arc::clone(run));
    }
}
