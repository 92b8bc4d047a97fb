//! CONFIG REWRITE: new values into the conf file, every other byte of it kept.

use std::fs;
use std::io;
use std::path::Path;

use super::file::{Line, parse_line};
use super::table::Setting;
use crate::disk::{self, Point, Replace};

/// The line over settings that had none in the file.
const ADDED: &str = "# Added by CONFIG REWRITE";

/// `text` with each setting of `changes` at its new value: in its own line where it has one, else in a new line at
/// the end.
pub(super) fn rewrite_text(text: &str, changes: &[(&'static Setting, String)]) -> String {
    let mut missing: Vec<_> = changes.iter().collect();
    let mut out = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        let Line::Setting { key, .. } = parse_line(line) else {
            out.push_str(line);
            continue;
        };
        match missing.iter().position(|(setting, _)| setting.is_named(key)) {
            Some(at) => push_with_value(&mut out, line, &missing.remove(at).1),
            None => out.push_str(line),
        }
    }
    if missing.is_empty() {
        return out;
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    if !out.lines().any(|line| line == ADDED) {
        out.push_str(&format!("\n{ADDED}\n"));
    }
    for (setting, value) in missing {
        out.push_str(format!("{} : {value}", setting.name).trim_end());
        out.push('\n');
    }
    out
}

/// Appends `line`, a setting's, with `value` in place of its own: key, spacing and line ending stay.
fn push_with_value(out: &mut String, line: &str, value: &str) {
    let body = line.trim_end();
    let (key, old) = body.split_once(':').unwrap_or((body, ""));
    let space = match old.len() - old.trim_start().len() {
        0 if old.is_empty() => " ",
        spaces => old.get(..spaces).unwrap_or(" "),
    };
    out.push_str(format!("{key}:{space}{value}").trim_end());
    out.push_str(if line.ends_with("\r\n") {
        "\r\n"
    } else if line.ends_with('\n') {
        "\n"
    } else {
        ""
    });
}

/// Rewrites the conf file at `path` as [`rewrite_text`] says. Atomic and durable when it returns; the file keeps its
/// permissions, and a link to it stays a link.
pub(super) fn rewrite_file(path: &Path, changes: &[(&'static Setting, String)]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let text = fs::read_to_string(&path)?;
    let new = rewrite_text(&text, changes);
    if new == text {
        return Ok(());
    }
    let permissions = fs::metadata(&path)?.permissions();
    disk::replace_file(&Replace::CONF, &path, new.as_bytes())?;
    disk::set_permissions(Point::ConfPermissions, &path, permissions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    fn changes(pairs: &[(&str, &str)]) -> Vec<(&'static Setting, String)> {
        let find = |name: &str| *SETTINGS.iter().find(|setting| setting.is_named(name)).unwrap();
        pairs.iter().map(|&(name, value)| (find(name), value.to_string())).collect()
    }

    #[test]
    fn keeps_comments_order_and_spacing() {
        let text = "# hay\ntimeout : 0\r\n\n  sync:always\nreplica-priority   :   1\nrequirepass :\n# end";
        let new = rewrite_text(
            text,
            &changes(&[("slave-priority", "7"), ("timeout", "60"), ("requirepass", "x"), ("sync", "no")]),
        );
        assert_eq!(new, "# hay\ntimeout : 60\r\n\n  sync:no\nreplica-priority   :   7\nrequirepass : x\n# end");
    }

    #[test]
    fn adds_what_has_no_line_once() {
        let first = rewrite_text("# timeout : 5", &changes(&[("timeout", "9")]));
        assert_eq!(first, "# timeout : 5\n\n# Added by CONFIG REWRITE\ntimeout : 9\n");
        let second = rewrite_text(&first, &changes(&[("maxclients", "5"), ("timeout", "8")]));
        assert_eq!(second, "# timeout : 5\n\n# Added by CONFIG REWRITE\ntimeout : 8\nmaxclients : 5\n");
    }

    #[test]
    fn a_value_can_become_empty() {
        assert_eq!(rewrite_text("requirepass : x\n", &changes(&[("requirepass", "")])), "requirepass :\n");
    }

    #[test]
    fn no_change_leaves_the_text() {
        assert_eq!(rewrite_text("port : 1", &[]), "port : 1");
    }
}
