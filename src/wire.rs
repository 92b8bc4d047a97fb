//! What every message between nodes has beneath its content: a checksum over all of it.
//!
//! TCP's checksum misses about one damaged segment in 65536, and HTTP/2 has none. What is damaged on the way must be refused, not
//! believed: an acknowledgement unpins the log, an answer decides between going on and taking all data anew. So the last
//! field of each message is `checksum`, number 110, fixed64: XXH3-64 (seed 0) over the bytes before it. A message without it is
//! refused. For protobuf it is one more field, so a capture reads as any other.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use xxhash_rust::xxh3::xxh3_64;

/// The key of field 110 with wire type 1 (fixed64), as a varint.
const KEY: [u8; 2] = [0xf1, 0x06];
/// Bytes of the field.
const FIELD_LEN: usize = KEY.len() + 8;

/// The message's bytes with the checksum behind them.
pub fn seal(message: &impl Message) -> Bytes {
    let mut bytes = Vec::with_capacity(message.encoded_len() + FIELD_LEN);
    message.encode_raw(&mut bytes);
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&KEY);
    bytes.extend_from_slice(&sum.to_le_bytes());
    Bytes::from(bytes)
}

/// Undoes [`seal`]: the content, if the checksum is there and right.
pub fn open(mut bytes: Bytes) -> Option<Bytes> {
    let content = bytes.split_to(bytes.len().checked_sub(FIELD_LEN)?);
    let sum = bytes.strip_prefix(&KEY)?.try_into().ok().map(u64::from_le_bytes)?;
    (sum == xxh3_64(&content)).then_some(content)
}

/// A call that failed because something on the way may have been changed: nothing that is said over this connection is to be relied upon.
pub fn is_damage(code: Code) -> bool {
    match code {
        // What our nodes answer, and what a broken or slow link looks like.
        Code::Ok
        | Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Internal => false,
        // No node of ours says this. HTTP/2 compresses headers by tables that live as long as the connection, so a name that was
        // damaged once may be so in every later call.
        Code::Unimplemented
        | Code::InvalidArgument
        | Code::NotFound
        | Code::PermissionDenied
        | Code::OutOfRange
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::DataLoss
        | Code::Unknown => true,
    }
}

/// prost's encoding, sealed.
#[derive(Debug)]
pub struct SealedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SealedCodec<T, U> {
    fn default() -> Self {
        SealedCodec(PhantomData)
    }
}

impl<T, U> Codec for SealedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Sealing<T>;
    type Decoder = Opening<U>;

    fn encoder(&mut self) -> Sealing<T> {
        Sealing(PhantomData)
    }

    fn decoder(&mut self) -> Opening<U> {
        Opening(PhantomData)
    }
}

/// See [`seal`].
#[derive(Debug)]
pub struct Sealing<T>(PhantomData<T>);

impl<T: Message> Encoder for Sealing<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(seal(&message));
        Ok(())
    }
}

/// See [`open`].
#[derive(Debug)]
pub struct Opening<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for Opening<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        let content = open(bytes).ok_or_else(|| Status::data_loss("a message came with a wrong checksum, or none"))?;
        U::decode(content).map(Some).map_err(|e| Status::data_loss(format!("a message that is none: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_nothing_else(text in "\\PC{0,300}", at: prop::sample::Index, with in 1u8..) {
            let sealed = seal(&text);
            let content = open(sealed.clone()).unwrap();
            prop_assert_eq!(String::decode(content).unwrap(), text);
            // For other readers it is a field like any.
            prop_assert!(String::decode(sealed.clone()).is_ok());
            let mut damaged = sealed.to_vec();
            damaged[at.index(sealed.len())] ^= with;
            prop_assert_eq!(open(Bytes::from(damaged)), None);
            prop_assert_eq!(open(sealed.slice(..at.index(sealed.len()))), None);
        }
    }
}
