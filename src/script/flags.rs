//! What a script declares of itself, and the first line in which it does.

use crate::net::resp::split_line;

/// A set of script flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScriptFlags(u8);

impl ScriptFlags {
    /// No flag: a script that may write.
    pub const NONE: ScriptFlags = ScriptFlags(0);
    /// Never writes.
    pub const NO_WRITES: ScriptFlags = ScriptFlags(1);
    /// May run when memory is short.
    pub const ALLOW_OOM: ScriptFlags = ScriptFlags(1 << 1);
    /// May run on a replica that has lost its master.
    pub const ALLOW_STALE: ScriptFlags = ScriptFlags(1 << 2);
    /// Never runs in a cluster.
    pub const NO_CLUSTER: ScriptFlags = ScriptFlags(1 << 3);
    /// May touch keys of several cluster slots.
    pub const ALLOW_CROSS_SLOT: ScriptFlags = ScriptFlags(1 << 4);
    /// A script without a first line that declares anything: each of its commands is judged on its own.
    pub const UNDECLARED: ScriptFlags = ScriptFlags(1 << 5);

    const NAMES: [(ScriptFlags, &'static str); 5] = [
        (Self::NO_WRITES, "no-writes"),
        (Self::ALLOW_OOM, "allow-oom"),
        (Self::ALLOW_STALE, "allow-stale"),
        (Self::NO_CLUSTER, "no-cluster"),
        (Self::ALLOW_CROSS_SLOT, "allow-cross-slot-keys"),
    ];

    /// Whether every flag of `other` is set.
    pub const fn has(self, other: ScriptFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    pub const fn and(self, other: ScriptFlags) -> ScriptFlags {
        ScriptFlags(self.0 | other.0)
    }

    /// The names of the flags, as scripts write them.
    pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        Self::NAMES.into_iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }

    /// The flag of this exact name.
    pub fn by_name(name: &[u8]) -> Option<ScriptFlags> {
        Self::NAMES.into_iter().find(|(_, known)| known.as_bytes() == name).map(|(flag, _)| flag)
    }
}

/// The flags of an EVAL script and where its code begins: behind a first line `#!lua flags=…`, but with the line's end,
/// so that line numbers stay.
///
/// # Errors
/// The error line to reply with.
pub fn shebang(body: &[u8]) -> Result<(ScriptFlags, usize), String> {
    if !body.starts_with(b"#!") {
        return Ok((ScriptFlags::UNDECLARED, 0));
    }
    let end = line_end(body).ok_or("ERR Invalid script shebang")?;
    let parts = split_line(body.get(..end).unwrap_or_default()).unwrap_or_default();
    let Some((engine, options)) = parts.split_first() else {
        return Err("ERR Invalid engine in script shebang".into());
    };
    if engine.as_ref() != b"#!lua" {
        return Err(format!("ERR Unexpected engine in script shebang: {}", String::from_utf8_lossy(engine)));
    }
    let mut flags = ScriptFlags::NONE;
    for option in options {
        let Some(list) = option.strip_prefix(b"flags=") else {
            return Err(format!("ERR Unknown lua shebang option: {}", String::from_utf8_lossy(option)));
        };
        for name in list.split(|b| *b == b',').filter(|_| !list.is_empty()) {
            let flag = ScriptFlags::by_name(name)
                .ok_or_else(|| format!("ERR Unexpected flag in script shebang: {}", String::from_utf8_lossy(name)))?;
            flags = flags.and(flag);
        }
    }
    Ok((flags, end))
}

/// Where the first line ends. Like C, sees nothing behind a zero byte.
pub(super) fn line_end(text: &[u8]) -> Option<usize> {
    memchr::memchr2(b'\n', 0, text).filter(|at| text.get(*at) == Some(&b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        assert_eq!(shebang(b"return 1"), Ok((ScriptFlags::UNDECLARED, 0)));
        assert_eq!(shebang(b"#!lua\nreturn 1"), Ok((ScriptFlags::NONE, 5)));
        assert_eq!(shebang(b"#!lua flags=\nreturn 1"), Ok((ScriptFlags::NONE, 12)));
        let both = ScriptFlags::NO_WRITES.and(ScriptFlags::ALLOW_STALE);
        assert_eq!(shebang(b"#!lua flags=allow-stale,no-writes\n"), Ok((both, 33)));
        assert_eq!(both.names().collect::<Vec<_>>(), ["no-writes", "allow-stale"]);
        for (body, error) in [
            ("#!lua", "ERR Invalid script shebang"),
            ("#!lua '\n", "ERR Invalid engine in script shebang"),
            ("#!not-lua\n", "ERR Unexpected engine in script shebang: #!not-lua"),
            ("#!lua badger=data\n", "ERR Unknown lua shebang option: badger=data"),
            ("#!lua flags=allow-oom,what?\n", "ERR Unexpected flag in script shebang: what?"),
        ] {
            assert_eq!(shebang(body.as_bytes()), Err(error.into()), "{body}");
        }
    }
}
