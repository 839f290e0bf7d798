//! The command line, `claudemesh`. Each verb is one file in `cmd`; what it does is in the client library, what it prints is here.
//!
//! Data goes to standard output, everything said about it to standard error. `--json` output is for programs and stable.

mod args;
mod bearer;
mod cmd;
mod context;
mod exit;
mod failure;
mod membership;
mod name;
mod output;
mod parse;
mod table;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::Arguments;
use context::Context;
use exit::Exit;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(words(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => {
            let wanted = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nothing is left to do when even this cannot be printed.
            let _ = error.print();
            return if wanted { Exit::Done.into() } else { Exit::BadArguments.into() };
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

/// What was typed. `help --help` is `help`: clap would take the second for a verb's name.
fn words(typed: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<_> = typed.collect();
    if words.get(1).is_some_and(|word| word == "help") {
        words.retain(|word| word != "--help" && word != "-h");
    }
    words
}

/// One thread is enough for one command, and starts faster than a pool of them.
#[tokio::main(flavor = "current_thread")]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut context = Context::new(arguments.json, arguments.mesh)?;
    cmd::run(&mut context, arguments.verb).await
}
