//! Starts that must be refused: exit code 1, one line that names the place in the conf file,
//! nothing touched.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use crate::common::node::{HAYPILE, files_under, temp_dir};
use crate::common::ports::{OFFSETS, PortBlock};
use crate::common::{Node, Reply, run_program};

/// A folder with a conf file that no server has started on yet.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// `text` with `{data}` standing for the data folder.
    fn with(text: &str) -> Place {
        let place = Place { dir: temp_dir() };
        let text = text.replace("{data}", &place.data().display().to_string());
        std::fs::write(place.conf(), text).expect("a conf file");
        std::fs::create_dir(place.data()).expect("a data folder");
        place
    }

    fn conf(&self) -> PathBuf {
        self.dir.path().join("haypile.conf")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts the server, which must refuse; the one line it says.
    #[track_caller]
    fn refused(&self, args: &[&str]) -> String {
        let conf = std::fs::read(self.conf()).expect("the conf file");
        let before = files_under(&self.data());
        let output = run_program(Command::new(HAYPILE).arg(self.conf()).args(args));
        let said = String::from_utf8_lossy(&output.stderr).trim_end().to_string();
        assert_eq!(output.status.code(), Some(1), "exit code; it said:\n{said}");
        assert_eq!(said.lines().count(), 1, "one line was expected:\n{said}");
        assert!(output.stdout.is_empty(), "stdout: {:?}", output.stdout.escape_ascii().to_string());
        assert_eq!(files_under(&self.data()), before, "the data folder was touched");
        assert_eq!(std::fs::read(self.conf()).expect("the conf file"), conf, "the conf was touched");
        said
    }

    /// As [`Place::refused`], and the line must name this line of the conf file.
    #[track_caller]
    fn refused_at(&self, line: usize) -> String {
        let said = self.refused(&[]);
        let place = format!("haypile.conf:{line}");
        assert!(said.contains(&place), "{place} is not named in: {said}");
        said
    }
}

#[test]
fn an_unknown_key() {
    let said = Place::with("# a comment\ndir : {data}\nno-such-key : 1\n").refused_at(3);
    assert!(said.contains("no-such-key"), "{said}");
}

#[test]
fn bad_values() {
    let bad = [
        ("databases", "many"),
        ("databases", "0"),
        ("port", "70000"),
        ("sync", "sometimes"),
        ("daemonize", "perhaps"),
        ("binlog-file-size", "10X"),
        ("slaveof", "nowhere"),
    ];
    for (key, value) in bad {
        let place = Place::with(&format!("dir : {{data}}\n\n{key} : {value}\n"));
        let said = place.refused_at(3);
        assert!(said.contains(key), "{key} is not named in: {said}");
    }
}

#[test]
fn a_line_that_is_no_setting() {
    Place::with("dir : {data}\nwhat is this\n").refused_at(2);
}

#[test]
fn a_bad_setting_on_the_command_line() {
    let place = Place::with("dir : {data}\n");
    let said = place.refused(&["--set", "no-such-key=1"]);
    assert!(said.contains("no-such-key"), "{said}");
    let said = place.refused(&["--set", "databases=many"]);
    assert!(said.contains("databases"), "{said}");
}

#[test]
fn a_conf_file_that_is_not_there() {
    let dir = temp_dir();
    let conf = dir.path().join("missing.conf");
    let output = run_program(Command::new(HAYPILE).arg(&conf).current_dir(dir.path()));
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_string();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("missing.conf"), "{said}");
    assert!(files_under(dir.path()).is_empty(), "something was written");
}

#[test]
fn a_port_that_is_taken() {
    for offset in OFFSETS {
        let ports = PortBlock::reserve();
        let port = ports.port();
        let _holder = TcpListener::bind(("127.0.0.1", port + offset)).expect("a reserved port");
        let place = Place::with(&format!("dir : {{data}}\nport : {port}\n"));
        let said = place.refused_at(2);
        assert!(said.contains(&(port + offset).to_string()), "{} in: {said}", port + offset);
    }
}

#[test]
fn a_data_folder_that_another_server_uses() {
    let holder = Node::start();
    holder.run("SET k v").expect_ok();
    let ports = PortBlock::reserve();
    let data = holder.data_dir().display().to_string();
    let place = Place::with(&format!("port : {}\ndir : {data}\n", ports.port()));
    let said = place.refused_at(2);
    assert!(said.contains(&data), "{data} in: {said}");
    assert_eq!(holder.run("GET k"), Reply::bulk("v"));
    holder.run("SET k w").expect_ok();
}
