//! What a key must hold: a model of the commands that a history consists of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::Reply;

/// What a key holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Data {
    #[default]
    Missing,
    Text(Vec<u8>),
    List(VecDeque<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Zset(BTreeMap<Vec<u8>, i64>),
    /// IDs `n-0` and the value of the one field.
    Stream(VecDeque<(u64, Vec<u8>)>),
}

/// The type of a key, as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    List,
    Set,
    Hash,
    Zset,
    Stream,
}

/// What a key holds, and until when.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Value {
    pub data: Data,
    /// Unix ms.
    pub expires: Option<u64>,
}

/// One change to a key. Keys of the same family are named by their number in it.
#[derive(Clone, Debug)]
pub enum Change {
    Set(Vec<u8>),
    /// SET … PXAT ms
    SetUntil(Vec<u8>, u64),
    Incr(i64),
    Append(Vec<u8>),
    SetRange(usize, Vec<u8>),
    Del,
    ExpireAt(u64),
    Persist,
    RPush(Vec<Vec<u8>>),
    LPush(Vec<Vec<u8>>),
    RPop(usize),
    LPop(usize),
    LSet(usize, Vec<u8>),
    /// LTRIM key -n -1
    KeepLast(usize),
    SAdd(Vec<Vec<u8>>),
    SRem(Vec<Vec<u8>>),
    HSet(Vec<(Vec<u8>, Vec<u8>)>),
    HIncr(Vec<u8>, i64),
    HDel(Vec<Vec<u8>>),
    ZAdd(Vec<(Vec<u8>, i64)>),
    ZIncr(Vec<u8>, i64),
    ZRem(Vec<Vec<u8>>),
    XAdd(u64, Vec<u8>),
    /// XTRIM key MAXLEN = n
    XTrim(usize),
    XDel(u64),
    RenameTo(usize),
    /// COPY … REPLACE
    CopyTo(usize),
    /// LMOVE key other RIGHT LEFT
    MoveTo(usize),
    SMoveTo(usize, Vec<u8>),
}

impl Value {
    fn is_missing(&self) -> bool {
        self.data == Data::Missing
    }

    /// Whether it is gone, or may be, at some time before `ms`.
    pub fn expires_before(&self, ms: u64) -> bool {
        self.expires.is_some_and(|at| at < ms)
    }

    /// Whether a node that was asked between `from` and `to` (unix ms) may have answered `seen` if this is what the key holds.
    pub fn may_be_seen_as(&self, seen: &Value, from: u64, to: u64) -> bool {
        /// By how much a node's idea of the time may differ from ours.
        const SLACK: u64 = 250;
        match self.expires {
            Some(at) if at + SLACK < from => seen.is_missing(),
            Some(at) if at <= to + SLACK => seen.is_missing() || self == seen,
            _ => self == seen,
        }
    }

    /// What it holds, for a message.
    pub fn describe(&self) -> String {
        const SHOWN: usize = 400;
        let text = |bytes: &[u8]| bytes[..bytes.len().min(60)].escape_ascii().to_string();
        let many = |items: Vec<String>| format!("{} of: {}", items.len(), items.join(" "));
        let mut shown = match &self.data {
            Data::Missing => "nothing".to_string(),
            Data::Text(bytes) => format!("{} bytes \"{}\"", bytes.len(), text(bytes)),
            // The end of a list or stream is where things happen.
            Data::List(items) => many(items.iter().rev().map(|item| text(item)).collect()) + " (last first)",
            Data::Set(items) => many(items.iter().map(|item| text(item)).collect()),
            Data::Hash(items) => many(items.iter().map(|(k, v)| format!("{}={}", text(k), text(v))).collect()),
            Data::Zset(items) => many(items.iter().map(|(k, v)| format!("{}={v}", text(k))).collect()),
            Data::Stream(items) => {
                many(items.iter().rev().map(|(id, v)| format!("{id}={}", text(v))).collect()) + " (last first)"
            }
        };
        if shown.len() > SHOWN {
            let cut = (0..=SHOWN).rev().find(|&at| shown.is_char_boundary(at)).unwrap_or(0);
            shown.truncate(cut);
            shown.push('…');
        }
        match self.expires {
            Some(at) => format!("{shown}, expires at {at}"),
            None => shown,
        }
    }
}

/// A collection that lost its last element is no more.
fn drop_empty(value: &mut Value) {
    let empty = match &value.data {
        Data::List(items) => items.is_empty(),
        Data::Set(items) => items.is_empty(),
        Data::Hash(items) => items.is_empty(),
        Data::Zset(items) => items.is_empty(),
        Data::Missing | Data::Text(_) | Data::Stream(_) => false,
    };
    if empty {
        *value = Value::default();
    }
}

macro_rules! collection {
    ($name:ident, $variant:ident, $type:ty) => {
        fn $name(value: &mut Value) -> &mut $type {
            if value.is_missing() {
                value.data = Data::$variant(Default::default());
            }
            match &mut value.data {
                Data::$variant(items) => items,
                other => panic!("a family of mixed types: {other:?}"),
            }
        }
    };
}

collection!(text, Text, Vec<u8>);
collection!(list, List, VecDeque<Vec<u8>>);
collection!(set, Set, BTreeSet<Vec<u8>>);
collection!(hash, Hash, BTreeMap<Vec<u8>, Vec<u8>>);
collection!(zset, Zset, BTreeMap<Vec<u8>, i64>);
collection!(stream, Stream, VecDeque<(u64, Vec<u8>)>);

fn int(number: usize) -> Reply {
    Reply::Int(number as i64)
}

fn flag(yes: bool) -> Reply {
    Reply::Int(i64::from(yes))
}

fn number(bytes: &[u8]) -> i64 {
    let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    parsed.expect("a family of numbers")
}

impl Change {
    /// Carries the change out on key number `key` of a family; the reply that it must have.
    pub fn apply(&self, key: usize, values: &mut [Value]) -> Reply {
        let reply = self.apply_to(key, values);
        drop_empty(&mut values[key]);
        reply
    }

    fn apply_to(&self, key: usize, values: &mut [Value]) -> Reply {
        let value = &mut values[key];
        match self {
            Change::Set(bytes) => {
                *value = Value { data: Data::Text(bytes.clone()), expires: None };
                Reply::ok()
            }
            Change::SetUntil(bytes, at) => {
                *value = Value { data: Data::Text(bytes.clone()), expires: Some(*at) };
                Reply::ok()
            }
            Change::Incr(by) => {
                let held = text(value);
                let sum = if held.is_empty() { *by } else { number(held) + by };
                *held = sum.to_string().into_bytes();
                Reply::Int(sum)
            }
            Change::Append(bytes) => {
                let held = text(value);
                held.extend_from_slice(bytes);
                int(held.len())
            }
            Change::SetRange(at, bytes) => {
                let held = text(value);
                held.resize(held.len().max(at + bytes.len()), 0);
                held[*at..at + bytes.len()].copy_from_slice(bytes);
                int(held.len())
            }
            Change::Del => flag(!std::mem::take(value).is_missing()),
            Change::ExpireAt(at) => {
                let live = !value.is_missing();
                value.expires = live.then_some(*at);
                flag(live)
            }
            Change::Persist => flag(value.expires.take().is_some()),
            Change::RPush(items) => {
                let held = list(value);
                held.extend(items.iter().cloned());
                int(held.len())
            }
            Change::LPush(items) => {
                let held = list(value);
                items.iter().for_each(|item| held.push_front(item.clone()));
                int(held.len())
            }
            Change::RPop(count) => popped(value, *count, VecDeque::pop_back),
            Change::LPop(count) => popped(value, *count, VecDeque::pop_front),
            Change::LSet(index, item) => {
                if value.is_missing() {
                    return Reply::error("ERR no such key");
                }
                match list(value).get_mut(*index) {
                    Some(held) => {
                        held.clone_from(item);
                        Reply::ok()
                    }
                    None => Reply::error("ERR index out of range"),
                }
            }
            Change::KeepLast(count) => {
                let held = list(value);
                held.drain(..held.len().saturating_sub(*count));
                Reply::ok()
            }
            Change::SAdd(items) => int(items.iter().filter(|item| set(value).insert(item.to_vec())).count()),
            Change::SRem(items) => int(items.iter().filter(|item| set(value).remove(*item)).count()),
            Change::HSet(pairs) => {
                let held = hash(value);
                int(pairs.iter().filter(|(field, item)| held.insert(field.clone(), item.clone()).is_none()).count())
            }
            Change::HIncr(field, by) => {
                let held = hash(value).entry(field.clone()).or_insert_with(|| b"0".to_vec());
                let sum = number(held) + by;
                *held = sum.to_string().into_bytes();
                Reply::Int(sum)
            }
            Change::HDel(fields) => int(fields.iter().filter(|field| hash(value).remove(*field).is_some()).count()),
            Change::ZAdd(pairs) => {
                let held = zset(value);
                int(pairs.iter().filter(|(member, score)| held.insert(member.clone(), *score).is_none()).count())
            }
            Change::ZIncr(member, by) => {
                let held = zset(value).entry(member.clone()).or_insert(0);
                *held += by;
                Reply::bulk(held.to_string())
            }
            Change::ZRem(members) => int(members.iter().filter(|member| zset(value).remove(*member).is_some()).count()),
            Change::XAdd(id, item) => {
                stream(value).push_back((*id, item.clone()));
                Reply::bulk(format!("{id}-0"))
            }
            Change::XTrim(keep) => {
                if value.is_missing() {
                    return Reply::Int(0);
                }
                let held = stream(value);
                let gone = held.len().saturating_sub(*keep);
                held.drain(..gone);
                int(gone)
            }
            Change::XDel(id) => {
                if value.is_missing() {
                    return Reply::Int(0);
                }
                let held = stream(value);
                let before = held.len();
                held.retain(|(known, _)| known != id);
                int(before - held.len())
            }
            Change::RenameTo(other) => {
                if value.is_missing() {
                    return Reply::error("ERR no such key");
                }
                values[*other] = std::mem::take(value);
                Reply::ok()
            }
            Change::CopyTo(other) => {
                let live = !value.is_missing();
                if live {
                    values[*other] = value.clone();
                }
                flag(live)
            }
            Change::MoveTo(other) => {
                let Some(item) = list(value).pop_back() else { return Reply::Nil };
                list(&mut values[*other]).push_front(item.clone());
                Reply::Bulk(item)
            }
            Change::SMoveTo(other, member) => {
                let moved = set(value).remove(member);
                if moved {
                    set(&mut values[*other]).insert(member.clone());
                }
                flag(moved)
            }
        }
    }

    /// The command; `names` are the keys of the family.
    pub fn command(&self, key: usize, names: &[&str]) -> Vec<Vec<u8>> {
        let own = names[key];
        let mut args: Vec<Vec<u8>> = Vec::new();
        let mut put = |words: &[&str]| args.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        match self {
            Change::Set(bytes) => {
                put(&["SET", own]);
                args.push(bytes.clone());
            }
            Change::SetUntil(bytes, at) => {
                put(&["SET", own, "", "PXAT", &at.to_string()]);
                args[2].clone_from(bytes);
            }
            Change::Incr(1) => put(&["INCR", own]),
            Change::Incr(by) => put(&["INCRBY", own, &by.to_string()]),
            Change::Append(bytes) => {
                put(&["APPEND", own]);
                args.push(bytes.clone());
            }
            Change::SetRange(at, bytes) => {
                put(&["SETRANGE", own, &at.to_string()]);
                args.push(bytes.clone());
            }
            Change::Del => put(&["DEL", own]),
            Change::ExpireAt(at) => put(&["PEXPIREAT", own, &at.to_string()]),
            Change::Persist => put(&["PERSIST", own]),
            Change::RPush(items) => {
                put(&["RPUSH", own]);
                args.extend(items.iter().cloned());
            }
            Change::LPush(items) => {
                put(&["LPUSH", own]);
                args.extend(items.iter().cloned());
            }
            Change::RPop(count) => put(&["RPOP", own, &count.to_string()]),
            Change::LPop(count) => put(&["LPOP", own, &count.to_string()]),
            Change::LSet(index, item) => {
                put(&["LSET", own, &index.to_string()]);
                args.push(item.clone());
            }
            Change::KeepLast(count) => put(&["LTRIM", own, &format!("-{count}"), "-1"]),
            Change::SAdd(items) => {
                put(&["SADD", own]);
                args.extend(items.iter().cloned());
            }
            Change::SRem(items) => {
                put(&["SREM", own]);
                args.extend(items.iter().cloned());
            }
            Change::HSet(pairs) => {
                put(&["HSET", own]);
                args.extend(pairs.iter().flat_map(|(field, item)| [field.clone(), item.clone()]));
            }
            Change::HIncr(field, by) => {
                put(&["HINCRBY", own, "", &by.to_string()]);
                args[2].clone_from(field);
            }
            Change::HDel(fields) => {
                put(&["HDEL", own]);
                args.extend(fields.iter().cloned());
            }
            Change::ZAdd(pairs) => {
                put(&["ZADD", own]);
                args.extend(pairs.iter().flat_map(|(member, score)| [score.to_string().into_bytes(), member.clone()]));
            }
            Change::ZIncr(member, by) => {
                put(&["ZINCRBY", own, &by.to_string()]);
                args.push(member.clone());
            }
            Change::ZRem(members) => {
                put(&["ZREM", own]);
                args.extend(members.iter().cloned());
            }
            Change::XAdd(id, item) => {
                put(&["XADD", own, &format!("{id}-0"), "f"]);
                args.push(item.clone());
            }
            Change::XTrim(keep) => put(&["XTRIM", own, "MAXLEN", "=", &keep.to_string()]),
            Change::XDel(id) => put(&["XDEL", own, &format!("{id}-0")]),
            Change::RenameTo(other) => put(&["RENAME", own, names[*other]]),
            Change::CopyTo(other) => put(&["COPY", own, names[*other], "REPLACE"]),
            Change::MoveTo(other) => put(&["LMOVE", own, names[*other], "RIGHT", "LEFT"]),
            Change::SMoveTo(other, member) => {
                put(&["SMOVE", own, names[*other]]);
                args.push(member.clone());
            }
        }
        args
    }
}

fn popped(value: &mut Value, count: usize, pop: fn(&mut VecDeque<Vec<u8>>) -> Option<Vec<u8>>) -> Reply {
    if value.is_missing() {
        return Reply::NilArray;
    }
    let held = list(value);
    Reply::Array((0..count).map_while(|_| pop(held)).map(Reply::Bulk).collect())
}

impl Kind {
    /// The command that reads a whole key of this type.
    pub fn read_command(self, name: &str) -> Vec<&str> {
        match self {
            Kind::Text => vec!["GET", name],
            Kind::List => vec!["LRANGE", name, "0", "-1"],
            Kind::Set => vec!["SMEMBERS", name],
            Kind::Hash => vec!["HGETALL", name],
            Kind::Zset => vec!["ZRANGE", name, "0", "-1", "WITHSCORES"],
            Kind::Stream => vec!["XRANGE", name, "-", "+"],
        }
    }

    /// What was read, from the replies to [`Kind::read_command`], `EXISTS` and `PEXPIRETIME`. An error is given back as it came.
    pub fn value_of(self, read: &Reply, exists: &Reply, expires: &Reply) -> Result<Value, String> {
        for reply in [read, exists, expires] {
            if let Reply::Error(text) = reply {
                return Err(text.clone());
            }
        }
        // Between two of the commands the key may have expired.
        if *exists == Reply::Int(0) || *expires == Reply::Int(-2) {
            return Ok(Value::default());
        }
        let pairs = || read.items().chunks_exact(2).map(|pair| (pair[0].bytes().to_vec(), pair[1].bytes().to_vec()));
        let all = || read.items().iter().map(|item| item.bytes().to_vec());
        let data = match (self, read) {
            (_, Reply::Nil) => Data::Missing,
            (Kind::Text, read) => Data::Text(read.bytes().to_vec()),
            (Kind::List, _) => Data::List(all().collect()),
            (Kind::Set, _) => Data::Set(all().collect()),
            (Kind::Hash, _) => Data::Hash(pairs().collect()),
            (Kind::Zset, _) => Data::Zset(pairs().map(|(member, score)| (member, number(&score))).collect()),
            (Kind::Stream, _) => Data::Stream(read.items().iter().map(entry).collect()),
        };
        let expires = u64::try_from(expires.int()).ok();
        Ok(Value { data, expires })
    }
}

fn entry(entry: &Reply) -> (u64, Vec<u8>) {
    let [id, fields] = entry.items() else { panic!("an entry of a stream: {entry:?}") };
    let id = id.text();
    let (ms, _) = id.split_once('-').expect("an ID");
    (ms.parse().expect("a number"), fields.items()[1].bytes().to_vec())
}
