//! Shadow tables, on real servers: the oldest major, the newest, and one between.
#![cfg(test)]

mod awkward;
mod completing;
mod completion;
mod ground;
mod installation;
mod ladder;
mod moving;
mod refused;
mod rights;
