//! A write over two slots whose second log refuses it has not happened: not in the first one either, and what follows it is kept.

use super::common::{Node, Reply};
use super::rig::{BOTH_SLOTS, options};

/// Faults of the second append.
const FAULTS: [(&str, &str); 4] = [
    ("binlog::append::before", "1*off->1*enospc"),
    ("binlog::append::before", "1*off->1*short"),
    ("binlog::append::after", "1*off->1*eio"),
    ("binlog::header::after", "1*off->1*eio"),
];

fn arm(node: &Node, point: &str, action: &str) {
    node.conn().call(&["DEBUG", "FAILPOINT", point, action]).expect_ok();
}

/// Sets the keys in both slots to `value`, in one command.
fn mset(node: &Node, value: &str) -> Reply {
    let pairs = BOTH_SLOTS.iter().flat_map(|key| [*key, value]);
    node.conn().call(&["MSET"].into_iter().chain(pairs).collect::<Vec<_>>())
}

#[track_caller]
fn assert_all(node: &Node, value: &str) {
    let held = node.conn().call(&["MGET"].into_iter().chain(BOTH_SLOTS).collect::<Vec<_>>());
    assert!(held.items().iter().all(|item| *item == Reply::bulk(value)), "not all are {value:.10}: {held:?}");
}

fn small_write(node: &Node, prefix: &str) {
    BOTH_SLOTS.iter().for_each(|key| node.conn().call(&["SET", &format!("{prefix}{key}"), "v"]).expect_ok());
}

#[test]
fn a_refused_write_is_in_neither() {
    for (point, action) in FAULTS {
        let mut node = options(2).start();
        // Records of this size begin a file each.
        let [old, new, newest] = ["x", "y", "z"].map(|byte| byte.repeat(20_000));
        mset(&node, &old).expect_ok();
        arm(&node, point, action);
        let refused = mset(&node, &new);
        assert!(refused.is_error(), "{point}={action}: {refused:?}");
        assert_all(&node, &old);
        small_write(&node, "after:");
        let digest = node.digest();
        node.crash();
        assert_eq!(node.digest(), digest, "{point}={action}");
        assert_all(&node, &old);
        mset(&node, &newest).expect_ok();
        node.crash();
        assert_all(&node, &newest);
    }
}

#[test]
fn a_refused_flush_is_in_neither() {
    for (point, action) in &FAULTS[..3] {
        let mut node = options(2).start();
        mset(&node, "1").expect_ok();
        arm(&node, point, action);
        assert!(node.run("FLUSHDB").is_error(), "{point}={action}");
        assert_all(&node, "1");
        small_write(&node, "after:");
        let digest = node.digest();
        node.crash();
        assert_eq!(node.digest(), digest, "{point}={action}");
        assert_all(&node, "1");
    }
}

/// The first log cannot be cut back: its slot takes nothing more until the next start, which takes the write back.
#[test]
fn a_log_that_cannot_be_cut_back_is_cut_at_the_start() {
    let mut node = options(2).start();
    mset(&node, "1").expect_ok();
    arm(&node, "binlog::undo::before", "eio");
    arm(&node, "binlog::append::before", "1*off->1*enospc");
    assert!(mset(&node, "2").is_error());
    assert_all(&node, "1");
    let refused: Vec<_> = BOTH_SLOTS.iter().map(|key| node.conn().call(&["SET", key, "3"])).collect();
    assert!(refused.iter().all(Reply::is_error), "{refused:?}");
    assert!(refused[0].error_text().contains("is read-only: "), "{refused:?}");
    node.crash();
    assert_all(&node, "1");
    mset(&node, "4").expect_ok();
    node.crash();
    assert_all(&node, "4");
}
