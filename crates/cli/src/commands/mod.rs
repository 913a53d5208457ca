//! One file a verb, where a verb is more than a call.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod drive;
pub(crate) mod init;
pub(crate) mod plan;
pub(crate) mod rehearse;
mod remote;
pub(crate) mod report;
pub(crate) mod serve;
pub(crate) mod sql;
pub(crate) mod status;
mod throwaway;
pub(crate) mod verify;
