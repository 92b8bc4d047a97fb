//! Functions and what scripts write, on replicas.

use crate::common::{Node, Reply, wait_synced};
use crate::small;

fn load(node: &Node, name: &str, body: &str) {
    let code = format!("#!lua name={name}\nredis.register_function{{function_name='{name}', callback={body}}}");
    assert_eq!(node.conn().call(&["FUNCTION", "LOAD", "REPLACE", &code]), Reply::bulk(name));
}

#[test]
fn a_replica_has_its_masters_functions() {
    let master = small().start();
    let mut replica = small().start();
    load(&replica, "own", "function() return 'own' end");
    load(&master, "first", "function() return 1 end");
    master.run("SET a 1").expect_ok();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    // With the full sync: all of them, and none of its own.
    assert_eq!(replica.run("FCALL_RO own 0"), Reply::error("ERR Function not found"));
    let read_only = "READONLY You can't write against a read only replica.";
    assert_eq!(replica.run("FCALL first 0"), Reply::error(read_only));
    assert_eq!(replica.run("FUNCTION FLUSH"), Reply::error(read_only));
    assert_eq!(replica.run("FUNCTION DUMP"), master.run("FUNCTION DUMP"));
    // With the log.
    let writes = "function(keys) return redis.call('set', keys[1], 'by a function') end";
    load(&master, "second", writes);
    master.run("FCALL second 1 b").expect_ok();
    master.conn().call(&["EVAL", "redis.call('mset', 'c', 1, 'd', 2) return redis.call('incr', 'd')", "0"]);
    wait_synced(&master, &replica);
    assert_eq!(replica.run("FUNCTION DUMP"), master.run("FUNCTION DUMP"));
    assert_eq!(replica.run("MGET b c d"), Reply::bulks(&["by a function", "1", "3"]));
    // What reads may run; what writes is refused.
    let get = ["EVAL", "return redis.call('get', 'b')", "0"];
    assert_eq!(replica.conn().call(&get), Reply::bulk("by a function"));
    let set = ["EVAL", "return redis.call('set', 'b', 1)", "0"];
    assert!(replica.conn().call(&set).error_text().starts_with(read_only));
    master.run("FLUSHALL").expect_ok();
    wait_synced(&master, &replica);
    replica.crash();
    wait_synced(&master, &replica);
    assert_eq!(replica.run("FUNCTION DUMP"), master.run("FUNCTION DUMP"));
    master.run("FUNCTION DELETE first").expect_ok();
    wait_synced(&master, &replica);
    replica.slaveof_no_one();
    replica.run("FCALL second 1 b").expect_ok();
    assert_eq!(replica.run("FCALL first 0"), Reply::error("ERR Function not found"));
}
