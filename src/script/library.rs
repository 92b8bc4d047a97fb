//! Libraries of functions: the registry that FUNCTION LOAD, LIST, DUMP and RESTORE work on.
//!
//! A registry is a value: commands change a copy and put it in place of the old one when all went well.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::flags::line_end;
use super::{Engine, ScriptFlags};
use crate::net::resp::split_line;
use crate::rdb::{self, Reader, Writer};

/// Time that the code of a library may take when a client loads it.
pub const LOAD_TIMEOUT: Duration = Duration::from_millis(500);

/// Redis 7.0 RDB, opcode FUNCTION2: a library, as one string.
const OPCODE_FUNCTION: u8 = 245;
/// RDB version written behind a dump.
const RDB_VERSION: u16 = 10;
/// Bytes of the code of a library that is restored, at most.
const MAX_CODE: u64 = 512 << 20;

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
        let mut writer = Writer::new(true);
        for library in self.iter() {
            writer.byte(OPCODE_FUNCTION);
            writer.string(&library.code);
        }
        let mut payload = writer.finish();
        rdb::seal(&mut payload, RDB_VERSION);
        payload
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

/// The libraries' codes in a dump.
fn codes(dump: &[u8]) -> Result<Vec<Bytes>, String> {
    let body = rdb::unseal(dump, true).map_err(|_| "DUMP payload version or checksum are wrong")?;
    let mut rest = Bytes::copy_from_slice(body);
    let mut codes = Vec::new();
    while !rest.is_empty() {
        let mut reader = Reader::new(rest, MAX_CODE);
        if reader.byte().ok() != Some(OPCODE_FUNCTION) {
            return Err("given type is not a function".into());
        }
        codes.push(reader.string().map_err(|_| "Failed loading library payload")?);
        rest = reader.into_source();
    }
    Ok(codes)
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
