//! `haypile binlog dump` and `stat`: what they show, and of what they can make something.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use haypile::binlog::{self, Draft, Position, Writer, put_effect};
use serde_json::Value;

use crate::common::node::{HAYPILE, temp_dir};
use crate::common::resp::split_line;
use crate::common::{NodeOptions, haypile, redis_cli};
use crate::folders::{files, flip, killed, log_dir};

fn dump(path: &Path, args: &[&str]) -> (i32, String, String) {
    let mut all: Vec<&OsStr> = vec!["binlog".as_ref(), "dump".as_ref(), path.as_os_str()];
    all.extend(args.iter().map(OsStr::new));
    haypile(&all)
}

/// The effects shown, and nothing said besides.
#[track_caller]
fn effects(path: &Path, args: &[&str]) -> Vec<String> {
    let (code, out, err) = dump(path, args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    out.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_string).collect()
}

fn json(path: &Path, args: &[&str]) -> Vec<Value> {
    let (code, out, err) = dump(path, &[args, &["--json"]].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A log of known records: `SET key<n> …` at `time(n)`, four to a second.
fn known_log(dir: &Path, records: u64) -> Vec<Position> {
    let mut writer = Writer::create(dir, Position::START, 400).expect("a log");
    let records = (0..records).map(|n| {
        let mut draft = Draft::new(time(n));
        put_effect(draft.effects(), &[b"SET", format!("key{n}").as_bytes(), b"a \xff\"value\""]);
        if n % 5 == 0 {
            put_effect(draft.effects(), &[b"DEL", b"every fifth"]);
        }
        writer.append([&draft].into_iter(), 1).expect("a record")
    });
    records.collect()
}

fn time(n: u64) -> u64 {
    1_769_903_999_000 + n * 250
}

#[test]
fn records_as_commands() {
    let dir = temp_dir();
    let ends = known_log(dir.path(), 3);
    let (code, out, err) = dump(dir.path(), &[]);
    let expected = format!(
        "# {}\n\
         0:{} term 1 index 1  2026-01-31T23:59:59.000Z  {} bytes\n    SET key0 \"a \\xff\\\"value\\\"\"\n    DEL \"every fifth\"\n\
         0:{} term 1 index 2  2026-01-31T23:59:59.250Z  {} bytes\n    SET key1 \"a \\xff\\\"value\\\"\"\n\
         0:{} term 1 index 3  2026-01-31T23:59:59.500Z  {} bytes\n    SET key2 \"a \\xff\\\"value\\\"\"\n",
        binlog::file_path(dir.path(), 0).display(),
        ends[0].offset,
        ends[0].offset - 64,
        ends[1].offset,
        ends[1].offset - ends[0].offset,
        ends[2].offset,
        ends[2].offset - ends[1].offset,
    );
    assert_eq!((code, out, err), (0, expected, String::new()));
    let first = &json(dir.path(), &[])[0];
    assert_eq!(first["effects"][0], serde_json::json!(["SET", "key0", { "hex": "6120ff2276616c756522" }]));
    assert_eq!((&first["start"], &first["offset"]), (&64.into(), &ends[0].offset.into()));
    assert_eq!((&first["time"], &first["effect_count"]), (&time(0).into(), &2.into()));
}

#[test]
fn filters() {
    let dir = temp_dir();
    let ends = known_log(dir.path(), 40);
    let path = dir.path();
    assert!(ends[39].filenum > 3, "{ends:?}");
    let shown = |args: &[&str]| -> Vec<u64> {
        json(path, args).iter().map(|record| record["index"].as_u64().expect("an index")).collect()
    };
    assert_eq!(shown(&[]), (1..=40).collect::<Vec<_>>());
    assert_eq!(shown(&["--key", "key1?", "--limit", "3"]), [11, 12, 13]);
    assert_eq!(shown(&["--key", "\"every fifth\""]), (1..=40).step_by(5).collect::<Vec<_>>());
    assert_eq!(shown(&["--key", "\"key1?\""]), [] as [u64; 0]);
    assert_eq!(effects(path, &["--key", "every*", "--index", "1..9"]), ["DEL \"every fifth\""; 2]);
    assert_eq!(shown(&["--index", "7"]), [7]);
    assert_eq!(shown(&["--index", "38.."]), [38, 39, 40]);
    assert_eq!(shown(&["--index", "..2"]), [1, 2]);
    assert_eq!(shown(&["--from", "2026-02-01T00:00:08.250Z"]), [38, 39, 40]);
    assert_eq!(shown(&["--until", &time(1).to_string()]), [1, 2]);
    let place = |p: &Position| format!("{}:{}", p.filenum, p.offset);
    assert_eq!(shown(&["--from-position", &place(&ends[36])]), [38, 39, 40]);
    assert_eq!(shown(&["--until-position", &place(&ends[1])]), [1, 2]);
    assert_eq!(shown(&["--from-position", &place(&ends[9]), "--until-position", &place(&ends[12])]), [11, 12, 13]);
    // One file by its name.
    let second = binlog::file_path(path, 1);
    let of_second = ends.iter().filter(|end| end.filenum == 1).map(|end| end.index).collect::<Vec<_>>();
    let found: Vec<u64> = json(&second, &[]).iter().map(|r| r["index"].as_u64().expect("an index")).collect();
    assert_eq!(found, of_second);
    for bad in [["--index", "9..1"], ["--from", "yesterday"], ["--from-position", "7"]] {
        let (code, _, err) = dump(path, &bad);
        assert!(code == 1 && err.contains(bad[1]), "{bad:?}: {err}");
    }
    assert_eq!(dump(&path.join("nothing"), &[]).0, 1);
}

#[test]
fn damage_is_said_and_passed_on_request() {
    let dir = temp_dir();
    let ends = known_log(dir.path(), 40);
    let (file, _) = (binlog::file_path(dir.path(), 1), ());
    let in_second: Vec<&Position> = ends.iter().filter(|end| end.filenum == 1).collect();
    flip(&file, in_second[0].offset as usize + 40);
    let (code, out, err) = dump(&file, &[]);
    assert_eq!(code, 2);
    assert_eq!(out.matches("SET").count(), 1, "{out}");
    let place = format!("offset {}: damaged: checksum mismatch", in_second[0].offset);
    let follow = format!("whole records follow from offset {}: --resync", in_second[1].offset);
    assert!(err.contains(&place) && err.contains(&follow), "{err}");
    let (code, out, err) = dump(&file, &["--resync"]);
    assert_eq!((code, out.matches("SET").count()), (2, in_second.len() - 1), "{out}");
    assert!(err.contains("going on"), "{err}");
    // The other files are shown in any case.
    let (code, out, _) = dump(dir.path(), &["--json"]);
    assert_eq!(code, 2);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let damage = lines.iter().find(|line| !line["damage"].is_null()).expect("damage");
    assert_eq!(damage["damage"]["next"], in_second[1].offset);
    assert_eq!(lines.last().expect("lines")["index"], 40);

    // What a crash leaves at the end of a log is no damage; in the middle of it, it is.
    let last = binlog::file_path(dir.path(), ends[39].filenum);
    let bytes = fs::read(&last).expect("a file");
    fs::write(&last, &bytes[..bytes.len() - 1]).expect("a write");
    let (code, _, err) = dump(&last, &[]);
    assert!(code == 0 && err.contains("the next start cuts them off"), "{err}");
    fs::remove_file(&last).expect("a file");
    fs::write(binlog::file_path(dir.path(), ends[39].filenum + 1), [0; 10]).expect("a write");
    assert_eq!(dump(&binlog::file_path(dir.path(), ends[39].filenum + 1), &[]).0, 0, "a file that was just begun");
    let (code, _, err) = dump(&binlog::file_path(dir.path(), 0), &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    let zero = binlog::file_path(dir.path(), 0);
    flip(&zero, 20);
    let (code, out, err) = dump(&zero, &["--resync"]);
    assert!(code == 2 && out.contains("index 1 ") && err.contains("header checksum mismatch"), "{out}{err}");
}

/// A file of a saved tail has another name, begins in the middle of a history, and is a log by itself.
#[test]
fn a_saved_tail() {
    let dir = temp_dir();
    let start = Position { index: 150_000, term: 3, chain: 77, ..Position::START };
    let mut writer = Writer::create(dir.path(), start, u64::MAX).expect("a log");
    let mut draft = Draft::new(time(0));
    put_effect(draft.effects(), &[b"SET", b"mine", b"alone"]);
    writer.append([&draft].into_iter(), 3).expect("a record");
    let saved = dir.path().join("db0-3-after-150000-1769903999123.binlog");
    fs::rename(binlog::file_path(dir.path(), 0), &saved).expect("a rename");
    for path in [dir.path(), &saved] {
        let (code, out, err) = dump(path, &[]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(
            out.starts_with("# db0:3 ") && out.contains("term 3 index 150001 ") && out.contains("SET mine alone"),
            "{out}"
        );
    }
}

/// What a server writes at this moment: whole records, and not a word about the one under way.
#[test]
fn while_a_server_writes() {
    let node = NodeOptions::new().set("databases", 1).set("slot-num", 1).start();
    let mut conn = node.conn();
    conn.run("SET first v").expect_ok();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut conn = node.conn();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let many: Vec<_> =
                    (0..50).map(|n| vec!["SET".to_string(), format!("k{n}"), "v".repeat(5000)]).collect();
                conn.pipeline(&many);
            }
        });
        for _ in 0..5 {
            let shown = effects(&node.data_dir(), &["--key", "first"]);
            assert_eq!(shown, ["SET first v"]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // What is shown can be typed.
    conn.call(&[&b"SET"[..], b"a \xff\"'\\\n", b""]).expect_ok();
    let line = effects(&node.data_dir(), &["--key", "a*"]).remove(0);
    assert_eq!(split_line(&line), [&b"SET"[..], b"a \xff\"'\\\n", b""]);
    assert_eq!(redis_cli(node.port(), &["strlen", "first"]), "1");
}

#[test]
fn long_values_and_broken_pipes() {
    let dir = temp_dir();
    let mut writer = Writer::create(dir.path(), Position::START, u64::MAX).expect("a log");
    for n in 0..5000 {
        let mut draft = Draft::new(time(n));
        put_effect(draft.effects(), &[b"SET", b"k", &[b'x'; 1000]]);
        writer.append([&draft].into_iter(), 1).expect("a record");
    }
    let short = effects(dir.path(), &["--limit", "1"]);
    assert!(short[0].ends_with("x…(+800 bytes)"), "{short:?}");
    assert_eq!(effects(dir.path(), &["--limit", "1", "--full"]), [format!("SET k {}", "x".repeat(1000))]);

    let mut command = Command::new(HAYPILE);
    command.args(["binlog", "dump", "--full"]).arg(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the tool");
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    drop(out);
    let mut err = String::new();
    child.stderr.take().expect("its errors").read_to_string(&mut err).expect("a text");
    assert!(child.wait().expect("its end").success() && err.is_empty(), "{err}");
}

#[test]
fn numbers() {
    let data = killed();
    let log = log_dir(data.path(), 0, 0);
    let stat = |path: &Path| {
        let (code, out, err) = haypile(&["binlog".as_ref(), "stat".as_ref(), "--json".as_ref(), path.as_os_str()]);
        assert_eq!(err, "");
        (code, serde_json::from_str::<Value>(&out).expect("JSON"))
    };
    let (code, found) = stat(&log);
    let records = json(&log, &[]);
    let total = &found["total"];
    assert_eq!((code, &total["records"]), (0, &records.len().into()));
    let sum: u64 = records.iter().filter_map(|record| record["bytes"].as_u64()).sum();
    assert_eq!(total["bytes"], sum);
    let largest = records.iter().filter_map(|record| record["bytes"].as_u64()).max();
    assert_eq!(total["largest"]["bytes"].as_u64(), largest);
    assert_eq!(total["last"]["index"], records.last().expect("records")["index"]);
    assert_eq!(total["multi_slot_records"], 2, "{total}");
    let sets: u64 = records
        .iter()
        .flat_map(|record| record["effects"].as_array().expect("effects"))
        .filter(|effect| effect[0] == "SET")
        .count() as u64;
    assert_eq!(total["effects"]["SET"], sets);
    let mut keys: Vec<String> = records
        .iter()
        .flat_map(|record| record["effects"].as_array().expect("effects"))
        .filter(|effect| effect[0] != "FUNCTIONS")
        .map(|effect| effect[1].to_string())
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!((&total["keys"], &total["keys_exact"]), (&keys.len().into(), &true.into()));

    let (code, out, err) = haypile(&["binlog".as_ref(), "stat".as_ref(), data.path().join("binlog").as_os_str()]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.contains("db0:0  ") && out.contains("db1:") && out.contains(" logs, ") && out.contains("sound"),
        "{out}"
    );

    flip(&files(&log, "binlog.")[1], 110);
    let (code, found) = stat(&log);
    assert_eq!((code, found["total"]["damages"].as_array().map(Vec::len)), (2, Some(1)), "{found}");
    let (code, out, _) = haypile(&["binlog".as_ref(), "stat".as_ref(), log.as_os_str()]);
    assert!(code == 2 && out.contains("DAMAGED at offset"), "{out}");
}
