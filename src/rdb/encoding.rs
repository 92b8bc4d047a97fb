//! The types of value that RDB knows: one byte before each value.

use super::Error;

/// How a value stands in RDB, by its number there (Redis 7.4). What Redis 7.0 does not read is marked so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    String = 0,
    /// The elements, one string each.
    List = 1,
    /// The members, one string each.
    Set = 2,
    /// Members, each with its score as text.
    ZsetText = 3,
    /// Fields, each with its value.
    Hash = 4,
    /// Members, each with its score as a double.
    Zset = 5,
    HashZipmap = 9,
    ListZiplist = 10,
    SetIntset = 11,
    ZsetZiplist = 12,
    HashZiplist = 13,
    /// Ziplists, one after the other.
    ListZiplists = 14,
    /// Nodes of entries, then groups.
    Stream1 = 15,
    HashListpack = 16,
    ZsetListpack = 17,
    /// Listpacks and single large elements.
    ListNodes = 18,
    /// With the first ID, the largest deleted one and what counts entries.
    Stream2 = 19,
    /// Redis 7.2.
    SetListpack = 20,
    /// With the active time of consumers. Redis 7.2.
    Stream3 = 21,
    /// Expiry, field and value, before the release of Redis 7.4.
    HashExpiryEarly = 22,
    /// A listpack of field, value and expiry, before the release of Redis 7.4.
    HashListpackExpiryEarly = 23,
    /// The earliest expiry, then expiry relative to it, field and value. Redis 7.4.
    HashExpiry = 24,
    /// The earliest expiry, then a listpack of field, value and expiry. Redis 7.4.
    HashListpackExpiry = 25,
}

/// The version that Redis 7.0 writes and newest it reads.
const VERSION_7_0: u16 = 10;
/// The version that Redis 7.4 writes: the newest read here.
pub const NEWEST_VERSION: u16 = 12;

impl Encoding {
    /// # Errors
    /// [`Error::Module`] for values that only a module can read, [`Error::UnknownType`] for the rest.
    pub fn from_byte(byte: u8) -> Result<Encoding, Error> {
        Ok(match byte {
            0 => Encoding::String,
            1 => Encoding::List,
            2 => Encoding::Set,
            3 => Encoding::ZsetText,
            4 => Encoding::Hash,
            5 => Encoding::Zset,
            6 | 7 => return Err(Error::Module),
            9 => Encoding::HashZipmap,
            10 => Encoding::ListZiplist,
            11 => Encoding::SetIntset,
            12 => Encoding::ZsetZiplist,
            13 => Encoding::HashZiplist,
            14 => Encoding::ListZiplists,
            15 => Encoding::Stream1,
            16 => Encoding::HashListpack,
            17 => Encoding::ZsetListpack,
            18 => Encoding::ListNodes,
            19 => Encoding::Stream2,
            20 => Encoding::SetListpack,
            21 => Encoding::Stream3,
            22 => Encoding::HashExpiryEarly,
            23 => Encoding::HashListpackExpiryEarly,
            24 => Encoding::HashExpiry,
            25 => Encoding::HashListpackExpiry,
            _ => return Err(Error::UnknownType(byte)),
        })
    }

    /// The byte before the value.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The RDB version to announce for a value written so: the oldest that has it, but not below that of Redis 7.0.
    pub fn version(self) -> u16 {
        match self {
            Encoding::SetListpack | Encoding::Stream3 => 11,
            Encoding::HashExpiryEarly
            | Encoding::HashListpackExpiryEarly
            | Encoding::HashExpiry
            | Encoding::HashListpackExpiry => 12,
            _ => VERSION_7_0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for byte in 0..=u8::MAX {
            match Encoding::from_byte(byte) {
                Ok(encoding) => assert_eq!(encoding.byte(), byte),
                Err(Error::Module) => assert!(matches!(byte, 6 | 7)),
                Err(error) => assert!(error == Error::UnknownType(byte) && (byte == 8 || byte > 25)),
            }
        }
    }
}
