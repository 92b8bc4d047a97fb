//! Commands about the server itself, where Redis's replies do not depend on its inside.

use crate::duel::Duel;

#[test]
fn settings() {
    Duel::start().script(
        r#"
        CONFIG GET hash-max-listpack-entries
        CONFIG SET hash-max-ziplist-entries 10 zset-max-listpack-value 7
        CONFIG GET hash-max-listpack-entries
        CONFIG GET hash-max-ziplist-entries
        CONFIG GET zset-max-ziplist-value
        CONFIG SET hash-max-listpack-entries 512 zset-max-listpack-value 64
        CONFIG SET maxmemory 1 maxmemory 2
        CONFIG SET maxmemory 1 hash-max-listpack-entries x
        CONFIG SET daemonize yes
        CONFIG SET no-such-setting 1
        CONFIG SET maxmemory 100mb
        CONFIG GET maxmemory
        CONFIG SET maxmemory 0
        CONFIG GET maxmemory-policy
        CONFIG SET maxmemory-policy noeviction
        CONFIG GET save
        CONFIG SET save ""
        CONFIG SET lua-time-limit 10
        CONFIG GET busy-reply-threshold
        CONFIG SET busy-reply-threshold 5000
        CONFIG GET lua-time-limit
        CONFIG GET latency-tracking-info-percentiles
        CONFIG SET latency-tracking-info-percentiles "0.0 50.0 100.0"
        CONFIG GET latency-tracking-info-percentiles
        CONFIG SET latency-tracking-info-percentiles "50 99 99.9"
        CONFIG SET notify-keyspace-events gKE
        CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events $lshzxeKE
        CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events KA
        CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events Em
        CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events ""
        CONFIG GET notify-keyspace-events
        CONFIG SET appendfsync always
        CONFIG GET appendfsync
        CONFIG SET appendfsync everysec
        CONFIG GET
        CONFIG RESETSTAT x
        "#,
    );
}

#[test]
fn refusals_by_the_state_of_the_server() {
    Duel::start().script(
        r#"
        SET x 1
        CONFIG SET maxmemory 1
        SET x 2
        APPEND x 2
        INCR x
        MSET a 1 b 2
        GET x
        EXPIRE x 100
        DEL x
        PING
        CONFIG SET maxmemory 0
        SET x 2
        CONFIG SET min-replicas-to-write 1
        SET x 3
        DEL x
        GET x
        CONFIG SET min-slaves-max-lag 0
        SET x 4
        CONFIG SET min-replicas-max-lag 10
        CONFIG SET min-slaves-to-write 0
        SET x 5
        "#,
    );
}

#[test]
fn debug() {
    Duel::start().script(
        r#"
        DEBUG PROTOCOL string
        DEBUG PROTOCOL integer
        DEBUG PROTOCOL double
        DEBUG PROTOCOL null
        DEBUG PROTOCOL array
        DEBUG PROTOCOL set
        DEBUG PROTOCOL map
        DEBUG PROTOCOL verbatim
        DEBUG PROTOCOL true
        DEBUG PROTOCOL FALSE
        DEBUG PROTOCOL bignum
        DEBUG PROTOCOL nonsense
        DEBUG PROTOCOL
        DEBUG SET-ACTIVE-EXPIRE 0
        DEBUG SET-ACTIVE-EXPIRE 1
        DEBUG PAUSE-CRON 0
        DEBUG QUICKLIST-PACKED-THRESHOLD 1b
        DEBUG QUICKLIST-PACKED-THRESHOLD 0
        DEBUG LOG message
        DEBUG OBJECT nothing
        DEBUG DIGEST-VALUE nothing nobody
        DEBUG RELOAD
        DEBUG RELOAD wrong
        DEBUG SLEEP 0
        DEBUG
        "#,
    );
}

#[test]
fn events_and_histograms_of_latency() {
    Duel::start().script(
        r#"
        LATENCY LATEST
        LATENCY HISTORY command
        LATENCY RESET
        LATENCY RESET nothing
        LATENCY HISTORY nothing
        LATENCY GRAPH nothing
        LATENCY HISTOGRAM nonsense
        LATENCY HISTOGRAM nonsense|nonsense
        LATENCY HELP extra
        LATENCY HISTORY
        LATENCY NONSENSE
        "#,
    );
}

#[test]
fn what_is_not_here() {
    Duel::start().script(
        r#"
        CLUSTER INFO
        CLUSTER SLOTS
        CLUSTER NODES
        CLUSTER MYID
        CLUSTER RESET HARD
        READONLY
        READWRITE
        ASKING
        ACL WHOAMI
        ACL USERS
        ACL GETUSER nobody
        ACL DELUSER default
        ACL DELUSER nobody
        ACL GENPASS 0
        ACL GENPASS x
        ACL CAT nonsense
        "#,
    );
}

#[test]
fn commands_describe_themselves() {
    Duel::start().script(
        r#"
        COMMAND GETKEYS GET key
        COMMAND GETKEYS MSET a 1 b 2
        COMMAND GETKEYS PING
        COMMAND GETKEYS GET
        COMMAND GETKEYS NONSENSE x
        COMMAND GETKEYSANDFLAGS SET k v
        COMMAND GETKEYSANDFLAGS MSET k1 v1 k2 v2
        COMMAND GETKEYSANDFLAGS GET k
        COMMAND GETKEYSANDFLAGS DEL a b
        COMMAND GETKEYSANDFLAGS RENAME a b
        COMMAND GETKEYSANDFLAGS INCR a
        COMMAND GETKEYSANDFLAGS EXPIRE a 1
        COMMAND GETKEYSANDFLAGS GETDEL a
        COMMAND GETKEYSANDFLAGS APPEND a b
        COMMAND GETKEYSANDFLAGS COPY a b
        COMMAND GETKEYSANDFLAGS EXISTS a b
        COMMAND GETKEYSANDFLAGS TYPE a
        COMMAND GETKEYSANDFLAGS SETNX a b
        COMMAND GETKEYSANDFLAGS PERSIST a
        COMMAND GETKEYSANDFLAGS STRLEN a
        COMMAND LIST FILTERBY PATTERN xyz*
        COMMAND LIST FILTERBY ACLCAT nonsense
        COMMAND LIST FILTERBY MODULE nonsense
        COMMAND LIST wrong
        COMMAND LIST FILTERBY wrong
        COMMAND INFO nonsense get|key
        "#,
    );
}
