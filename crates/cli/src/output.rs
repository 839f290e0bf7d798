//! Printing: data on standard output as text or JSON, notices on standard error.

use std::env;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};

use claudemesh_proto::text::{is_hidden, many_lines};
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;

/// Where data and notices go.
pub(crate) struct Output {
    notices: io::Stderr,
    json: bool,
    is_terminal: bool,
    colour: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { notices: io::stderr(), json, is_terminal, colour: is_terminal && !plain && !dumb }
    }

    /// Prints `value` as one line of JSON, or `text` for people. Both end up on standard output whole and flushed.
    pub(crate) fn data(&self, value: &impl Serialize, text: impl FnOnce(&Self) -> String) -> anyhow::Result<()> {
        let mut text = if self.json { escaped(&serde_json::to_string(value)?) } else { text(self) };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                let text = format!("cannot write to standard output: {error}");
                Err(Failure { exit: Exit::Files, text }.into())
            }
            written => Ok(written?),
        }
    }

    /// Tells the person, not the program that reads the data. Names in it may be anybody's words.
    pub(crate) fn notice(&self, text: &str) {
        // Losing a notice must not fail the command.
        let _ = writeln!(self.notices.lock(), "{}", many_lines(text));
    }

    /// Whether a person looks at the data.
    pub(crate) fn is_for_people(&self) -> bool {
        self.is_terminal && !self.json
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.style("1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.style("2", text)
    }

    fn style(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// The same JSON without a character that a terminal obeys or hides: names and texts in it may be anybody's words. JSON escapes
/// only part of them, and such a character can stand nowhere but in a string.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing into a String does not fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_no_character_that_a_terminal_obeys_or_hides() {
        let words = "a\u{9b}2J\u{85}\u{202e}\u{7f}\u{e0041}\u{3164}\n\"ü";
        let json = serde_json::to_string(words).unwrap();
        assert!(json.contains('\u{9b}'), "what this is for");
        let escaped = escaped(&json);
        assert_eq!(escaped, r#""a\u009b2J\u0085\u202e\u007f\udb40\udc41\u3164\n\"ü""#);
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), words);
    }
}
