//! Values read, in every encoding that Redis has written up to 7.4.

use bytes::Bytes;

use super::element::Element;
use super::encoding::Encoding;
use super::layout::{NODE_LISTPACK, NODE_PLAIN};
use super::reader::{ELEMENT_OVERHEAD, decimal};
use super::value::{HashField, MAX_FIELD_EXPIRY, Value};
use super::{Error, Reader, Source, are_distinct, intset, listpack, stream, ziplist, zipmap};

/// Reads a value of this encoding.
///
/// All that Redis checks with `sanitize-dump-payload yes` is checked, and more: what is answered keeps to what
/// [`Value`] promises.
///
/// # Errors
/// Whatever [`Error`] says of a value.
pub fn read_value<S: Source>(reader: &mut Reader<S>, encoding: Encoding) -> Result<Value, Error> {
    match encoding {
        Encoding::String => Ok(Value::String(reader.string()?)),
        Encoding::List => {
            let mut elements = Vec::new();
            for _ in 0..reader.length()? {
                elements.push(reader.element()?);
            }
            list(elements)
        }
        Encoding::ListZiplist => {
            let mut elements = Vec::new();
            append(reader, ziplist_of, &mut elements)?;
            list(elements)
        }
        Encoding::ListZiplists => {
            let mut elements = Vec::new();
            for _ in 0..reader.length()? {
                append(reader, ziplist_of, &mut elements)?;
            }
            list(elements)
        }
        Encoding::ListNodes => {
            let mut elements = Vec::new();
            for _ in 0..reader.length()? {
                match reader.length()? {
                    NODE_PLAIN => elements.push(plain_node(reader)?),
                    NODE_LISTPACK => append(reader, listpack_of, &mut elements)?,
                    _ => return Err(Error::Corrupt("an unknown kind of list node")),
                }
            }
            list(elements)
        }
        Encoding::Set => {
            let mut members = Vec::new();
            for _ in 0..reader.length()? {
                members.push(reader.element()?);
            }
            set(members)
        }
        Encoding::SetIntset => {
            let intset = reader.string()?;
            let integers = intset::read(&intset)?;
            reader.charge(integers.len() as u64 * ELEMENT_OVERHEAD)?;
            Ok(Value::Set(integers.map(decimal).collect()))
        }
        Encoding::SetListpack => {
            let mut members = Vec::new();
            append(reader, listpack_of, &mut members)?;
            set(members)
        }
        Encoding::Zset | Encoding::ZsetText => {
            let mut members = Vec::new();
            for _ in 0..reader.length()? {
                let member = reader.element()?;
                let score = if encoding == Encoding::Zset { reader.double()? } else { reader.text_double()? };
                members.push((member, score));
            }
            zset(members)
        }
        Encoding::ZsetZiplist => packed_zset(reader, ziplist_of),
        Encoding::ZsetListpack => packed_zset(reader, listpack_of),
        Encoding::Hash => {
            let mut fields = Vec::new();
            for _ in 0..reader.length()? {
                let (field, value) = (reader.element()?, reader.element()?);
                fields.push(HashField { field, value, expire_at: None });
            }
            hash(fields)
        }
        Encoding::HashZipmap => {
            let mut fields = Vec::new();
            let zipmap = reader.string()?;
            zipmap::read(zipmap, |field, value| {
                reader.charge(2 * ELEMENT_OVERHEAD)?;
                fields.push(HashField { field, value, expire_at: None });
                Ok(())
            })?;
            hash(fields)
        }
        Encoding::HashZiplist => packed_hash(reader, ziplist_of, false),
        Encoding::HashListpack => packed_hash(reader, listpack_of, false),
        Encoding::HashListpackExpiryEarly => packed_hash(reader, listpack_of, true),
        Encoding::HashListpackExpiry => {
            // The earliest expiry, which the listpack tells too.
            reader.time()?;
            packed_hash(reader, listpack_of, true)
        }
        Encoding::HashExpiry | Encoding::HashExpiryEarly => {
            let early = encoding == Encoding::HashExpiryEarly;
            let earliest = if early { 0 } else { reader.time()? };
            let mut fields = Vec::new();
            for _ in 0..reader.length()? {
                let expire_at = match reader.length()? {
                    0 => None,
                    absolute if early => Some(expiry(Some(absolute))?),
                    relative => {
                        Some(expiry(earliest.checked_add_unsigned(relative - 1).and_then(|at| at.try_into().ok()))?)
                    }
                };
                let (field, value) = (reader.element()?, reader.element()?);
                fields.push(HashField { field, value, expire_at });
            }
            hash(fields)
        }
        Encoding::Stream1 | Encoding::Stream2 | Encoding::Stream3 => Ok(Value::Stream(stream::read(reader, encoding)?)),
    }
}

fn expiry(at: Option<u64>) -> Result<u64, Error> {
    at.filter(|at| (1..=MAX_FIELD_EXPIRY).contains(at)).ok_or(Error::Corrupt("an impossible expiry of a field"))
}

const EMPTY: Error = Error::Corrupt("a collection without elements");

fn list(elements: Vec<Bytes>) -> Result<Value, Error> {
    if elements.is_empty() { Err(EMPTY) } else { Ok(Value::List(elements)) }
}

fn set(members: Vec<Bytes>) -> Result<Value, Error> {
    if members.is_empty() {
        return Err(EMPTY);
    }
    if !are_distinct(&members) {
        return Err(Error::Corrupt("a member of a set twice"));
    }
    Ok(Value::Set(members))
}

fn zset(members: Vec<(Bytes, f64)>) -> Result<Value, Error> {
    if members.is_empty() {
        return Err(EMPTY);
    }
    if members.iter().any(|(_, score)| score.is_nan()) {
        return Err(Error::Corrupt("a score that is no number"));
    }
    if !are_distinct(members.iter().map(|(member, _)| member)) {
        return Err(Error::Corrupt("a member of a sorted set twice"));
    }
    Ok(Value::Zset(members))
}

fn hash(fields: Vec<HashField>) -> Result<Value, Error> {
    if fields.is_empty() {
        return Err(EMPTY);
    }
    if !are_distinct(fields.iter().map(|field| &field.field)) {
        return Err(Error::Corrupt("a field of a hash twice"));
    }
    Ok(Value::Hash(fields))
}

fn listpack_of(bytes: Bytes) -> Result<listpack::Elements, Error> {
    listpack::Elements::of(bytes)
}

fn ziplist_of(bytes: Bytes) -> Result<ziplist::Elements, Error> {
    ziplist::Elements::of(bytes)
}

/// An element of a list with a node of its own.
fn plain_node<S: Source>(reader: &mut Reader<S>) -> Result<Bytes, Error> {
    let element = reader.element()?;
    if element.is_empty() { Err(Error::Corrupt("an empty list node")) } else { Ok(element) }
}

/// Adds the elements of the listpack or ziplist that comes next.
fn append<S: Source, I: Iterator<Item = Result<Element, Error>>>(
    reader: &mut Reader<S>,
    open: impl FnOnce(Bytes) -> Result<I, Error>,
    elements: &mut Vec<Bytes>,
) -> Result<(), Error> {
    for element in open(reader.string()?)? {
        reader.charge(ELEMENT_OVERHEAD)?;
        elements.push(element?.into_bytes());
    }
    Ok(())
}

fn packed_zset<S: Source, I: Iterator<Item = Result<Element, Error>>>(
    reader: &mut Reader<S>,
    open: impl FnOnce(Bytes) -> Result<I, Error>,
) -> Result<Value, Error> {
    let mut members = Vec::new();
    let mut packed = open(reader.string()?)?;
    while let Some(member) = packed.next() {
        reader.charge(size_of::<(Bytes, f64)>() as u64)?;
        let score = packed.next().unwrap_or(Err(Error::Corrupt("a member without a score")))?;
        members.push((member?.into_bytes(), score.score()?));
    }
    zset(members)
}

fn packed_hash<S: Source, I: Iterator<Item = Result<Element, Error>>>(
    reader: &mut Reader<S>,
    open: impl FnOnce(Bytes) -> Result<I, Error>,
    with_expiry: bool,
) -> Result<Value, Error> {
    const CUT_OFF: Error = Error::Corrupt("a field without all that belongs to it");
    let mut fields = Vec::new();
    let mut packed = open(reader.string()?)?;
    while let Some(field) = packed.next() {
        reader.charge(size_of::<HashField>() as u64)?;
        let field = field?.into_bytes();
        let value = packed.next().unwrap_or(Err(CUT_OFF))?.into_bytes();
        let expire_at = match with_expiry.then(|| packed.next().unwrap_or(Err(CUT_OFF))).transpose()? {
            None => None,
            Some(at) => match at.integer()? {
                0 => None,
                at => Some(expiry(at.try_into().ok())?),
            },
        };
        fields.push(HashField { field, value, expire_at });
    }
    hash(fields)
}
