//! Files of lines that a start reads: the conf file, NODE, CURRENT; and those of snapshots, which a master sends.

use std::fs;

use super::{Answer, Fuzz, answer, answer_of};
use crate::config::Config;
use crate::keyspace::parse_current;
use crate::replication::NodeState;
use crate::snapshot::{Checksum, FileEntry, Info, Listing};

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn conf() {
    let shipped = include_bytes!("../../conf/haypile.conf").to_vec();
    let short =
        b"port : 9221\nbind : 127.0.0.1 ::1\nblock-cache : 64M\nslaveof : 10.0.0.1:9221\n# end\nsync : always\n";
    let dir = scratch();
    let path = dir.path().join("haypile.conf");
    let check = |input: &[u8]| -> Answer {
        fs::write(&path, input).unwrap();
        let loaded = Config::load(Some(&path), &[]);
        if let Err(e) = &loaded {
            // A setting of the file may be at odds with the default of another one.
            let places = [path.display().to_string(), "default:".into()];
            assert!(places.iter().any(|place| e.to_string().starts_with(place)), "does not say where: {e}");
        }
        answer_of(&loaded, |config| config.get(|_| true).iter().map(|(_, value)| value.len()).sum())
    };
    let tokens = [" : ", "\n", "K", "G", "T", "99999999999999999999", "-1", "yes", "\"", "*", "::", "\0", "\u{fffd}"];
    Fuzz::new("conf", vec![short.to_vec(), shipped]).tokens(tokens).run(check);
}

#[test]
fn node() {
    let dir = scratch();
    let mut state = NodeState::load(dir.path(), None).unwrap();
    state.follow(Some(("10.1.2.3".into(), 9221)));
    state.replication_id = "0123456789".repeat(5);
    state.full_sync.insert((0, 3));
    state.detached.insert(2);
    state.save().unwrap();
    let path = dir.path().join("NODE");
    let seed = fs::read(&path).unwrap();
    Fuzz::new("node", vec![seed]).tokens([" : ", "\n", "db0:3", "18446744073709551615"]).run(|input| {
        fs::write(&path, input).unwrap();
        let loaded = NodeState::load(dir.path(), None);
        if let Ok(state) = &loaded {
            // What was accepted is what it writes.
            state.save().unwrap();
            NodeState::load(dir.path(), None).unwrap();
        }
        answer_of(&loaded, |state| state.replication_id.len() + state.full_sync.len())
    });
}

#[test]
fn current() {
    let seed = b"haypile slot 1\nengine : 1\nbinlog : 1\n".to_vec();
    Fuzz::new("current", vec![seed]).run(|input| {
        let parsed = std::str::from_utf8(input).ok().and_then(parse_current);
        answer(parsed.is_some())
    });
}

#[test]
fn listing() {
    let names = ["info", "000012.sst", "CURRENT", "MANIFEST-000004"];
    let file = |name: &&str| FileEntry {
        name: name.to_string(),
        size: 1 << name.len(),
        checksum: Checksum::of(name.as_bytes()),
    };
    let listing =
        Listing { uuid: "4f7a0c1e-0000-4000-8000-000000000000".into(), files: names.iter().map(file).collect() };
    let tokens = ["\n", " ", "..", "/", "info", "files : ", "18446744073709551615"];
    Fuzz::new("listing", vec![listing.encode().into_bytes()]).tokens(tokens).run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return 0 };
        let parsed = Listing::parse(text);
        if let Ok(listing) = &parsed {
            assert_eq!(listing.encode(), text);
            assert!(listing.files.iter().all(|f| !f.name.contains('/') && f.name != ".." && f.name != "."));
        }
        answer_of(&parsed, |listing| listing.files.len())
    });
}

#[test]
fn info() {
    let info = "haypile snapshot 1\nslot : db0:3\ntaken : 1700000000\nseconds : 1\nhost : 127.0.0.1\nport : 9221\nfilenum : 3\n\
                offset : 1234\nterm : 2\nindex : 77\nchain : 0123456789abcdef\ntime : 1700000000000\nempty : no\n";
    Fuzz::new("info", vec![info.into()]).tokens(["\n", " : ", "yes", "18446744073709551615"]).run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return 0 };
        let parsed = Info::parse(text);
        if let Ok(info) = &parsed {
            assert_eq!(info.encode(), text);
        }
        answer_of(&parsed, |info| info.slot.len())
    });
}
