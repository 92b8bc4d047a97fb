//! The conf file: lines of `key : value`, comments from `#` at the start of a line.

/// What a line of the conf file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Nothing, or a comment.
    Blank,
    Setting {
        key: &'a str,
        value: &'a str,
    },
    /// Neither of these.
    Malformed,
}

/// Reads one line. The first colon ends the key; the rest, without outer spaces, is the value, so that a value may
/// hold colons and `#`.
pub(super) fn parse_line(line: &str) -> Line<'_> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Line::Blank;
    }
    match line.split_once(':') {
        Some((key, value)) if is_key(key.trim_end()) => Line::Setting { key: key.trim_end(), value: value.trim() },
        _ => Line::Malformed,
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(parse_line("port : 9221"), Line::Setting { key: "port", value: "9221" });
        assert_eq!(parse_line("\tport:9221\r"), Line::Setting { key: "port", value: "9221" });
        assert_eq!(parse_line("requirepass : a:b #c"), Line::Setting { key: "requirepass", value: "a:b #c" });
        assert_eq!(parse_line("slaveof :"), Line::Setting { key: "slaveof", value: "" });
        assert_eq!(parse_line("  # port : 1"), Line::Blank);
        assert_eq!(parse_line(" "), Line::Blank);
        assert_eq!(parse_line("port 9221"), Line::Malformed);
        assert_eq!(parse_line(": 9221"), Line::Malformed);
        assert_eq!(parse_line("slaveof 127.0.0.1:9221"), Line::Malformed);
    }
}
