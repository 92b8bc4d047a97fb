//! Libraries of functions: the registry that FUNCTION LOAD, LIST, DUMP and RESTORE work on.
//!
//! A registry is a value: commands change a copy and put it in place of the old one when all went well.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crc::{CRC_64_REDIS, Crc};

use super::flags::line_end;
use super::{Engine, ScriptFlags};
use crate::net::resp::split_line;

/// Time that the code of a library may take when a client loads it.
pub const LOAD_TIMEOUT: Duration = Duration::from_millis(500);

/// Redis 7.0 RDB, opcode FUNCTION2: a library, as one string.
const OPCODE_FUNCTION: u8 = 245;
/// RDB version written behind a dump, and the newest one read (Redis 7.4); libraries look the same in all of them.
const RDB_VERSION: u16 = 10;
const NEWEST_RDB_VERSION: u16 = 12;
/// Bytes behind a dump: the RDB version and a CRC64.
const FOOTER: usize = 10;

const NAME_RULE: &str =
    "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";

/// A function of a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its name.
    pub name: String,
    /// What its author says of it.
    pub description: Option<Bytes>,
    /// What it declares.
    pub flags: ScriptFlags,
}

/// A loaded library.
#[derive(Debug)]
pub struct Library {
    id: u64,
    name: String,
    code: Bytes,
    lua_start: usize,
    functions: Vec<FunctionInfo>,
}

impl Library {
    pub(super) fn new(id: u64, name: String, code: Bytes, lua_start: usize, mut functions: Vec<FunctionInfo>) -> Self {
        functions.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Library { id, name, code, lua_start, functions }
    }

    /// Tells it from every other library that this engine ever loaded.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its whole code, first line included.
    pub fn code(&self) -> &Bytes {
        &self.code
    }

    /// What Lua runs of it.
    pub(super) fn lua_code(&self) -> &[u8] {
        self.code.get(self.lua_start..).unwrap_or_default()
    }

    /// Its functions by name.
    pub fn functions(&self) -> &[FunctionInfo] {
        &self.functions
    }
}

/// What FUNCTION RESTORE does with the libraries that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestorePolicy {
    /// They go.
    Flush,
    /// They stay, and must not be among the restored ones.
    Append,
    /// Those among the restored ones are replaced.
    Replace,
}

/// A registry of libraries. Errors of its methods are Redis's messages, without a code.
#[derive(Clone, Debug, Default)]
pub struct Libraries {
    by_name: BTreeMap<String, Arc<Library>>,
    /// Functions by their names in lower case: which library, which of its functions.
    functions: HashMap<String, (Arc<Library>, usize)>,
}

impl Libraries {
    /// The libraries by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Library>> {
        self.by_name.values()
    }

    /// Libraries and functions.
    pub fn counts(&self) -> (usize, usize) {
        (self.by_name.len(), self.functions.len())
    }

    /// A function, in any case of letters.
    pub fn function(&self, name: &[u8]) -> Option<(&Arc<Library>, &FunctionInfo)> {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        let (library, index) = self.functions.get(&name)?;
        library.functions.get(*index).map(|info| (library, info))
    }

    /// Loads the library whose whole code is `code` and returns its name. `timeout` limits the run of its code.
    pub fn load(
        &mut self,
        engine: &Engine,
        code: &Bytes,
        replace: bool,
        timeout: Option<Duration>,
    ) -> Result<String, String> {
        let Metadata { engine: language, name, lua_start } = metadata(code)?;
        if !valid_name(&name) {
            return Err(NAME_RULE.into());
        }
        let name = String::from_utf8_lossy(&name).into_owned();
        if !language.eq_ignore_ascii_case(b"lua") {
            return Err(format!("Engine '{}' not found", String::from_utf8_lossy(&language)));
        }
        if self.by_name.contains_key(&name) && !replace {
            return Err(format!("Library '{name}' already exists"));
        }
        let library = engine.load_library(name.clone(), code.clone(), lua_start, timeout)?;
        if library.functions.is_empty() {
            return Err("No functions registered".into());
        }
        let taken = |info: &&FunctionInfo| {
            self.function(info.name.as_bytes()).is_some_and(|(other, _)| other.name != library.name)
        };
        if let Some(function) = library.functions.iter().find(taken) {
            return Err(format!("Function {} already exists", function.name));
        }
        self.remove(&name);
        self.insert(library);
        Ok(name)
    }

    fn insert(&mut self, library: Arc<Library>) {
        for (index, function) in library.functions.iter().enumerate() {
            self.functions.insert(function.name.to_ascii_lowercase(), (Arc::clone(&library), index));
        }
        self.by_name.insert(library.name.clone(), library);
    }

    fn remove(&mut self, name: &str) -> bool {
        let Some(library) = self.by_name.remove(name) else { return false };
        self.functions.retain(|_, (other, _)| !Arc::ptr_eq(other, &library));
        true
    }

    /// Deletes a library.
    pub fn delete(&mut self, name: &[u8]) -> Result<(), String> {
        let removed = std::str::from_utf8(name).is_ok_and(|name| self.remove(name));
        if removed { Ok(()) } else { Err("Library not found".into()) }
    }

    /// The payload of FUNCTION DUMP: each library as in an RDB file, then version and checksum.
    pub fn dump(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for library in self.iter() {
            out.push(OPCODE_FUNCTION);
            match library.code.len() {
                len @ ..0x40 => out.push(len as u8),
                len @ ..0x4000 => out.extend_from_slice(&(0x4000 | len as u16).to_be_bytes()),
                len if u32::try_from(len).is_ok() => {
                    out.push(0x80);
                    out.extend_from_slice(&(len as u32).to_be_bytes());
                }
                len => {
                    out.push(0x81);
                    out.extend_from_slice(&(len as u64).to_be_bytes());
                }
            }
            out.extend_from_slice(&library.code);
        }
        out.extend_from_slice(&RDB_VERSION.to_le_bytes());
        let checksum = checksum(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// The libraries of a dump that this node, or its master, made. Those that `known` has need not be loaded again. One that cannot be
    /// loaded is left out; the log says why.
    pub(super) fn reload(engine: &Engine, dump: &[u8], known: &Libraries) -> Result<Libraries, String> {
        let mut libraries = Libraries::default();
        for code in codes(dump)? {
            let same = metadata(&code).ok().and_then(|found| {
                let library = known.by_name.get(std::str::from_utf8(&found.name).ok()?)?;
                (library.code == code).then(|| Arc::clone(library))
            });
            match same {
                Some(library) => libraries.insert(library),
                None => {
                    if let Err(error) = libraries.load(engine, &code, false, None) {
                        tracing::error!("a library of functions cannot be loaded: {error}");
                    }
                }
            }
        }
        Ok(libraries)
    }

    /// Takes the libraries of a dump in. On an error nothing has changed.
    pub fn restore(&mut self, engine: &Engine, dump: &[u8], policy: RestorePolicy) -> Result<(), String> {
        let mut restored = Libraries::default();
        for code in codes(dump)? {
            restored.load(engine, &code, false, None)?;
        }
        let mut joined = if policy == RestorePolicy::Flush { Libraries::default() } else { self.clone() };
        for name in restored.by_name.keys() {
            if joined.remove(name) && policy == RestorePolicy::Append {
                return Err(format!("Library {name} already exists"));
            }
        }
        for library in restored.iter() {
            if let Some(function) = library.functions.iter().find(|f| joined.function(f.name.as_bytes()).is_some()) {
                return Err(format!("Function {} already exists", function.name));
            }
        }
        restored.by_name.into_values().for_each(|library| joined.insert(library));
        *self = joined;
        Ok(())
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    Crc::<u64>::new(&CRC_64_REDIS).checksum(bytes)
}

/// The libraries' codes in a dump.
fn codes(dump: &[u8]) -> Result<Vec<Bytes>, String> {
    let wrong = || "DUMP payload version or checksum are wrong".to_owned();
    let (mut rest, footer) = dump.len().checked_sub(FOOTER).map(|at| dump.split_at(at)).ok_or_else(wrong)?;
    let (signed, sum) = dump.split_at(dump.len() - size_of::<u64>());
    let version = footer.first_chunk().map_or(u16::MAX, |bytes| u16::from_le_bytes(*bytes));
    if version > NEWEST_RDB_VERSION || sum != checksum(signed).to_le_bytes() {
        return Err(wrong());
    }
    let mut codes = Vec::new();
    while let Some((opcode, tail)) = rest.split_first() {
        if *opcode != OPCODE_FUNCTION {
            return Err("given type is not a function".into());
        }
        let (code, tail) = string(tail).ok_or("Failed loading library payload")?;
        codes.push(code);
        rest = tail;
    }
    Ok(codes)
}

/// A length of the RDB format, or the kind of a special string; and what follows.
fn length(bytes: &[u8]) -> Option<(Result<usize, u8>, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    Some(match first >> 6 {
        0 => (Ok(usize::from(*first)), rest),
        1 => {
            let (low, rest) = rest.split_first()?;
            (Ok(usize::from(first & 0x3f) << 8 | usize::from(*low)), rest)
        }
        2 if *first == 0x80 => {
            let (len, rest) = rest.split_first_chunk()?;
            (Ok(u32::from_be_bytes(*len) as usize), rest)
        }
        2 if *first == 0x81 => {
            let (len, rest) = rest.split_first_chunk()?;
            (Ok(usize::try_from(u64::from_be_bytes(*len)).ok()?), rest)
        }
        3 => (Err(first & 0x3f), rest),
        _ => return None,
    })
}

/// A string of the RDB format, plain or compressed (no library is short enough to be a number).
fn string(bytes: &[u8]) -> Option<(Bytes, &[u8])> {
    const COMPRESSED: u8 = 3;
    match length(bytes)? {
        (Ok(len), rest) => {
            let (text, rest) = rest.split_at_checked(len)?;
            Some((Bytes::copy_from_slice(text), rest))
        }
        (Err(COMPRESSED), rest) => {
            let (Ok(packed_len), rest) = length(rest)? else { return None };
            let (Ok(len), rest) = length(rest)? else { return None };
            let (packed, rest) = rest.split_at_checked(packed_len)?;
            Some((decompress(packed, len)?.into(), rest))
        }
        _ => None,
    }
}

/// Undoes LZF: runs of literal bytes, and references of a distance back and a length.
fn decompress(mut packed: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((&control, rest)) = packed.split_first() {
        if control < 0x20 {
            let (literal, rest) = rest.split_at_checked(usize::from(control) + 1)?;
            out.extend_from_slice(literal);
            packed = rest;
            continue;
        }
        let mut count = usize::from(control >> 5);
        let mut rest = rest;
        if count == 7 {
            let (more, tail) = rest.split_first()?;
            count += usize::from(*more);
            rest = tail;
        }
        let (low, rest) = rest.split_first()?;
        let distance = (usize::from(control & 0x1f) << 8 | usize::from(*low)) + 1;
        let from = out.len().checked_sub(distance)?;
        for at in from..from + count + 2 {
            out.push(*out.get(at)?);
        }
        packed = rest;
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then_some(out)
}

/// Whether a library or a function may be called so.
pub(super) fn valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// What the first line of a library says.
struct Metadata {
    engine: Bytes,
    name: Bytes,
    lua_start: usize,
}

fn metadata(code: &[u8]) -> Result<Metadata, String> {
    if !code.starts_with(b"#!") {
        return Err("Missing library metadata".into());
    }
    let invalid = || "Invalid library metadata".to_owned();
    let lua_start = line_end(code).ok_or_else(invalid)?;
    let parts = code.get(..lua_start).and_then(split_line).ok_or_else(invalid)?;
    let (first, options) = parts.split_first().ok_or_else(invalid)?;
    let mut name = None;
    for option in options {
        if !option.get(..5).is_some_and(|key| key.eq_ignore_ascii_case(b"name=")) {
            return Err(format!("Invalid metadata value given: {}", String::from_utf8_lossy(option)));
        }
        if name.replace(option.slice(5..)).is_some() {
            return Err("Invalid metadata value, name argument was given multiple times".into());
        }
    }
    let name = name.ok_or("Library name was not given")?;
    Ok(Metadata { engine: first.slice(2..), name, lua_start })
}
