//! Shadow tables, on real servers: the oldest major, the newest, and one between.
#![cfg(test)]

mod awkward;
mod carrying;
mod completing;
mod completion;
mod document;
mod ground;
mod health;
mod installation;
mod ladder;
mod load;
mod model;
mod moving;
mod operations;
mod pairs;
mod refused;
mod reports;
mod rights;
mod safety;
