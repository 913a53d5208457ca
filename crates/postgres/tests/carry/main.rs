//! Carrying a database over, on real servers: definitions, rows, indexes and the stream, alone and all at once.

#![cfg(test)]

mod across;
mod between;
mod broken;
mod building;
mod by_key;
mod changing;
mod copying;
mod definitions;
mod gentle;
mod ground;
mod moving;
mod resuming;
mod splitting;
mod streaming;
