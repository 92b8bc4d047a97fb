//! Every kind of damage to files and folders is found, named with its place, and told from what is none.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use haypile::binlog::{self, Draft, Participant, Position, RecordStream, Writer, put_effect};
use haypile::engine::Engine;

use crate::common::haypile;
use crate::folders::{engine_dir, files, flip, killed, log_dir, saves};

/// What is done to a folder, and what the check must then say.
struct Case {
    name: &'static str,
    harm: fn(&Path),
    code: i32,
    /// Beginning of the finding's line, and text in it.
    severity: &'static str,
    said: &'static [&'static str],
}

fn all_positions(dir: &Path) -> Vec<(PathBuf, Position, Position)> {
    let mut found = Vec::new();
    for path in files(dir, "binlog.") {
        let mut stream = RecordStream::open_path(&path).expect("a binlog file");
        loop {
            let before = stream.position();
            let Some(end) = stream.next_record().expect("a record").map(|record| record.end) else { break };
            found.push((path.clone(), before, end));
        }
    }
    found
}

fn cut(path: &Path, len: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("a file");
    file.set_len(len).expect("a cut");
}

/// Adds a record to the end of slot 0's log.
fn append(data: &Path, draft: &Draft) {
    let dir = log_dir(data, 0, 0);
    let tail = all_positions(&dir).last().expect("records").2;
    let mut writer = Writer::resume(&dir, tail, u64::MAX).expect("the log");
    writer.append([draft].into_iter(), tail.term).expect("a record");
}

fn draft(args: &[&[u8]], participants: &[Participant]) -> Draft {
    let mut draft = Draft::new(1_900_000_000_000);
    put_effect(draft.effects(), args);
    draft.set_participants(participants);
    draft
}

const CASES: &[Case] = &[
    Case {
        name: "a flipped byte in a record that a start would replay",
        harm: |data| {
            let records = all_positions(&log_dir(data, 0, 0));
            let (path, before, _) = &records[records.len() - 2];
            flip(path, before.offset as usize + 40);
        },
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "checksum mismatch", "makes the slot read-only"],
    },
    Case {
        name: "a flipped byte in a record that the engine holds already",
        harm: |data| {
            let (path, before, _) = &all_positions(&log_dir(data, 0, 0))[1];
            flip(path, before.offset as usize + 40);
        },
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "checksum mismatch, with whole records after it", "hold these records already"],
    },
    Case {
        name: "a flipped byte in a record's header",
        harm: |data| {
            let (path, before, _) = &all_positions(&log_dir(data, 0, 1))[2];
            flip(path, before.offset as usize + 21);
        },
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "chain mismatch"],
    },
    Case {
        name: "a flipped byte in a file's header",
        harm: |data| flip(&files(&log_dir(data, 0, 1), "binlog.")[1], 30),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "header checksum mismatch, with whole records after it from offset 64"],
    },
    Case {
        name: "the header of the file that the engine's position is in",
        harm: |data| {
            let applied = Engine::applied_in(&engine_dir(data, 0, 1)).expect("a position");
            flip(&binlog::file_path(&log_dir(data, 0, 1), applied.position.filenum), 30);
        },
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "header checksum mismatch", "makes the slot read-only"],
    },
    Case {
        name: "a file under another one's name",
        harm: |data| {
            let files = files(&log_dir(data, 0, 1), "binlog.");
            fs::copy(&files[1], &files[2]).expect("a copy");
        },
        code: 2,
        severity: "DAMAGE",
        said: &["its header says file 1"],
    },
    Case {
        name: "a missing file in the middle",
        harm: |data| fs::remove_file(&files(&log_dir(data, 0, 0), "binlog.")[1]).expect("a file"),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "binlog.0000000002 offset 0: file 1 of the log is missing"],
    },
    Case {
        name: "the file with the engine's position is gone",
        harm: |data| {
            let files = files(&log_dir(data, 0, 0), "binlog.");
            files.iter().take(files.len() - 1).for_each(|path| fs::remove_file(path).expect("a file"));
        },
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "after the engine's position", "removed by hand"],
    },
    Case {
        name: "first files are gone, as after a purge",
        harm: |data| fs::remove_file(&files(&log_dir(data, 0, 0), "binlog.")[0]).expect("a file"),
        code: 0,
        severity: "the next start replays",
        said: &["records"],
    },
    Case {
        name: "the end of a file that is not the last",
        harm: |data| {
            let path = &files(&log_dir(data, 0, 0), "binlog.")[0];
            cut(path, fs::metadata(path).expect("a file").len() - 3);
        },
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "binlog.0000000000 offset", "cut off"],
    },
    Case {
        name: "a torn tail",
        harm: |data| {
            let (path, _, end) = all_positions(&log_dir(data, 0, 0)).pop().expect("a record");
            cut(&path, end.offset - 3);
        },
        code: 0,
        severity: "warning",
        said: &["db0:0", "are no whole record (cut off)", "the next start cuts them off"],
    },
    Case {
        name: "the log ends before the engine's position",
        harm: |data| {
            let dir = log_dir(data, 0, 1);
            let (path, _, end) = all_positions(&dir)[2].clone();
            cut(&path, end.offset);
            let files = files(&dir, "binlog.");
            files.iter().filter(|other| **other > path).for_each(|path| fs::remove_file(path).expect("a file"));
        },
        code: 0,
        severity: "warning",
        said: &["db0:1", "before the engine's position", "begins a new log"],
    },
    Case {
        name: "the log of another slot",
        harm: |data| {
            let (from, to) = (log_dir(data, 0, 1), log_dir(data, 0, 0));
            fs::remove_dir_all(&to).expect("a folder");
            crate::folders::copy_into(&from, &to);
        },
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "does not name it"],
    },
    Case {
        name: "the log of another history",
        harm: |data| {
            let dir = log_dir(data, 0, 0);
            let ends: Vec<u64> = all_positions(&dir).iter().map(|(_, _, end)| end.index).collect();
            fs::remove_dir_all(&dir).expect("a folder");
            let mut writer = Writer::create(&dir, Position::START, 1 << 10).expect("a log");
            for index in ends {
                let value = vec![b'y'; (index % 100 + 40) as usize];
                writer.append([&draft(&[b"SET", b"k", &value], &[])].into_iter(), 1).expect("a record");
            }
        },
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "no record of the log ends at the engine's position", "do not belong together"],
    },
    Case {
        name: "an effect that nobody understands",
        harm: |data| append(data, &draft(&[b"NOSUCH", b"k"], &[])),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "record not understood: NOSUCH k", "read-only"],
    },
    Case {
        name: "a part of a write over several slots that names others only",
        harm: |data| append(data, &draft(&[b"SET", b"k", b"v"], &[Participant { db: 0, slot: 1, index: 1 }])),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "does not name it"],
    },
    Case {
        name: "a write over several slots that a crash interrupted",
        harm: |data| {
            let (path, before, _) = all_positions(&log_dir(data, 0, 1)).pop().expect("a record");
            cut(&path, before.offset);
        },
        code: 0,
        severity: "warning",
        said: &["db0:0", "the last 1 record", "several slots that not all of them have", "takes it back"],
    },
    Case {
        name: "the log is gone",
        harm: |data| fs::remove_dir_all(log_dir(data, 0, 1)).expect("a folder"),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "the log is missing"],
    },
    Case {
        name: "the engine is gone",
        harm: |data| fs::remove_dir_all(engine_dir(data, 0, 1)).expect("a folder"),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "the engine is missing"],
    },
    Case {
        name: "a flipped byte in a block",
        harm: |data| files(&engine_dir(data, 0, 0), ".sst").iter().for_each(|path| flip(path, 20)),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "checksum mismatch", ".sst", "full sync"],
    },
    Case {
        name: "a missing table file",
        harm: |data| fs::remove_file(&files(&engine_dir(data, 0, 1), ".sst")[0]).expect("a file"),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "the engine cannot be opened", ".sst"],
    },
    Case {
        name: "a table file cut short",
        harm: |data| cut(&files(&engine_dir(data, 0, 1), ".sst")[0], 100),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "the engine cannot be opened"],
    },
    Case {
        name: "a damaged manifest",
        harm: |data| flip(&files(&engine_dir(data, 0, 1), "MANIFEST")[0], 60),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "the engine cannot be opened"],
    },
    Case {
        name: "CURRENT is gone",
        harm: |data| fs::remove_file(data.join("db/db0/0/CURRENT")).expect("a file"),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "is missing, but", "will not start"],
    },
    Case {
        name: "CURRENT is garbage",
        harm: |data| fs::write(data.join("db/db0/0/CURRENT"), "haypile slot 9\n").expect("a write"),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "CURRENT: malformed"],
    },
    Case {
        name: "the slot's whole folder is gone, its log is there",
        harm: |data| fs::remove_dir_all(data.join("db/db0/1")).expect("a folder"),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "is missing, but"],
    },
    Case {
        name: "LAYOUT is gone",
        harm: |data| fs::remove_file(data.join("db/LAYOUT")).expect("a file"),
        code: 2,
        severity: "DAMAGE",
        said: &["LAYOUT", "missing"],
    },
    Case {
        name: "LAYOUT is of another number of slots",
        harm: |data| fs::write(data.join("db/LAYOUT"), "slot-num : 1\n").expect("a write"),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "there are 1 slots"],
    },
    Case {
        name: "LAYOUT is garbage",
        harm: |data| fs::write(data.join("db/LAYOUT"), "slot-num : \n").expect("a write"),
        code: 2,
        severity: "DAMAGE",
        said: &["LAYOUT", "malformed", "will not start"],
    },
    Case {
        name: "NODE is garbage",
        harm: |data| fs::write(data.join("NODE"), "haypile node 1\nterm : x\n").expect("a write"),
        code: 2,
        severity: "DAMAGE",
        said: &["NODE", "malformed line"],
    },
    Case {
        name: "NODE is gone",
        harm: |data| fs::remove_file(data.join("NODE")).expect("a file"),
        code: 0,
        severity: "warning",
        said: &["NODE", "does not remember"],
    },
    Case {
        name: "generations that are not in use",
        harm: |data| {
            fs::create_dir(data.join("db/db0/0/engine-000077")).expect("a folder");
            fs::create_dir(data.join("binlog/db0/0/log-000077")).expect("a folder");
        },
        code: 0,
        severity: "note",
        said: &["db0:0", "log-000077", "not in use"],
    },
    Case {
        name: "a save's MANIFEST",
        harm: |data| edit(&saves(data)[0].join("MANIFEST"), "slot-num : 2", "slot-num : 4"),
        code: 2,
        severity: "DAMAGE",
        said: &["MANIFEST", "its own checksum", "Do not restore from it"],
    },
    Case {
        name: "a save's MANIFEST is gone",
        harm: |data| fs::remove_file(saves(data)[0].join("MANIFEST")).expect("a file"),
        code: 2,
        severity: "DAMAGE",
        said: &["MANIFEST", "missing"],
    },
    Case {
        name: "a file of a save that no engine checks",
        harm: |data| files(&saves(data)[0].join("db0/1/data"), "OPTIONS").iter().for_each(|path| flip(path, 3)),
        code: 2,
        severity: "DAMAGE",
        said: &["OPTIONS", "MANIFEST says"],
    },
    Case {
        name: "a save's info",
        harm: |data| cut(&saves(data)[0].join("db0/0/info"), 50),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "info:", "Do not restore from it"],
    },
    Case {
        name: "a save's info is gone",
        harm: |data| fs::remove_file(saves(data)[0].join("db0/1/info")).expect("a file"),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "info: missing"],
    },
    Case {
        name: "a save's info is of another position",
        harm: |data| edit(&saves(data)[0].join("db0/1/info"), "term : 1", "term : 2"),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "its info says it contains the log up to"],
    },
    Case {
        name: "slots of a save were exchanged",
        harm: |data| {
            let save = saves(data).remove(0).join("db0");
            fs::rename(save.join("0"), save.join("tmp")).expect("a rename");
            fs::rename(save.join("1"), save.join("0")).expect("a rename");
            fs::rename(save.join("tmp"), save.join("1")).expect("a rename");
        },
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "it is of slot db0:1"],
    },
    Case {
        name: "a block of a save",
        harm: |data| files(&saves(data)[0].join("db0/0/data"), ".sst").iter().for_each(|path| flip(path, 20)),
        code: 2,
        severity: "DAMAGE",
        said: &["db0:0", "/dump/", "checksum mismatch"],
    },
    Case {
        name: "a save that was not finished",
        harm: |data| fs::create_dir(data.join("dump/20260131-235959.tmp")).expect("a folder"),
        code: 0,
        severity: "note",
        said: &["20260131-235959.tmp", "not finished"],
    },
    Case {
        name: "a damaged file under diverged/",
        harm: |data| {
            let dir = data.join("diverged");
            let mut writer = Writer::create(&dir, Position::START, u64::MAX).expect("a log");
            for value in [&b"one"[..], b"two", b"three"] {
                writer.append([&draft(&[b"SET", b"k", value], &[])].into_iter(), 1).expect("a record");
            }
            let saved = dir.join("db0-1-after-0-1769903999123.binlog");
            fs::rename(binlog::file_path(&dir, 0), &saved).expect("a rename");
            flip(&saved, 110);
        },
        code: 2,
        severity: "DAMAGE",
        said: &["db0:1", "diverged/", "with whole records after it"],
    },
];

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).expect("a text");
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).expect("a write");
}

#[test]
fn every_kind_is_found() {
    for Case { name, harm, code, severity, said } in CASES {
        let data = killed();
        harm(data.path());
        let (found, out, err) = haypile(&["check".as_ref(), data.path().as_os_str()]);
        assert_eq!(found, *code, "{name}:\n{out}{err}");
        let is_it = |line: &str| line.starts_with(severity) && said.iter().all(|text| line.contains(text));
        assert!(out.lines().any(is_it), "{name}: nothing says {severity} {said:?}:\n{out}{err}");
        assert_eq!(*code == 2, out.contains("\nDAMAGED: "), "{name}:\n{out}");
    }
}

#[test]
fn findings_as_json() {
    let data = killed();
    flip(&files(&log_dir(data.path(), 0, 0), "binlog.")[0], 64 + 40);
    let (code, out, _) = haypile(&["check".as_ref(), "--json".as_ref(), data.path().as_os_str()]);
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &document["sound"], &document["damages"]), (2, &false.into(), &1.into()), "{out}");
    let finding = document["findings"].as_array().expect("findings").iter().find(|f| f["severity"] == "damage");
    let finding = finding.expect("damage");
    assert_eq!((&finding["slot"], &finding["offset"]), (&"db0:0".into(), &64.into()), "{out}");
    // Without the saves nothing of them is read.
    let broken = saves(data.path())[0].join("db0/0/info");
    fs::remove_file(broken).expect("a file");
    let (_, out, _) = haypile(&["check".as_ref(), "--no-dumps".as_ref(), data.path().as_os_str()]);
    assert!(out.contains("DAMAGED: 1 finding"), "{out}");
}
