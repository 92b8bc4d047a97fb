//! SWAPDB on a master and its replica, and WAIT for it.

use crate::common::sync::{wait_connected, wait_synced};
use crate::common::{Node, Reply};

fn sizes(node: &Node) -> [Reply; 3] {
    [0, 1, 2].map(|db| {
        let mut conn = node.conn();
        conn.call(&["SELECT", &db.to_string()]);
        conn.call(&["DBSIZE"])
    })
}

#[test]
fn swapped_databases_are_swapped_on_a_replica() {
    let (master, mut replica) = (Node::with(&[("slot-num", "4")]), Node::with(&[("slot-num", "4")]));
    (0..50).for_each(|n| drop(master.run(&format!("SET key:{n} v"))));
    assert_eq!(master.run("SWAPDB 0 2"), Reply::ok());
    // By a full sync, then by records, then from the replica's own disk.
    replica.run(&format!("SLAVEOF 127.0.0.1 {}", master.port()));
    wait_connected(&replica);
    wait_synced(&master, &replica);
    assert_eq!(sizes(&replica), [0, 0, 50].map(Reply::Int));
    let mut conn = master.conn();
    conn.call(&["SET", "k", "v"]);
    assert_eq!(conn.call(&["SWAPDB", "2", "1"]), Reply::ok());
    conn.call(&["SELECT", "1"]);
    conn.call(&["SET", "key:0", "new"]);
    assert_eq!(conn.call(&["WAIT", "1", "10000"]), Reply::Int(1));
    assert_eq!(conn.call(&["WAIT", "2", "50"]), Reply::Int(1));
    assert_eq!(conn.call(&["WAITAOF", "1", "1", "10000"]), Reply::Array(vec![Reply::Int(1), Reply::Int(1)]));
    wait_synced(&master, &replica);
    assert_eq!(sizes(&replica), [1, 50, 0].map(Reply::Int));
    assert!(matches!(replica.run("WAIT 0 0"), Reply::Error(e) if e.starts_with("ERR WAIT cannot be used")));
    replica.crash();
    assert_eq!(sizes(&replica), [1, 50, 0].map(Reply::Int));
    wait_connected(&replica);
    assert_eq!(master.run("FLUSHALL"), Reply::ok());
    conn.call(&["SET", "again", "v"]);
    wait_synced(&master, &replica);
    assert_eq!(sizes(&replica), [0, 1, 0].map(Reply::Int));
    assert_eq!(sizes(&master), [0, 1, 0].map(Reply::Int));
}
