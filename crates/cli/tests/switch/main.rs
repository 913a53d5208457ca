//! The whole switch, on real servers, under real load, through the command that people type.

#![cfg(test)]

mod campaign;
mod checks;
mod controllers;
mod faults;
mod following;
mod known;
mod recovery;
mod set_ups;
mod there_and_back;
mod trouble;
mod world;
