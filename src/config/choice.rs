//! The settings that are one of a few names, as enums.

use super::cell::{Cell, Typed};

/// Declares an enum whose variants are the names of a setting, with other names accepted for them.
macro_rules! choice {
    ($(#[$doc:meta])* $type:ident { $($(#[$meta:meta])* $variant:ident = $name:literal $(| $other:literal)*),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type { $($(#[$meta])* $variant),* }

        impl $type {
            pub(super) const NAMES: &'static [(&'static str, i64)] =
                &[$(($name, $type::$variant as i64), $(($other, $type::$variant as i64),)*)*];
        }

        impl Typed for $type {
            fn read(cell: &Cell) -> Self {
                match cell.number() {
                    $(number if number == $type::$variant as i64 => $type::$variant,)*
                    _ => $type::default(),
                }
            }
        }
    };
}

choice! {
    /// When a write is forced from the system's memory to the disk.
    SyncMode {
        /// Never by us: a crash of the process loses nothing, one of the machine what the system had not written.
        No = "no",
        /// Once a second: a crash of the machine loses a second at most.
        #[default]
        EverySecond = "everysec",
        /// Before the reply: a crash of the machine loses nothing that was acknowledged.
        Always = "always",
    }
}

choice! {
    /// How the engine compresses its data files.
    Compression {
        #[default]
        Lz4 = "lz4",
        Zstd = "zstd",
        None = "none",
    }
}

choice! {
    /// The least grave level that is logged. Redis's names are understood.
    LogLevel {
        Error = "error",
        Warn = "warn" | "warning",
        #[default]
        Info = "info" | "notice",
        Debug = "debug" | "verbose",
        Trace = "trace",
    }
}

choice! {
    /// Who may use DEBUG.
    DebugAccess {
        /// Nobody.
        No = "no",
        /// Connections from this machine.
        #[default]
        Local = "local",
        /// Everybody.
        Yes = "yes",
    }
}
