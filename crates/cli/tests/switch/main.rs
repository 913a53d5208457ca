//! The whole switch, on real servers, under real load, through the command that people type.

#![cfg(test)]

mod recovery;
mod there_and_back;
mod trouble;
mod world;
