//! One suite that every adapter runs, and what each of them has to do beyond it.

#[cfg(test)]
mod commands;
#[cfg(test)]
mod files;
#[cfg(test)]
mod fleets;
#[cfg(test)]
mod pgbouncers;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod suite;
