//! Positions in a binlog.

use std::fmt;

use super::file::FILE_HEADER_LEN;

/// The end of a record: where it ends, and which record it is.
///
/// `filenum`, `offset` (bytes from the start of the file), `term` and `index` are those of
/// Pika's BinlogOffset; `chain` is the hash over all records up to here (docs/binlog.md). The same on
/// master and replica. The position before the first record is [`Position::START`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub filenum: u32,
    pub offset: u64,
    pub term: u32,
    pub index: u64,
    pub chain: u64,
}

impl Position {
    /// Before the first record of a log that nobody has written yet.
    pub const START: Position = Position { filenum: 0, offset: FILE_HEADER_LEN, term: 0, index: 0, chain: 0 };

    /// Bytes of [`Position::encode`].
    pub const ENCODED_LEN: usize = 32;

    /// Fixed little-endian form, as it stands in the engine and in snapshot infos.
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[0..4].copy_from_slice(&self.filenum.to_le_bytes());
        out[4..12].copy_from_slice(&self.offset.to_le_bytes());
        out[12..16].copy_from_slice(&self.term.to_le_bytes());
        out[16..24].copy_from_slice(&self.index.to_le_bytes());
        out[24..32].copy_from_slice(&self.chain.to_le_bytes());
        out
    }

    /// Undoes [`Position::encode`]; `None` for bytes of another length.
    pub fn decode(bytes: &[u8]) -> Option<Position> {
        let bytes: &[u8; Self::ENCODED_LEN] = bytes.try_into().ok()?;
        Some(Position {
            filenum: u32::from_le_bytes(bytes[0..4].try_into().ok()?),
            offset: u64::from_le_bytes(bytes[4..12].try_into().ok()?),
            term: u32::from_le_bytes(bytes[12..16].try_into().ok()?),
            index: u64::from_le_bytes(bytes[16..24].try_into().ok()?),
            chain: u64::from_le_bytes(bytes[24..32].try_into().ok()?),
        })
    }

    /// (filenum, offset), which orders the positions of one log.
    pub fn place(&self) -> (u32, u64) {
        (self.filenum, self.offset)
    }

    /// Whether no record precedes this position.
    pub fn is_start(&self) -> bool {
        self.index == 0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} (term {}, index {})", self.filenum, self.offset, self.term, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(filenum: u32, offset: u64, term: u32, index: u64, chain: u64) {
            let position = Position { filenum, offset, term, index, chain };
            prop_assert_eq!(Position::decode(&position.encode()), Some(position));
        }
    }

    #[test]
    fn refuses_other_lengths() {
        assert_eq!(Position::decode(&[0; 31]), None);
        assert_eq!(Position::decode(&[0; 33]), None);
    }
}
