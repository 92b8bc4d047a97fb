//! Small files that say what a node has: damaged, they stop the start with one line that names the file.

use std::fs;

use super::*;
use crate::common::run_program;

#[test]
fn a_start_on_a_damaged_state_file_is_refused() {
    let mut node = two_slots().start();
    (0..2).for_each(|slot| write(&node, slot, 0..10));
    assert!(node.terminate().success());
    for file in ["NODE", "db/db0/1/CURRENT", "db/LAYOUT"] {
        let path = node.data_dir().join(file);
        let good = fs::read(&path).expect("the file");
        let mut flipped = good.clone();
        flipped[0] ^= 0x40;
        let cut = good[..good.len() / 2].to_vec();
        for damaged in [flipped, cut, Vec::new(), vec![0; good.len()], vec![0xff; 20]] {
            fs::write(&path, &damaged).expect("written");
            let output = run_program(&mut node.command());
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().last().unwrap_or_default();
            assert_eq!(output.status.code(), Some(1), "{file} {}: {said}", damaged.escape_ascii());
            assert!(line.contains(&path.display().to_string()), "{file} {}: {line}", damaged.escape_ascii());
        }
        fs::write(&path, &good).expect("written");
    }
    fs::remove_file(node.data_dir().join("db/db0/1/CURRENT")).expect("removed");
    let output = run_program(&mut node.command());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("refusing to take the slot for empty"), "{said}");
}
