//! The only doer: observes, lets the core decide, journals, then acts.
