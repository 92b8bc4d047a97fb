//! What listpacks and ziplists hold: texts, and integers that stand for their decimal text.

use bytes::Bytes;

use super::reader::{canonical_integer, decimal};
use super::{Error, score};

/// One element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    Integer(i64),
    Text(Bytes),
}

impl Element {
    /// The string that it is.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Element::Integer(number) => decimal(number),
            Element::Text(text) => text,
        }
    }

    /// The integer that it is.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is none.
    pub fn integer(&self) -> Result<i64, Error> {
        match self {
            Element::Integer(number) => Ok(*number),
            Element::Text(text) => canonical_integer(text).ok_or(Error::Corrupt("a text where an integer belongs")),
        }
    }

    /// The score that it is.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is none.
    pub fn score(&self) -> Result<f64, Error> {
        match self {
            Element::Integer(number) => Ok(*number as f64),
            Element::Text(text) => score::parse(text).ok_or(Error::Corrupt("a score that is no number")),
        }
    }
}
