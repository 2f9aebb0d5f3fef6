//! What a benchmark says: rows that compare, as one JSON document. How they are measured is the program's
//! (`hostgw-bench`); nothing here reads a clock.

pub mod report;
pub mod samples;

pub use report::{Bound, Report, Row, SCHEMA, SCHEMA_VERSION, Unit};
pub use samples::Samples;
