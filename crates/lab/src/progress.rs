//! Telling people on standard error how far the lab has come.

use std::io::{IsTerminal, stderr};
use std::time::Instant;

use crate::report::Step;

/// Prints each step as it ends, and remembers how long it took.
#[derive(Debug)]
pub(crate) struct Progress {
    colour: bool,
    steps: Vec<Step>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { colour: stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(), steps: Vec::new() }
    }

    /// Runs a step; `describe` tells what came of it.
    pub(crate) fn step<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<T, E>,
        describe: impl FnOnce(&T) -> (bool, String),
    ) -> Result<T, E> {
        let start = Instant::now();
        let outcome = work();
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (good, said) = match &outcome {
            Ok(done) => describe(done),
            Err(_) => (false, "failed".to_owned()),
        };
        let (mark, colour) = if good { ("✓", "32") } else { ("✗", "31") };
        if self.colour {
            eprintln!("  \x1b[{colour}m{mark}\x1b[0m {name:<10} {said}  \x1b[2m{ms} ms\x1b[0m");
        } else {
            eprintln!("  {mark} {name:<10} {said}  {ms} ms");
        }
        self.steps.push(Step { step: name.to_owned(), ms });
        outcome
    }

    /// Every step so far.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.steps.clone()
    }
}
