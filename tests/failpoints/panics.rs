//! A thread that panics in the middle of its work leaves nothing waiting for it.

use super::common::{DEADLINE, Node, wait_for, wait_synced};
use super::rig::options;

fn arm(node: &Node, point: &str) {
    node.run(&format!("DEBUG FAILPOINT {point} 1*panic")).expect_ok();
}

#[test]
fn a_snapshot_is_made_anew() {
    let (master, replica) = (options(2).start(), options(2).start());
    master.run("MSET a 1 b 2 c 3").expect_ok();
    arm(&master, "snapshot::create_dir::before");
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    assert!(master.output().contains("no snapshot: "), "the panic was not met");
}

#[test]
fn another_save_can_be_begun() {
    let node = options(2).start();
    node.run("MSET a 1 b 2 c 3").expect_ok();
    arm(&node, "bgsave::create_dir::before");
    for status in ["err", "ok"] {
        assert!(!node.run("BGSAVE").is_error());
        let mut info = node.info("persistence");
        wait_for("the save to end", DEADLINE, || {
            info = node.info("persistence");
            info["rdb_bgsave_in_progress"] == "0"
        });
        assert_eq!(info["rdb_last_bgsave_status"], status, "{info:?}");
    }
}
