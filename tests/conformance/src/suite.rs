//! Tries each case on each side, and holds the differences against the page.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::Value;

use crate::case::Case;
use crate::compare::{Difference, differences};
use crate::error::SuiteError;
use crate::listed::Listed;
use crate::programs::Programs;
use crate::trial::{self, Sides};
use crate::{Options, cases, keys, planted, report};

/// The run against Debian's package, which is older than version 1.1.0 of the specification.
const DEBIAN: &str = "debian";

/// One way to run a case with ours in it, and what it is compared with.
struct Run {
    name: &'static str,
    ours: Sides,
    reference: Sides,
}

/// A difference, and where it was found.
pub(crate) struct Found {
    pub(crate) run: &'static str,
    pub(crate) case: String,
    pub(crate) difference: Difference,
}

/// Tries all that was asked for; whether everything is as the page says.
pub(crate) fn run(options: &Options) -> Result<bool, SuiteError> {
    let programs = Programs::prepare(options)?;
    let listed = Listed::read(&options.page)?;
    let wanted = |case: &Case| {
        options.cases.is_empty() || options.cases.iter().any(|word| case.name.contains(word.as_str()))
    };
    let cases: Vec<Case> = cases::all().into_iter().filter(wanted).collect();
    if options.planted {
        return planted::run(&programs, &listed, &cases);
    }
    if options.tell {
        return tell(&programs, &cases);
    }
    let outcomes = each(&cases, options.jobs, |case| {
        let found = compare(&programs, case)?;
        // Told as soon as it is known: the whole takes minutes.
        for it in found.iter().filter(|it| listed.expecting(it.run, &it.case, &it.difference).is_empty()) {
            report::line(&report::unlisted(it.run, &it.case, &it.difference));
        }
        Ok(found)
    });
    let mut as_listed = verdict(&listed, &cases, &outcomes, programs.debian.is_some());
    if options.cases.is_empty() {
        for key in keys::missing(&cases, &listed.keys) {
            as_listed = false;
            report::line(&format!("no case has the key, and the page does not list it: {key}"));
        }
    }
    Ok(as_listed)
}

/// The differences of each run of a case.
fn compare(programs: &Programs, case: &Case) -> Result<Vec<Found>, SuiteError> {
    let mut found = Vec::new();
    let mut baseline: Option<(Sides, Value)> = None;
    for run in runs(programs, case) {
        let older = (run.name == DEBIAN).then(|| case.in_version_1_0_0());
        let case = older.as_ref().unwrap_or(case);
        let known = baseline.as_ref().filter(|(sides, _)| sides.adds == run.reference.adds);
        let reference = match known {
            Some((_, story)) => story.clone(),
            None => trial::run(case, &run.reference)?,
        };
        let ours = trial::run(case, &run.ours)?;
        found.extend(differences(&ours, &reference).into_iter().map(|difference| Found {
            run: run.name,
            case: case.name.clone(),
            difference,
        }));
        baseline = Some((run.reference, reference));
    }
    Ok(found)
}

/// What [`compare`] tells of a fault: one run, ours as a whole.
pub(crate) fn compare_once(
    programs: &Programs,
    case: &Case,
    ours: &std::path::Path,
) -> Result<Vec<Found>, SuiteError> {
    let story = trial::run(case, &programs.sides(ours, ours))?;
    let reference = trial::run(case, &programs.sides(&programs.reference, &programs.reference))?;
    let found = differences(&story, &reference).into_iter();
    Ok(found.map(|difference| Found { run: "ours", case: case.name.clone(), difference }).collect())
}

fn runs(programs: &Programs, case: &Case) -> Vec<Run> {
    let (ours, reference) = (&programs.ours, &programs.reference);
    let all_reference = || programs.sides(reference, reference);
    let mut runs = vec![Run { name: "ours", ours: programs.sides(ours, ours), reference: all_reference() }];
    if case.switched {
        let (to, back) = (programs.sides(reference, ours), programs.sides(ours, reference));
        runs.push(Run { name: "switched to ours", ours: to, reference: all_reference() });
        runs.push(Run { name: "switched back", ours: back, reference: all_reference() });
    }
    if let Some(debian) = programs.debian.as_ref().filter(|_| case.switched) {
        let sides = programs.sides(ours, ours);
        runs.push(Run { name: DEBIAN, ours: sides, reference: programs.sides(debian, debian) });
    }
    runs
}

/// Does it for each case, several at once, and gives the outcomes in the cases' order.
fn each<T: Send>(
    cases: &[Case],
    jobs: usize,
    work: impl Fn(&Case) -> Result<T, SuiteError> + Sync,
) -> Vec<Result<T, SuiteError>> {
    let next = Mutex::new(0..cases.len());
    let done = Mutex::new(Vec::new());
    let take = || next.lock().ok().and_then(|mut next| next.next());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(index) = take() {
                    let outcome = work(&cases[index]);
                    if let Ok(mut done) = done.lock() {
                        done.push((index, outcome));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Prints what is not as the page says.
fn verdict(
    listed: &Listed,
    cases: &[Case],
    outcomes: &[Result<Vec<Found>, SuiteError>],
    with_debian: bool,
) -> bool {
    let mut seen = BTreeSet::new();
    let (mut unlisted, mut failed, mut differing) = (0, 0, 0);
    for (case, outcome) in cases.iter().zip(outcomes) {
        let found = match outcome {
            Ok(found) => found,
            Err(error) => {
                failed += 1;
                report::line(&format!("failed: {}: {error}", case.name));
                continue;
            }
        };
        for it in found {
            differing += 1;
            let rows = listed.expecting(it.run, &it.case, &it.difference);
            unlisted += usize::from(rows.is_empty());
            seen.extend(rows);
        }
    }
    let mut tried = Vec::new();
    for case in cases {
        let switched = ["switched to ours", "switched back"].into_iter().filter(|_| case.switched);
        let debian = std::iter::once(DEBIAN).filter(|_| with_debian && case.switched);
        let names = std::iter::once("ours").chain(switched).chain(debian);
        tried.extend(names.map(|run| (run.to_owned(), case.name.clone())));
    }
    let mut stale = 0;
    // A part of the cases cannot say of a row that nothing is as it says.
    if cases.len() == cases::all().len() && with_debian {
        for (index, row) in (0..).zip(&listed.rows) {
            if !seen.contains(&index) {
                stale += 1;
                let what = if row.concerns(&tried) { "no longer differs" } else { "concerns no case" };
                report::line(&format!("line {} {what}: {}", row.line, row.shown()));
            }
        }
    }
    report::line(&format!(
        "{} cases, {} runs: {differing} differences as listed or not, {unlisted} unlisted, {stale} listed that are not \
         there, {failed} cases that could not be tried",
        cases.len(),
        tried.len()
    ));
    unlisted + stale + failed == 0
}

/// Prints stories, for whoever wants to know why.
fn tell(programs: &Programs, cases: &[Case]) -> Result<bool, SuiteError> {
    for case in cases {
        let mut told = vec![("reference", programs.sides(&programs.reference, &programs.reference))];
        told.extend(runs(programs, case).into_iter().map(|run| (run.name, run.ours)));
        if let Some(debian) = &programs.debian {
            told.push(("debian's own", programs.sides(debian, debian)));
        }
        for (name, sides) in told {
            let story = trial::run(case, &sides)?;
            report::line(&format!("── {} by {name}\n{story:#}", case.name));
        }
    }
    Ok(true)
}
