//! Tests of loading, CONFIG and the shipped conf file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/haypile.conf");

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn conf(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hay.conf");
    fs::write(&path, text).unwrap();
    (dir, path)
}

/// What loading `text` complains about, after the file's name.
fn complaint(text: &str) -> String {
    let (_dir, path) = conf(text);
    let error = Config::load(Some(&path), &[]).err().unwrap().to_string();
    error.strip_prefix(&format!("{}:", path.display())).unwrap().trim_start().to_string()
}

fn complaint_of_flags(overrides: &[(&str, &str)]) -> String {
    Config::load(None, &pairs(overrides)).err().unwrap().to_string()
}

fn value(config: &Config, name: &str) -> String {
    config.get(|other| other == name).pop().unwrap().1
}

#[test]
fn the_shipped_file_holds_every_key_at_its_default() {
    let text = fs::read_to_string(SHIPPED).unwrap();
    let keys: Vec<&str> = text
        .lines()
        .filter_map(|line| match parse_line(line) {
            Line::Setting { key, .. } => Some(key),
            _ => None,
        })
        .collect();
    let names: Vec<&str> = SETTINGS.iter().filter(|setting| !setting.is_fact()).map(|setting| setting.name).collect();
    assert_eq!(keys, names);
    let shipped = Config::load(Some(Path::new(SHIPPED)), &[]).unwrap();
    let defaults = Config::load(None, &[]).unwrap();
    assert_eq!(shipped.get(|_| true), defaults.get(|_| true));
}

#[test]
fn the_shipped_file_states_default_and_range_of_each_key() {
    let text = fs::read_to_string(SHIPPED).unwrap();
    let mut previous = "";
    for line in text.lines() {
        if let Line::Setting { key, .. } = parse_line(line) {
            let setting = SETTINGS.iter().find(|setting| setting.is_named(key)).unwrap();
            assert_eq!(previous, format!("# {}", setting.facts()), "the comment over {key}");
        }
        previous = line;
    }
}

#[test]
fn reads_as_types() {
    let flags = pairs(&[
        ("dir", "/hay"),
        ("timeout", "90"),
        ("slaveof", "10.0.0.1:9221"),
        ("bind", "::1 *"),
        ("sync", "ALWAYS"),
    ]);
    let config = Config::load(None, &flags).unwrap();
    assert_eq!(config.port(), 9221);
    assert_eq!(config.timeout(), Duration::from_secs(90));
    assert_eq!(config.slaveof(), Some(("10.0.0.1".into(), 9221)));
    assert_eq!(config.bind().len(), 2);
    assert_eq!(config.sync(), SyncMode::Always);
    assert_eq!(config.compression(), Compression::Lz4);
    assert_eq!(config.loglevel(), LogLevel::Info);
    assert_eq!(config.binlog_file_size(), 100 << 20);
    assert_eq!(config.db_path(), Path::new("/hay/db"));
    assert_eq!(config.pidfile(), Some(PathBuf::from("/hay/haypile.pid")));
    assert_eq!(config.log_path(), None);
    assert_eq!(&*config.requirepass(), "");
    assert!(config.slave_read_only());
    assert!(config.file().is_none());
}

#[test]
fn the_data_folder_is_taken_from_the_current_one() {
    let config = Config::load(None, &pairs(&[("dir", "./b")])).unwrap();
    assert_eq!(config.dir(), std::env::current_dir().unwrap().join("b"));
    assert_eq!(config.dump_path(), config.dir().join("dump"));
}

#[test]
fn errors_say_file_and_line() {
    assert_eq!(complaint("port : 1\n\nprot : 2\n"), "3: unknown key 'prot'");
    assert_eq!(complaint("# x\nport 1\n"), "2: expected `key : value`");
    assert_eq!(complaint("port : x"), "1: port: 'x' is not a whole number");
    assert_eq!(complaint("port : 60000"), "1: port: '60000' is not between 1 and 55534");
    assert_eq!(complaint("binlog-file-size : 2G"), "1: binlog-file-size: '2G' is not between 1K and 1G");
    assert_eq!(complaint("daemonize : maybe"), "1: daemonize: 'maybe' is neither yes nor no");
    assert_eq!(complaint("sync : often"), "1: sync: 'often' is not one of no, everysec, always");
    assert_eq!(complaint("save :"), "1: save: cannot be set");
    let twice = complaint("replica-priority : 1\nslave-priority : 2\n");
    assert!(twice.starts_with("2: 'slave-priority' is already set at ") && twice.ends_with("hay.conf:1"), "{twice}");
}

#[test]
fn a_password_is_not_repeated_in_an_error() {
    assert!(!complaint("requirepass : a\u{1}secret").contains("secret"));
}

#[test]
fn errors_of_the_command_line_name_the_flag() {
    assert_eq!(complaint_of_flags(&[("port", "x")]), "--port: 'x' is not a whole number");
    assert_eq!(complaint_of_flags(&[("cash", "1M")]), "--set cash: unknown key 'cash'");
    assert_eq!(complaint_of_flags(&[("timeout", "-1")]), "--set timeout: '-1' is not between 0 and 2147483647");
    assert_eq!(complaint_of_flags(&[("port", "1"), ("port", "2")]), "--port: 'port' is already set at --port");
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("/no/such.conf")), &[]).err().unwrap().to_string();
    assert!(error.starts_with("/no/such.conf: No such file"), "{error}");
}

#[test]
fn the_command_line_overrides_the_file() {
    let (_dir, path) = conf("port : 1000\ntimeout : 7\n");
    let config = Config::load(Some(&path), &pairs(&[("port", "2000")])).unwrap();
    assert_eq!((config.port(), config.timeout().as_secs()), (2000, 7));
    assert_eq!(config.file(), Some(path.as_path()));
}

#[test]
fn folders_of_data_are_kept_apart() {
    let same = complaint_of_flags(&[("dir", "/hay"), ("dump-path", "./db")]);
    assert!(same.starts_with("--set dump-path: '/hay/db' is the folder of db-path"), "{same}");
    let inside = complaint("binlog-path : db/log");
    assert!(inside.starts_with("1: binlog-path: '"), "{inside}");
    assert!(Config::load(None, &pairs(&[("db-path", ".")])).is_err());
}

#[test]
fn get_answers_aliases_and_facts() {
    let config = Config::load(None, &[]).unwrap();
    let names: Vec<String> = config.get(|name| name.ends_with("read-only")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["slave-read-only", "replica-read-only"]);
    assert_eq!(value(&config, "save"), "");
    assert_eq!(value(&config, "appendonly"), "yes");
    assert_eq!(value(&config, "write-buffer-size"), "25165824");
    assert_eq!(value(&config, "slave-read-only"), "yes");
}

#[test]
fn set_changes_all_or_nothing() {
    let config = Config::load(None, &[]).unwrap();
    let mut changes = config.changes();
    config.set(&[("TIMEOUT", "5"), ("replica-read-only", "no"), ("requirepass", "hay")]).unwrap();
    assert_eq!((config.timeout().as_secs(), config.slave_read_only()), (5, false));
    assert_eq!(&*config.requirepass(), "hay");
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let refused = |pairs: &[(&str, &str)]| config.set(pairs).unwrap_err().to_string();
    assert_eq!(
        refused(&[("timeout", "9"), ("hay", "1")]),
        "ERR Unknown option or number of arguments for CONFIG SET - 'hay'"
    );
    let failed =
        |name: &str, why: &str| format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}");
    assert_eq!(refused(&[("timeout", "9"), ("port", "1")]), failed("port", "can't set immutable config"));
    assert_eq!(refused(&[("appendonly", "no")]), failed("appendonly", "can't set immutable config"));
    assert_eq!(refused(&[("timeout", "9"), ("timeout", "8")]), failed("timeout", "duplicate parameter"));
    assert_eq!(
        refused(&[("timeout", "9"), ("maxclients", "many")]),
        failed("maxclients", "argument couldn't be parsed into an integer")
    );
    assert_eq!(
        refused(&[("maxclients", "0")]),
        failed("maxclients", "argument must be between 1 and 1000000 inclusive")
    );
    assert_eq!(refused(&[("slave-read-only", "1")]), failed("slave-read-only", "argument must be 'yes' or 'no'"));
    assert_eq!(
        refused(&[("sync", "x")]),
        failed("sync", "argument(s) must be one of the following: no, everysec, always")
    );
    assert_eq!(refused(&[("binlog-file-size", "x")]), failed("binlog-file-size", "argument must be a memory value"));
    assert_eq!(config.timeout().as_secs(), 5);
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn set_takes_back_all_that_get_answers() {
    let config = Config::load(Some(Path::new(SHIPPED)), &[]).unwrap();
    let before = config.get(|_| true);
    for (name, value) in &before {
        config.set(&[(name, value)]).unwrap();
    }
    assert_eq!(config.get(|_| true), before);
}

#[test]
fn milliseconds_events_and_percentiles_read_as_types() {
    let config = Config::load(None, &pairs(&[("lua-time-limit", "10"), ("notify-keyspace-events", "KEx")])).unwrap();
    assert_eq!(config.busy_reply_threshold(), Duration::from_millis(10));
    assert!(config.notify_keyspace_events().publishes(EventClasses::EXPIRED));
    assert_eq!(config.latency_tracking_info_percentiles(), [50.0, 99.0, 99.9]);
    assert_eq!(value(&config, "busy-reply-threshold"), "10");
}

#[test]
fn rewrite_writes_what_was_set_and_nothing_else() {
    let (dir, path) = conf("# hay\nport : 1000\ntimeout : 7\nsync : no\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let config = Config::load(Some(&path), &pairs(&[("port", "2000"), ("maxclients", "9")])).unwrap();
    config.rewrite().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "# hay\nport : 1000\ntimeout : 7\nsync : no\n");
    config.set(&[("timeout", "60"), ("binlog-file-size", "2048")]).unwrap();
    config.rewrite().unwrap();
    let rewritten = fs::read_to_string(&path).unwrap();
    assert_eq!(
        rewritten,
        "# hay\nport : 1000\ntimeout : 60\nsync : no\n\n# Added by CONFIG REWRITE\nbinlog-file-size : 2K\n"
    );
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let again = Config::load(Some(&path), &[]).unwrap();
    assert_eq!((again.timeout().as_secs(), again.binlog_file_size()), (60, 2048));
}

#[test]
fn rewrite_needs_a_file() {
    let config = Config::load(None, &[]).unwrap();
    assert_eq!(config.rewrite().unwrap_err().to_string(), "ERR The server is running without a config file");
}
