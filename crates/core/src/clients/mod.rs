//! What an application is told, and who has heard it: flags, leases and acknowledgements. Pure.
//!
//! Each server keeps the leases of its own clients at its [`Desk`] and reports their sum ([`Report`]) where the journal is.
//! The driver reads the reports and knows when everybody has heard of an epoch, or can't act on an older one any more
//! ([`Listeners`]). Nobody needs to know another's clock: whoever gives a lease counts it from later than whoever has it.

mod desk;
mod flags;
mod lease;
mod listeners;
mod places;
mod pushed;
mod report;
mod units;
mod wanted;

pub use desk::{Desk, Lent};
pub use flags::{Context, Evaluation, FlagError, Flags, Reason, Value, WRITES_ENABLED};
pub use lease::{Clients, FutureEpoch, Renewal, Who};
pub use listeners::{Heard, Listeners, Verdict};
pub use places::{Place, Places};
pub use pushed::{Moment, Pushed};
pub use report::{Claim, Driving, MOST_NAMES, Report, Verb};
pub use units::{ShadowTable, Unit};
pub use wanted::{Names, Wanted};
