//! The MANIFEST of a save: what it contains of which slot, and every file with its size and checksum.

use std::collections::HashSet;
use std::str::FromStr;

use super::{Checksum, FileEntry, SlotKey};
use crate::binlog::Position;

const HEADER: &str = "haypile save 1";
/// Its name in a save's folder.
pub const MANIFEST: &str = "MANIFEST";

/// A slot in a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedSlot {
    pub slot: SlotKey,
    /// What its engine contains the log up to.
    pub from: Position,
    /// Where the log that is saved with it ends: that of all slots was this far at one moment.
    pub to: Position,
}

/// What stands in a MANIFEST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// When all slots were where the save has them, unix ms.
    pub taken: u64,
    /// The node: its address, and the program's version.
    pub node: String,
    pub version: String,
    /// Slots a database, and databases, that the node was configured with.
    pub slot_num: usize,
    pub databases: usize,
    /// In order. A slot that was never written is not among them.
    pub slots: Vec<SavedSlot>,
    /// By their paths below the save's folder, in order.
    pub files: Vec<FileEntry>,
}

/// Not a MANIFEST, or one that was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    #[error("the first line is not \"{HEADER}\"")]
    Header,
    #[error("its own checksum is wrong")]
    Checksum,
    #[error("line {0} is malformed")]
    Line(usize),
    #[error("it ends too early")]
    End,
}

impl Manifest {
    /// The file's contents.
    pub fn encode(&self) -> String {
        let Manifest { taken, node, version, slot_num, databases, .. } = self;
        let mut out = format!(
            "{HEADER}\ntaken : {taken}\nnode : {node}\nversion : {version}\nslot-num : {slot_num}\ndatabases : {databases}\n"
        );
        for SavedSlot { slot: (db, number), from, to } in &self.slots {
            out.push_str(&format!("slot : {db} {number} {} {}\n", position(from), position(to)));
        }
        for file in &self.files {
            out.push_str(&format!("file : {} {} {}\n", file.checksum, file.size, file.name));
        }
        let checksum = Checksum::of(out.as_bytes());
        out.push_str(&format!("checksum : {checksum}\n"));
        out
    }

    /// Undoes [`Manifest::encode`]; anything that it would not have written is refused, paths that lead out of the save's folder too.
    pub fn parse(text: &str) -> Result<Manifest, BadManifest> {
        if text.lines().next() != Some(HEADER) {
            return Err(BadManifest::Header);
        }
        let body_len = text.rfind("checksum : ").ok_or(BadManifest::End)?;
        let (body, checksum) = text.split_at(body_len);
        if checksum != format!("checksum : {}\n", Checksum::of(body.as_bytes())) {
            return Err(BadManifest::Checksum);
        }
        let mut lines = Lines { lines: body.lines().collect(), at: 1 };
        let manifest = Manifest {
            taken: lines.field("taken")?,
            node: lines.field("node")?,
            version: lines.field("version")?,
            slot_num: lines.field("slot-num")?,
            databases: lines.field("databases")?,
            slots: lines.all("slot", saved_slot)?,
            files: lines.all("file", file)?,
        };
        let mut names = HashSet::new();
        let distinct = manifest.files.iter().all(|file| names.insert(&file.name));
        if lines.at != lines.lines.len() || !distinct || manifest.slots.iter().any(|s| s.slot.1 >= manifest.slot_num) {
            return Err(BadManifest::Line(lines.at + 1));
        }
        Ok(manifest)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

struct Lines<'t> {
    lines: Vec<&'t str>,
    at: usize,
}

impl<'t> Lines<'t> {
    /// The value of the next line, if it has this key.
    fn next(&mut self, key: &str) -> Option<&'t str> {
        let value = self.lines.get(self.at)?.strip_prefix(key)?.strip_prefix(" : ")?;
        self.at += 1;
        Some(value)
    }

    fn field<T: FromStr>(&mut self, key: &str) -> Result<T, BadManifest> {
        let value = self.next(key).ok_or(BadManifest::Line(self.at + 1))?;
        value.parse().map_err(|_| BadManifest::Line(self.at))
    }

    fn all<T>(&mut self, key: &str, parse: fn(&str) -> Option<T>) -> Result<Vec<T>, BadManifest> {
        let mut found = Vec::new();
        while let Some(value) = self.next(key) {
            found.push(parse(value).ok_or(BadManifest::Line(self.at))?);
        }
        Ok(found)
    }
}

/// `filenum:offset:term:index:chain`
fn position(p: &Position) -> String {
    format!("{}:{}:{}:{}:{:016x}", p.filenum, p.offset, p.term, p.index, p.chain)
}

fn parse_position(text: &str) -> Option<Position> {
    let parts: Vec<&str> = text.split(':').collect();
    let [filenum, offset, term, index, chain] = parts[..] else { return None };
    Some(Position {
        filenum: filenum.parse().ok()?,
        offset: offset.parse().ok()?,
        term: term.parse().ok()?,
        index: index.parse().ok()?,
        chain: u64::from_str_radix(chain, 16).ok()?,
    })
}

fn saved_slot(text: &str) -> Option<SavedSlot> {
    let parts: Vec<&str> = text.split(' ').collect();
    let [db, number, from, to] = parts[..] else { return None };
    let slot = (db.parse().ok()?, number.parse().ok()?);
    Some(SavedSlot { slot, from: parse_position(from)?, to: parse_position(to)? })
}

fn file(text: &str) -> Option<FileEntry> {
    let mut parts = text.splitn(3, ' ');
    let (checksum, size, name) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
    let inside = name.split('/').all(plain);
    inside.then_some(FileEntry { name: name.into(), size: size.parse().ok()?, checksum: checksum.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let to = Position { filenum: 3, offset: 900, term: 2, index: 77, chain: 0xabc };
        let file = |name: &str| FileEntry { name: name.into(), size: 5, checksum: Checksum::of(name.as_bytes()) };
        Manifest {
            taken: 1_700_000_000_000,
            node: "127.0.0.1:9221".into(),
            version: "0.1.0".into(),
            slot_num: 4,
            databases: 3,
            slots: vec![SavedSlot { slot: (0, 3), from: Position::START, to }],
            files: vec![file("db0/3/data/000012.sst"), file("db0/3/info")],
        }
    }

    #[test]
    fn is_read_as_written() {
        let text = manifest().encode();
        assert_eq!(Manifest::parse(&text), Ok(manifest()));
        assert_eq!(manifest().bytes(), 10);
    }

    #[test]
    fn any_change_is_noticed() {
        let text = manifest().encode();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            if let Ok(changed) = String::from_utf8(changed) {
                assert!(Manifest::parse(&changed).is_err(), "byte {at}");
            }
            assert!(Manifest::parse(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        for name in ["../x", "/etc/passwd", "a//b", "a/../b", "", "a/."] {
            let mut manifest = manifest();
            manifest.files[0].name = name.into();
            assert!(Manifest::parse(&manifest.encode()).is_err(), "{name}");
        }
    }
}
