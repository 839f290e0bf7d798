//! A file is one idea, and an idea is short: source files have a limit.
//!
//! The length of a function is clippy's `too_many_lines`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::workspace;

/// More lines than this fail.
const LIMIT: usize = 600;
/// The same for files under a `tests` directory, where tables of cases are long.
const TESTS_LIMIT: usize = 800;
/// From here on a file is named, so that it is split before it must be.
const NOTICE: usize = 400;

/// Prints the long files; false when one is too long.
pub(crate) fn check() -> anyhow::Result<bool> {
    let mut passed = true;
    let sources = sources()?;
    for path in &sources {
        // A file may be deleted and not yet committed as such.
        let Ok(text) = std::fs::read_to_string(workspace::root().join(path)) else {
            continue;
        };
        let lines = text.lines().count();
        match judge(path, &text) {
            Size::Fits => {}
            Size::Long => println!("notice: {} has {lines} lines", path.display()),
            Size::TooLong(limit) => {
                passed = false;
                println!("{} has {lines} lines, {limit} are allowed: split it by idea", path.display());
            }
        }
    }
    println!("{} source files", sources.len());
    Ok(passed)
}

#[derive(Debug, PartialEq, Eq)]
enum Size {
    Fits,
    Long,
    TooLong(usize),
}

fn judge(path: &Path, text: &str) -> Size {
    let limit = if path.components().any(|part| part.as_os_str() == "tests") { TESTS_LIMIT } else { LIMIT };
    let lines = text.lines().count();
    if text.lines().take(5).any(|line| line.contains("@generated")) || lines <= NOTICE {
        Size::Fits
    } else if lines > limit {
        Size::TooLong(limit)
    } else {
        Size::Long
    }
}

/// Every Rust file that git tracks or would track; without git, every one outside of `target`.
fn sources() -> anyhow::Result<BTreeSet<PathBuf>> {
    let listing = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others"])
        .args(["--exclude-standard", "--", "*.rs"])
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match listing {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).split_terminator('\0').map(PathBuf::from).collect())
        }
        _ => {
            let mut found = BTreeSet::new();
            walk(workspace::root(), &mut found)?;
            Ok(found)
        }
    }
}

fn walk(directory: &Path, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inside = path.strip_prefix(workspace::root()).unwrap_or(&path);
            found.insert(inside.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(path: &str, lines: usize) -> Size {
        judge(Path::new(path), &"x\n".repeat(lines))
    }

    #[test]
    fn a_source_file_of_more_than_600_lines_is_too_long() {
        assert_eq!(size("crates/a/src/lib.rs", 400), Size::Fits);
        assert_eq!(size("crates/a/src/lib.rs", 401), Size::Long);
        assert_eq!(size("crates/a/src/lib.rs", 600), Size::Long);
        assert_eq!(size("crates/a/src/lib.rs", 601), Size::TooLong(600));
    }

    #[test]
    fn a_test_file_may_have_800_lines() {
        assert_eq!(size("crates/a/tests/it/topic.rs", 800), Size::Long);
        assert_eq!(size("crates/a/tests/it/topic.rs", 801), Size::TooLong(800));
    }

    #[test]
    fn a_generated_file_may_have_any_length() {
        let text = format!("// @generated\n{}", "x\n".repeat(5000));
        assert_eq!(judge(Path::new("a.rs"), &text), Size::Fits);
    }

    #[test]
    fn the_walk_without_git_finds_this_file() {
        let mut found = BTreeSet::new();
        walk(workspace::root(), &mut found).unwrap();
        assert!(found.contains(Path::new("xtask/src/sizes.rs")));
    }
}
