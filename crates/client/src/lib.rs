//! The SDK that applications link: may I write now, and where do reads go?
//!
//! A client keeps a lease from `cutover serve` (or an agent) in the background. To ask costs a few nanoseconds and no
//! call: one atomic load, a look at the clock, a compare. When the server can't be reached the lease runs out by itself,
//! and then writes are refused, while reads stay on the last route.
//!
//! ```no_run
//! use cutover_client::Client;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::builder("https://cutover.example")
//!         .token("…")
//!         .database("postgres://app@db-old.example/shop")
//!         .from_env() // CUTOVER_* for what is not said above
//!         .connect()
//!         .await?;
//!
//!     match client.write() {
//!         Ok(guard) => {
//!             // BEGIN; INSERT …; COMMIT;
//!             drop(guard); // the database has answered
//!         }
//!         Err(refused) => println!("try again in {:?}: {refused}", refused.retry_after),
//!     }
//!
//!     client.close().await; // nobody has to wait for the lease to run out
//!     Ok(())
//! }
//! ```
//!
//! # What a guard promises
//!
//! [`Client::write`] covers a write from the check to the commit. When the server changes the route, this client closes
//! at once, waits for the guards that are alive, and only then acknowledges the new epoch: an acknowledgement means that
//! no write of this process is under way under an older one. [`Client::may_write`] is the check alone and promises
//! nothing. What no guard covers is stopped by the fence in the database itself, whatever happens here.
//!
//! # What the lease promises
//!
//! It counts from the instant when the request was *sent*, by a monotonic clock of this process, and the server counts
//! it from when the request arrived: this side stops first. A clock that is set changes nothing. A machine that is put to
//! sleep and woken up stops the clock with it; then the lease is over later than the server thinks, and the database's
//! fence is what refuses.
//!
//! # Where a read goes
//!
//! [`Client::read_from`] says it for a key, in nanoseconds as well, and stays as it was when the server is out of reach.
//!
//! # What was read and written
//!
//! [`Client::record`] counts an operation in some ten nanoseconds. The server is told once a second, each operation once,
//! and shows error rates and percentiles of both stores side by side.
//!
//! # To hold rather than to refuse
//!
//! A pause takes a second or two. [`Client::write_within`] holds a caller for a bounded time and goes on as soon as
//! writes are open. With the feature `tower`, a layer does either for a whole HTTP service.

mod builder;
mod chance;
mod client;
mod clock;
mod environment;
mod error;
mod gate;
mod guard;
mod keeper;
#[cfg(feature = "tower")]
mod layer;
#[cfg(test)]
mod model;
mod operations;
mod reads;
mod refused;
mod settings;
mod sync;
mod task;
mod view;

pub use builder::Builder;
pub use client::Client;
pub use cutover_api::{OperationOutcome, Side, Writes};
pub use error::Error;
pub use guard::WriteGuard;
#[cfg(feature = "tower")]
pub use layer::{WriteGate, WriteGateLayer};
pub use operations::Operation;
pub use refused::{Reason, Refused};
pub use view::Route;

/// The examples of the guide.
#[cfg(all(doctest, feature = "tower"))]
#[doc = include_str!("../../../docs/sdk-rust.md")]
struct Guide;
