//! The plan file as it is written: every key, nothing checked yet but its type.

use serde::Deserialize;
use toml::Spanned;

/// A string with its place in the file.
pub(super) type Text = Spanned<String>;

/// A list of strings with its place in the file.
pub(super) type Names = Spanned<Vec<Text>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: Text,
    pub(super) kind: Text,
    pub(super) source: Database,
    pub(super) target: Database,
    pub(super) journal: Option<Journal>,
    #[serde(default)]
    pub(super) application: Application,
    #[serde(default)]
    pub(super) tables: Tables,
    #[serde(default)]
    pub(super) table: Vec<Table>,
    #[serde(default)]
    pub(super) pause: Pause,
    #[serde(default)]
    pub(super) copy: Copy,
    #[serde(default)]
    pub(super) verify: Verify,
    #[serde(default)]
    pub(super) switch: Switch,
    #[serde(default)]
    pub(super) compatibility: Compatibility,
    #[serde(default)]
    pub(super) hooks: Hooks,
    #[serde(default)]
    pub(super) traffic: Vec<Traffic>,
    #[serde(default)]
    pub(super) check: Vec<Check>,
    #[serde(default)]
    pub(super) rehearse: super::rehearse::Raw,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub(super) url: Text,
    pub(super) peer_url: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    pub(super) url: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Application {
    pub(super) roles: Option<Vec<Text>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tables {
    pub(super) include: Option<Names>,
    pub(super) exclude: Option<Vec<Text>>,
    pub(super) definitions: Option<bool>,
    pub(super) cut_foreign_keys: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) name: Text,
    pub(super) chunk_rows: Option<Spanned<u32>>,
    pub(super) redact: Option<Vec<Text>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    pub(super) budget: Option<Text>,
    pub(super) attempts: Option<Spanned<u32>>,
    pub(super) lag_bytes: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Copy {
    pub(super) jobs: Option<Spanned<u32>>,
    pub(super) large_objects: Option<Text>,
    pub(super) part_size: Option<Text>,
    pub(super) resume_within: Option<Text>,
    pub(super) max_rate: Option<Text>,
    pub(super) max_latency: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Verify {
    pub(super) jobs: Option<Spanned<u32>>,
    pub(super) chunk_rows: Option<Spanned<u32>>,
    pub(super) rechecks: Option<Spanned<u32>>,
    pub(super) redact: Option<Vec<Text>>,
    pub(super) in_pause: Option<Text>,
    pub(super) max_age: Option<Text>,
    pub(super) max_rate: Option<Spanned<u64>>,
    pub(super) max_latency: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    pub(super) reverse: Option<bool>,
    pub(super) sequence_headroom: Option<Spanned<u32>>,
    pub(super) allow_downgrade: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Compatibility {
    #[serde(default)]
    pub(super) accept: Vec<Accept>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accept {
    pub(super) name: Text,
    pub(super) reason: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hooks {
    pub(super) migrate: Option<Text>,
    pub(super) trial: Option<Text>,
    pub(super) smoke: Option<Text>,
    pub(super) timeout: Option<Text>,
}

/// All keys of all kinds of adapter; which of them a kind takes is checked afterwards, so that a key in the
/// wrong place is reported there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Traffic {
    pub(super) kind: Text,
    pub(super) admin_url: Option<Text>,
    pub(super) database: Option<Text>,
    pub(super) config_file: Option<Text>,
    pub(super) path: Option<Text>,
    pub(super) format: Option<Text>,
    pub(super) variable: Option<Text>,
    pub(super) value: Option<Text>,
    pub(super) hold: Option<Text>,
    pub(super) release: Option<Text>,
    pub(super) observe: Option<Text>,
    pub(super) timeout: Option<Text>,
    pub(super) lease: Option<Text>,
    pub(super) rollout: Option<Text>,
    pub(super) source: Option<Names>,
    pub(super) target: Option<Names>,
    pub(super) through: Option<Names>,
    pub(super) url: Option<Text>,
    pub(super) token: Option<Text>,
    pub(super) ca_file: Option<Text>,
    pub(super) settle: Option<Text>,
    pub(super) key: Option<Text>,
    pub(super) flag: Option<Text>,
    pub(super) project: Option<Text>,
    pub(super) workspace: Option<Text>,
    pub(super) environment: Option<Text>,
    pub(super) context: Option<Text>,
    pub(super) attribute: Option<Text>,
    pub(super) source_segment: Option<Spanned<u64>>,
    pub(super) target_segment: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    pub(super) name: Text,
    pub(super) sql: Text,
    pub(super) expect: Option<Text>,
    pub(super) value: Option<Text>,
    pub(super) timeout: Option<Text>,
}
