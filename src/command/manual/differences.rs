//! Where commands that are supported differ from Redis.

/// What concerns more than single commands.
pub const EVERYWHERE: &[&str] = &[
    "Data is on disk; `maxmemory` refuses what Redis would refuse with the policy `noeviction`, and no key is ever evicted.",
    "Commands on different keys run at the same time. Each is atomic with all it does, and a client's commands run in the order it sent \
     them; but a script, an `EXEC` or a long command holds up only those that need its keys.",
    "There is one user, `default`, whose password is the setting `requirepass`.",
    "A write waits for the binlog as the setting `sync` says: see operations.md.",
];

/// What differs, by command.
pub const DIFFERENCES: &[(&[&str], &str)] = &[
    (&["acl|deluser"], "The user `default` cannot be removed, and there is no other."),
    (&["acl|getuser", "acl|list"], "The password is not shown in any form."),
    (
        &["bgrewriteaof"],
        "Writes all data to the engines' files, so that a start has no log to replay: what the command is for in Redis.",
    ),
    (
        &["bgsave", "save"],
        "Makes a folder that holds a copy of all data by hard links, instead of an RDB file: see snapshots.md.",
    ),
    (&["bitcount"], "As in Redis 7.0, the arguments for a missing key are not looked at."),
    (&["client|no-touch", "touch"], "When a key was last used is not recorded."),
    (&["cluster|keyslot"], "Keys lie in the slots of a Redis Cluster here too, without a cluster."),
    (&["dbsize"], "Counts exactly, which goes through the keys when something was written since the last count."),
    (
        &["debug"],
        "Has what Redis's test suite needs and means something here: `DEBUG HELP` lists it. `RELOAD` and `LOADAOF` write all data to disk \
         and forget what is cached of it.",
    ),
    (
        &["dump"],
        "Answers RDB 10, as Redis 7.0, unless fields of a hash have expiries: these need the version of Redis 7.4.",
    ),
    (
        &["eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"],
        "Other clients go on meanwhile, unless they need its keys. A script that touches keys it does not declare may be run anew, with \
         nothing of its first run left but what it logged.",
    ),
    (
        &["exec"],
        "A command over whole databases in the queue, as `FLUSHALL` or `DBSIZE`, makes what stands before it durable on its own.",
    ),
    (
        &["flushall", "flushdb", "unlink"],
        "`ASYNC` or not, `DEL` or `UNLINK`: the keys are gone at once, whatever their size, and their space is reclaimed later.",
    ),
    (
        &["geosearchstore", "georadius", "georadiusbymember"],
        "Where Redis finds a member twice, around the earth, it is stored once.",
    ),
    (&["info"], "Has the fields of Redis that mean something here, and those of Pika about slots and replication."),
    (&["keys"], "Keys come slot by slot, within a slot in byte order."),
    (&["lastsave"], "The time of the last `BGSAVE`, or of the start; what is written is durable without."),
    (&["memory|doctor", "memory|stats"], "Speaks of this server's caches and engines."),
    (
        &["memory|usage"],
        "Bytes on disk before compression; of a collection, estimated from the first `SAMPLES` elements on disk.",
    ),
    (&["object|encoding"], "The encoding that Redis 7.0 would choose; nothing is stored that way here."),
    (&["object|refcount"], "Always 1: integers are not shared."),
    (
        &["pfcount"],
        "Only reads: a count is stored with a value when `PFADD` makes it, not when it is counted. Runs on read-only replicas.",
    ),
    (&["randomkey"], "Keys are not equally likely: chosen is the one next to a random place in the order of keys."),
    (
        &["replicaof", "slaveof"],
        "Follows another Haypile, not a Redis. With `FORCE` this server's own data and history are given up for the master's.",
    ),
    (&["restore", "restore-asking"], "`IDLETIME` and `FREQ` are checked and forgotten: neither is recorded."),
    (&["role"], "Offsets count records of the binlog, not bytes."),
    (
        &["scan"],
        "A cursor stands for a key that the server remembers, and a key that is there all the time comes exactly once. Forgotten are \
         cursors after 65,536 newer ones, and all of them when the server stops.",
    ),
    (&["script|debug"], "There is no debugger: `YES` and `SYNC` are refused."),
    (
        &["shutdown"],
        "All options are the same: what was written is in the binlog. Replicas that lag are not waited for, so there is nothing to `ABORT`.",
    ),
    (&["wait"], "A replica acknowledges what is in its own binlog, handed to its operating system."),
    (
        &["waitaof"],
        "The first number is this server's own disk: what the connection wrote is made durable there and then, whatever `sync` says. \
         Replicas count as for `WAIT`.",
    ),
    (
        &["zrank", "zrevrank", "zcount", "zlexcount", "zremrangebyrank"],
        "Members between the rank or range and the nearer end are gone through, one by one.",
    ),
];
