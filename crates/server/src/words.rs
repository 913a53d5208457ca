//! The core's words in those of the wire, and back; and what may be written into one line.

use cutover_api as api;
use cutover_core as core;

pub(crate) fn side(side: core::Side) -> api::Side {
    match side {
        core::Side::Source => api::Side::Source,
        core::Side::Target => api::Side::Target,
    }
}

pub(crate) fn core_side(side: api::Side) -> core::Side {
    match side {
        api::Side::Source => core::Side::Source,
        api::Side::Target => core::Side::Target,
    }
}

pub(crate) fn writes(writes: core::Writes) -> api::Writes {
    match writes {
        core::Writes::Open => api::Writes::Open,
        core::Writes::Held => api::Writes::Held,
    }
}

pub(crate) fn core_writes(writes: api::Writes) -> core::Writes {
    match writes {
        api::Writes::Open => core::Writes::Open,
        api::Writes::Held => core::Writes::Held,
    }
}

pub(crate) fn unit(unit: &core::clients::Unit) -> api::Unit {
    let table = |table: &core::clients::ShadowTable| {
        let core::clients::ShadowTable { salt, stage, epoch, stale } = table.clone();
        api::ShadowTable { salt, stage, epoch, stale }
    };
    api::Unit { name: unit.name.clone(), target_reads: unit.target_reads, table: unit.table.as_ref().map(table) }
}

pub(crate) fn core_unit(unit: api::Unit) -> core::clients::Unit {
    let table = unit.table.map(|api::ShadowTable { salt, stage, epoch, stale }| core::clients::ShadowTable { salt, stage, epoch, stale });
    core::clients::Unit { name: unit.name, target_reads: unit.target_reads, table }
}

/// Whether a text names a file in a folder, and nothing outside it.
pub(crate) fn is_file_name(text: &str) -> bool {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    (1..=128).contains(&text.len()) && text.chars().all(fits) && !text.starts_with('.')
}

/// Whether a text is one line of at most so many characters, which does no harm in a log or a journal.
pub(crate) fn is_line(text: &str, most: usize) -> bool {
    text.chars().count() <= most && !text.chars().any(char::is_control)
}
