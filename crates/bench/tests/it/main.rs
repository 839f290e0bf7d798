//! The load generator as it is run, with tiny amounts: every row works. Nothing is said about times.

use std::path::Path;
use std::process::Command;

#[test]
fn every_row_works_and_is_reported() {
    let program = Path::new(env!("CARGO_BIN_EXE_claudemesh-bench"));
    let broker = program.with_file_name("claudemesh-broker");
    if !broker.exists() {
        // Built with this package alone; the workspace's tests build the broker first.
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let report = dir.path().join("report.json");
    let output = Command::new(program)
        .args(["--smoke", "--repeat", "1"])
        .arg("--broker")
        .arg(&broker)
        .arg("--dir")
        .arg(dir.path())
        .arg("--json")
        .arg(&report)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    let report = std::fs::read_to_string(report).unwrap();
    for name in ["durable sends, 256 in flight", "whole life", "end to end p99", "handshakes", "start, empty"] {
        assert!(table.contains(name) && report.contains(name), "{name} is missing:\n{table}");
    }
}
