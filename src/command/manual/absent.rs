//! Commands of Redis that are not supported, and why.

type Reasons = &'static [(&'static [&'static str], &'static str)];

/// Commands that there are not: they answer `unknown command`.
pub const ABSENT: Reasons = &[
    (&["acl|dryrun", "acl|log"], "There is one user, `default`, who may do everything."),
    (&["acl|load", "acl|save"], "There is no file of users: there is one user, whose password is `requirepass`."),
    (
        &[
            "cluster|addslots",
            "cluster|addslotsrange",
            "cluster|bumpepoch",
            "cluster|count-failure-reports",
            "cluster|countkeysinslot",
            "cluster|delslots",
            "cluster|delslotsrange",
            "cluster|failover",
            "cluster|flushslots",
            "cluster|forget",
            "cluster|getkeysinslot",
            "cluster|links",
            "cluster|meet",
            "cluster|myshardid",
            "cluster|replicas",
            "cluster|replicate",
            "cluster|saveconfig",
            "cluster|set-config-epoch",
            "cluster|setslot",
            "cluster|slaves",
        ],
        "A server is no node of a Redis Cluster: it has no cluster bus.",
    ),
    (&["failover"], "A master is changed by hand: see replication.md."),
    (&["lolwut"], "Draws nothing."),
    (&["memory|malloc-stats"], "`MEMORY STATS` has the totals of the allocator."),
    (&["memory|purge"], "The allocator gives memory back by itself."),
    (
        &["module", "module|help", "module|list", "module|load", "module|loadex", "module|unload"],
        "There are no modules.",
    ),
    (
        &["psync", "replconf", "sync"],
        "Replicas follow by a protocol of their own, on a port of its own: see replication.md.",
    ),
];

/// Commands that are in the table for the sake of client libraries and answer an error that says why.
pub const REFUSED: Reasons = &[
    (&["acl|setuser"], "There is one user, `default`; `CONFIG SET requirepass` changes its password."),
    (
        &[
            "asking",
            "cluster|info",
            "cluster|myid",
            "cluster|nodes",
            "cluster|reset",
            "cluster|shards",
            "cluster|slots",
            "readonly",
            "readwrite",
        ],
        "Answers that cluster support is disabled, by which client libraries know.",
    ),
    (&["object|freq"], "How often a key is used is not counted."),
    (&["object|idletime"], "When a key was last used is not recorded."),
];
