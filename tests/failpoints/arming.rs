//! How failpoints are named and armed, without a process of their own.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Seek};

use haypile::disk::failpoints::{arm, struck};
use haypile::disk::{self, Point};

#[test]
fn names_differ() {
    let names: HashSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
    assert_eq!(names.len(), Point::ALL.len());
    assert!(names.iter().all(|name| struck(&format!("{name}::before")).is_some()));
    assert!(names.iter().all(|name| struck(&format!("{name}::after")).is_some()));
    assert_eq!(struck("binlog::append"), None, "no side");
    assert!(arm("binlog::append", "eio").is_err(), "no side");
    assert!(arm("conf::sync::before", "1*nonsense").is_err());
}

#[test]
fn actions_are_counted() {
    arm("conf::sync::before", "2*off->1*eio->1*enospc->off").unwrap();
    let file = tempfile::tempfile().unwrap();
    let kinds: Vec<_> = (0..5).map(|_| disk::sync_all(Point::ConfSync, &file).err().map(|e| e.kind())).collect();
    assert_eq!(kinds[..2], [None, None]);
    assert!(kinds[2].is_some());
    assert_eq!(kinds[3..], [Some(ErrorKind::StorageFull), None]);
    assert_eq!(struck("conf::sync::before"), Some(2));
}

#[test]
fn a_short_write_leaves_half() {
    arm("conf::write::before", "1*short").unwrap();
    let mut file = tempfile::tempfile().unwrap();
    assert!(disk::write_all(Point::ConfWrite, &mut file, b"12345678").is_err());
    let mut written = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut written).unwrap();
    assert_eq!(written, "1234");
}
