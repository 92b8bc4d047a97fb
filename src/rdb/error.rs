//! Why bytes are not a serialized value.

/// What is wrong with a payload. None of these leaves anything half done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("shorter than the footer of a dump")]
    NoFooter,
    #[error("RDB version {0} is newer than any known")]
    Version(u16),
    #[error("the checksum does not match")]
    Checksum,
    #[error("the bytes end within a value")]
    Truncated,
    #[error("unknown value type {0}")]
    UnknownType(u8),
    #[error("values of modules are not supported")]
    Module,
    /// Restoring the value would take more memory than [`Limits`](super::Limits) allows.
    #[error("the value is too large to restore")]
    TooLarge,
    #[error("{0}")]
    Corrupt(&'static str),
}

impl Error {
    /// What RESTORE answers.
    pub fn reply(self) -> &'static str {
        match self {
            Error::NoFooter | Error::Version(_) | Error::Checksum => "ERR DUMP payload version or checksum are wrong",
            Error::Truncated | Error::UnknownType(_) | Error::Module | Error::TooLarge | Error::Corrupt(_) => {
                "ERR Bad data format"
            }
        }
    }
}
