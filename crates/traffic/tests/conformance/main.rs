//! One suite that every adapter runs, and what each of them has to do beyond it.

#[cfg(test)]
mod commands;
#[cfg(test)]
#[path = "../doubles/mod.rs"]
mod doubles;
#[cfg(test)]
mod files;
#[cfg(test)]
mod fleets;
#[cfg(test)]
mod pgbouncers;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod services;
#[cfg(test)]
mod suite;
