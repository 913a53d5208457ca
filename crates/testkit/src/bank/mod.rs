//! A bank: a database with some of everything, clients that work on it, and a checker that knows what must be there.
//!
//! Every write carries `(client, op)`, unique for ever, and the client notes what became of it. So afterwards
//! [`check_history`] can tell for every single write whether it is where it belongs, exactly once and whole.

mod check;
mod client;
mod history;
mod load;
mod operation;
mod schema;
mod session;

pub use check::{Verdict, check_history};
pub use history::{History, Op, OpKind};
pub use load::{Load, LoadOptions, LoadStats};
pub use schema::{BankOptions, create_roles, install};
