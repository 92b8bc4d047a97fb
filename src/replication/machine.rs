//! The state machine of one replicated slot, as a pure function. The auxiliary thread feeds it and performs what it says.
//!
//! | from | event | to | action |
//! | --- | --- | --- | --- |
//! | any but DbNoConnect | `MetaSynced`, the slot's own data are of the master's history | TryConnect | |
//! | any but DbNoConnect | `MetaSynced`, they are not, or a full sync was begun and not finished | TryDbSync | |
//! | TryConnect | `Poll` | WaitReply | send TrySync |
//! | TryDbSync | `Poll` | WaitReply | send DBSync |
//! | TryConnect, Connected | `Faulty` | TryDbSync (a slot that cannot take records takes the master's data whole) | end the stream |
//! | WaitReply(TrySync) | `SyncAccepted` | Connected | start BinlogSync |
//! | WaitReply(TrySync) | `Purged`, `TailSaved` | TryDbSync | |
//! | WaitReply(TrySync) | `NotYet`, `NoAnswer` | TryConnect | |
//! | WaitReply(DBSync) | `SnapshotPromised` | WaitDbSync | start the transfer |
//! | WaitReply(DBSync) | `NotYet`, `NoAnswer` | TryDbSync | |
//! | WaitReply | `Refused` | Error | |
//! | WaitDbSync | `Installed` | TryConnect | |
//! | WaitDbSync | `TransferFailed` | TryDbSync (never TryConnect: its data are not whole) | |
//! | Connected | `LinkLost` | TryConnect | |
//! | any | `Stop` | NoConnect | |
//! | any | `Detach` | DbNoConnect | |
//! | DbNoConnect | `Attach` | NoConnect | |
//!
//! Whatever is not in the table changes nothing: an answer that comes late is about a question no longer asked.

/// What was asked, and is to be asked again when no answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    TrySync,
    DbSync,
}

/// Where a slot is on its way to its master. Numbers and names are Pika's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotState {
    #[default]
    NoConnect,
    TryConnect,
    TryDbSync,
    WaitDbSync,
    WaitReply(Asked),
    Connected,
    Error,
    DbNoConnect,
}

impl SlotState {
    /// As INFO shows it.
    pub fn name(self) -> &'static str {
        match self {
            SlotState::NoConnect => "NoConnect",
            SlotState::TryConnect => "TryConnect",
            SlotState::TryDbSync => "TryDBSync",
            SlotState::WaitDbSync => "WaitDBSync",
            SlotState::WaitReply(_) => "WaitReply",
            SlotState::Connected => "Connected",
            SlotState::Error => "Error",
            SlotState::DbNoConnect => "DBNoConnect",
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The master answered MetaSync. `full`: the slot must take the master's data whole.
    MetaSynced { full: bool },
    /// Nothing happened; whoever waits to send may.
    Poll,
    /// The slot's own data or log are damaged.
    Faulty,
    /// TrySync: the master streams from our position.
    SyncAccepted,
    /// TrySync: the master no longer has what follows our position.
    Purged,
    /// TrySync: our log went another way, and what only we had is saved.
    TailSaved,
    /// The master cannot tell yet.
    NotYet,
    /// The master, or our own disk, says no, and asking again will not help.
    Refused,
    /// No answer in time, or the link broke.
    NoAnswer,
    /// DBSync: a snapshot is there or being made.
    SnapshotPromised,
    /// The snapshot is whole, verified and in place.
    Installed,
    /// The transfer was given up.
    TransferFailed,
    /// BinlogSync ended, for whatever reason.
    LinkLost,
    /// `slaveof no one`, or another master.
    Stop,
    /// `dbslaveof dbN no one`
    Detach,
    /// `dbslaveof dbN`
    Attach,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    SendTrySync,
    SendDbSync,
    Transfer,
    Stream,
    /// End whatever runs for the slot.
    Cancel,
}

/// The transition.
pub fn step(state: SlotState, event: Event) -> (SlotState, Action) {
    use Action::{Cancel, Nothing, SendDbSync, SendTrySync, Stream, Transfer};
    use SlotState::{Connected, DbNoConnect, Error, NoConnect, TryConnect, TryDbSync, WaitDbSync, WaitReply};
    match (state, event) {
        (_, Event::Detach) => (DbNoConnect, Cancel),
        (DbNoConnect, Event::Attach) => (NoConnect, Nothing),
        (DbNoConnect, _) => (DbNoConnect, Nothing),
        (_, Event::Stop) => (NoConnect, Cancel),
        (_, Event::MetaSynced { full: false }) => (TryConnect, Cancel),
        (_, Event::MetaSynced { full: true }) => (TryDbSync, Cancel),

        (TryConnect, Event::Poll) => (WaitReply(Asked::TrySync), SendTrySync),
        (TryDbSync, Event::Poll) => (WaitReply(Asked::DbSync), SendDbSync),

        (TryConnect | Connected, Event::Faulty) => (TryDbSync, Cancel),

        (WaitReply(Asked::TrySync), Event::SyncAccepted) => (Connected, Stream),
        (WaitReply(Asked::TrySync), Event::Purged | Event::TailSaved) => (TryDbSync, Nothing),
        (WaitReply(Asked::TrySync), Event::NotYet | Event::NoAnswer) => (TryConnect, Nothing),
        (WaitReply(Asked::DbSync), Event::SnapshotPromised) => (WaitDbSync, Transfer),
        (WaitReply(Asked::DbSync), Event::NotYet | Event::NoAnswer) => (TryDbSync, Nothing),
        (WaitReply(_), Event::Refused) => (Error, Nothing),

        (WaitDbSync, Event::Installed) => (TryConnect, Nothing),
        (WaitDbSync, Event::TransferFailed) => (TryDbSync, Nothing),

        (Connected, Event::LinkLost) => (TryConnect, Nothing),

        (
            NoConnect | TryConnect | TryDbSync | WaitDbSync | WaitReply(_) | Connected | Error,
            Event::Poll
            | Event::Faulty
            | Event::SyncAccepted
            | Event::Purged
            | Event::TailSaved
            | Event::NotYet
            | Event::Refused
            | Event::NoAnswer
            | Event::SnapshotPromised
            | Event::Installed
            | Event::TransferFailed
            | Event::LinkLost
            | Event::Attach,
        ) => (state, Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SlotState::*;

    const STATES: [SlotState; 9] = [
        NoConnect,
        TryConnect,
        TryDbSync,
        WaitDbSync,
        WaitReply(Asked::TrySync),
        WaitReply(Asked::DbSync),
        Connected,
        Error,
        DbNoConnect,
    ];
    const EVENTS: [Event; 17] = [
        Event::MetaSynced { full: false },
        Event::MetaSynced { full: true },
        Event::Poll,
        Event::Faulty,
        Event::SyncAccepted,
        Event::Purged,
        Event::TailSaved,
        Event::NotYet,
        Event::Refused,
        Event::NoAnswer,
        Event::SnapshotPromised,
        Event::Installed,
        Event::TransferFailed,
        Event::LinkLost,
        Event::Stop,
        Event::Detach,
        Event::Attach,
    ];

    #[test]
    fn transition_by_transition() {
        let try_sync = WaitReply(Asked::TrySync);
        let db_sync = WaitReply(Asked::DbSync);
        let table = [
            (NoConnect, Event::MetaSynced { full: false }, TryConnect, Action::Cancel),
            (NoConnect, Event::MetaSynced { full: true }, TryDbSync, Action::Cancel),
            (TryConnect, Event::Poll, try_sync, Action::SendTrySync),
            (TryDbSync, Event::Poll, db_sync, Action::SendDbSync),
            (TryConnect, Event::Faulty, TryDbSync, Action::Cancel),
            (Connected, Event::Faulty, TryDbSync, Action::Cancel),
            (try_sync, Event::SyncAccepted, Connected, Action::Stream),
            (try_sync, Event::Purged, TryDbSync, Action::Nothing),
            (try_sync, Event::TailSaved, TryDbSync, Action::Nothing),
            (try_sync, Event::NotYet, TryConnect, Action::Nothing),
            (try_sync, Event::NoAnswer, TryConnect, Action::Nothing),
            (try_sync, Event::Refused, Error, Action::Nothing),
            (db_sync, Event::SnapshotPromised, WaitDbSync, Action::Transfer),
            (db_sync, Event::NotYet, TryDbSync, Action::Nothing),
            (db_sync, Event::NoAnswer, TryDbSync, Action::Nothing),
            (db_sync, Event::Refused, Error, Action::Nothing),
            (WaitDbSync, Event::Installed, TryConnect, Action::Nothing),
            (WaitDbSync, Event::TransferFailed, TryDbSync, Action::Nothing),
            (Connected, Event::LinkLost, TryConnect, Action::Nothing),
            (DbNoConnect, Event::Attach, NoConnect, Action::Nothing),
        ];
        for (from, event, to, action) in table {
            assert_eq!(step(from, event), (to, action), "{from:?} on {event:?}");
        }
        for from in STATES.into_iter().filter(|s| *s != DbNoConnect) {
            assert_eq!(step(from, Event::Stop), (NoConnect, Action::Cancel));
        }
        for from in STATES {
            assert_eq!(step(from, Event::Detach), (DbNoConnect, Action::Cancel));
        }
        // All else changes nothing.
        for from in STATES {
            for event in EVENTS {
                let always = matches!(event, Event::MetaSynced { .. } | Event::Stop | Event::Detach);
                let listed = table.iter().any(|(f, e, ..)| (*f, *e) == (from, event));
                if !listed && (!always || from == DbNoConnect) && event != Event::Detach {
                    assert_eq!(step(from, event), (from, Action::Nothing), "{from:?} on {event:?}");
                }
            }
        }
    }

    #[test]
    fn a_failed_full_sync_never_becomes_incremental() {
        // From WaitDbSync the only way to TryConnect is an installed snapshot or a new word of the operator or master.
        for event in EVENTS {
            let (to, _) = step(WaitDbSync, event);
            let allowed = matches!(event, Event::Installed | Event::MetaSynced { full: false });
            assert!(to != TryConnect || allowed, "{event:?}");
        }
    }
}
