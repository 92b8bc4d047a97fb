//! Pika's commands.

use std::time::Duration;

use crate::common::{Node, Reply, wait_for};

fn answer(next: &str, found: &[&str]) -> Reply {
    Reply::Array(vec![Reply::bulk(next), Reply::bulks(found)])
}

#[test]
fn ranges_of_keys() {
    let node = Node::with(&[("slot-num", "4")]);
    for n in 0..30 {
        node.run(&format!("SET k{n:02} v{n}"));
    }
    for (line, expected) in [
        ("PKSCANRANGE string k05 k08", answer("", &["k05", "k06", "k07", "k08"])),
        ("PKSCANRANGE string k05 k08 LIMIT 2", answer("k07", &["k05", "k06"])),
        ("PKSCANRANGE string \"\" k02", answer("", &["k00", "k01", "k02"])),
        ("PKSCANRANGE string k27 \"\"", answer("", &["k27", "k28", "k29"])),
        ("PKSCANRANGE string_with_value k27 \"\" LIMIT 1", answer("k28", &["k27", "v27"])),
        ("PKSCANRANGE string k00 \"\" MATCH k*5 LIMIT 20", answer("k20", &["k05", "k15"])),
        ("PKSCANRANGE hash \"\" \"\"", answer("", &[])),
        ("PKRSCANRANGE string k08 k05 LIMIT 2", answer("k06", &["k08", "k07"])),
        ("PKRSCANRANGE string \"\" k28", answer("", &["k29", "k28"])),
        ("PKRSCANRANGE string k01 \"\"", answer("", &["k01", "k00"])),
        ("PKSCANRANGE nothing a b", Reply::Error("ERR invalid db type".into())),
        ("PKSCANRANGE string a b LIMIT 0", Reply::Error("ERR value is not an integer or out of range".into())),
        ("PKSCANRANGE string a b LIMIT", Reply::Error("ERR syntax error".into())),
        ("PKHSCANRANGE none a b", answer("", &[])),
        (
            "PKHSCANRANGE k00 a b",
            Reply::Error("WRONGTYPE Operation against a key holding the wrong kind of value".into()),
        ),
        ("PKPATTERNMATCHDEL k1* 3", Reply::Int(3)),
        ("PKPATTERNMATCHDEL k1*", Reply::Int(7)),
        ("PKPATTERNMATCHDEL k1*", Reply::Int(0)),
        ("PKPATTERNMATCHDEL k* 101", Reply::Error("ERR value is not an integer or out of range".into())),
        ("DBSIZE", Reply::Int(20)),
        ("PKSETEXAT e 33177117420 v", Reply::ok()),
        ("EXPIRETIME e", Reply::Int(33177117420)),
        ("PKSETEXAT e 1 v", Reply::ok()),
        ("EXISTS e", Reply::Int(0)),
        ("PURGELOGSTO write2file0", Reply::ok()),
        ("PURGELOGSTO write2file9 db1", Reply::ok()),
        ("PURGELOGSTO file9", Reply::Error("ERR Invalid Argument".into())),
        ("COMPACT db99", Reply::Error("ERR invalid DB for 'db99'".into())),
        ("COMPACTRANGE db0 a z", Reply::ok()),
    ] {
        assert_eq!(node.run(line), expected, "{line}");
    }
    let finished = || {
        wait_for(
            "the compaction",
            Duration::from_secs(60),
            || matches!(node.run("INFO data"), Reply::Bulk(text) if String::from_utf8_lossy(&text).contains("is_compact:No")),
        )
    };
    finished();
    assert_eq!(node.run("COMPACT db0,db1"), Reply::ok());
    finished();
    assert_eq!(node.run("DBSIZE"), Reply::Int(20));
}
