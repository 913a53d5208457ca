//! Imports run one way: cli → engine → {journal, postgres, traffic} → core.
//!
//! What never knows of another can't come to depend on it: the core can be read, tested and replayed alone, and a
//! traffic adapter works for any database.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Complaint;
use crate::tree::{File, Tree};

/// Which of our crates each of them may depend on, by their folders.
const ALLOWED: &[(&str, &[&str])] = &[
    ("api", &[]),
    // Whoever decides where a key's reads go decides by the same function.
    ("bucketing", &[]),
    // Applications link it: nothing of ours but what is said over the wire.
    ("wire", &["api"]),
    ("client", &["api", "bucketing", "wire"]),
    ("core", &["bucketing"]),
    ("journal", &["core"]),
    ("postgres", &["core"]),
    // Flag services are reached over HTTP, with the same to trust.
    ("traffic", &["core", "wire"]),
    ("engine", &["core", "journal", "postgres", "traffic"]),
    ("server", &["api", "wire", "core", "journal", "engine"]),
    // The demo is a real switch between the test kit's throwaway servers.
    ("cli", &["api", "core", "journal", "postgres", "traffic", "engine", "server", "wire", "testkit"]),
    ("testkit", &[]),
    ("examples/shop-rust", &["client"]),
    // It speaks as clients do, and has the server that the client's own tests ask.
    ("bench/rig", &["api", "wire", "client", "core"]),
    // It asks with a stock provider, as an application that has never heard of us.
    ("cli/tests/process/providers/rust", &[]),
    ("xtask", &[]),
];

/// What the tests of every crate may use besides.
const FOR_TESTS: &[&str] = &["testkit"];

/// What the tests of one crate may use besides: the SDK is tried against a server made of the core's own rules, and
/// against `cutover serve` itself.
const FOR_TESTS_OF: &[(&str, &[&str])] = &[("client", &["core"]), ("cli", &["client"])];

/// A `Cargo.toml` of ours.
struct Manifest<'a> {
    file: &'a File,
    folder: &'a str,
    content: Table,
}

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut manifests = Vec::new();
    for (file, folder) in tree.files.iter().filter_map(|file| Some((file, folder(&file.path)?))) {
        match toml::from_str(&file.text) {
            Ok(content) => manifests.push(Manifest { file, folder, content }),
            Err(error) => complaints.push(Complaint::at(file, 1, error.to_string())),
        }
    }
    let renamed = tree.file("Cargo.toml").and_then(|file| toml::from_str::<Table>(&file.text).ok()).map(|root| renamed(&root));
    let renamed = renamed.unwrap_or_default();
    let ours: BTreeMap<_, _> = manifests.iter().map(|manifest| (manifest.package(), manifest.folder)).collect();
    complaints.extend(manifests.iter().flat_map(|manifest| manifest.check(&ours, &renamed)));
    complaints
}

/// `core` of `crates/core/Cargo.toml`.
fn folder(path: &str) -> Option<&str> {
    let folder = path.strip_suffix("/Cargo.toml")?;
    Some(folder.strip_prefix("crates/").unwrap_or(folder))
}

/// The packages behind the names that the workspace gives them, where the two differ.
fn renamed(root: &Table) -> BTreeMap<String, String> {
    let dependencies = root.get("workspace").and_then(|workspace| workspace.get("dependencies")).and_then(Value::as_table);
    let package = |(name, value): (&String, &Value)| Some((name.clone(), value.get("package")?.as_str()?.to_owned()));
    dependencies.into_iter().flatten().filter_map(package).collect()
}

impl Manifest<'_> {
    fn package(&self) -> &str {
        self.content.get("package").and_then(|package| package.get("name")).and_then(Value::as_str).unwrap_or(self.folder)
    }

    fn check(&self, ours: &BTreeMap<&str, &str>, renamed: &BTreeMap<String, String>) -> Vec<Complaint> {
        let Some((_, allowed)) = ALLOWED.iter().find(|(folder, _)| *folder == self.folder) else {
            let message = "this crate is not in the table in xtask/src/tidy/imports.rs: say there what it may depend on";
            return vec![Complaint::at(self.file, 1, message)];
        };
        let mut complaints = Vec::new();
        for (kind, name, value) in self.dependencies() {
            let package = value.get("package").and_then(Value::as_str).or(renamed.get(name).map(String::as_str)).unwrap_or(name);
            let Some(folder) = ours.get(package) else { continue };
            let for_tests = kind == "dev-dependencies" && self.tests_may_use(folder);
            if !for_tests && !allowed.contains(folder) {
                complaints.push(Complaint::at(self.file, self.file.line_of(name), self.message(folder, allowed)));
            }
        }
        complaints
    }

    fn tests_may_use(&self, folder: &str) -> bool {
        let own = FOR_TESTS_OF.iter().any(|(of, may)| *of == self.folder && may.contains(&folder));
        // Itself, with features that are off for others.
        own || folder == self.folder || FOR_TESTS.contains(&folder)
    }

    fn message(&self, folder: &str, allowed: &[&str]) -> String {
        let allowed = if allowed.is_empty() { "none of our crates".to_owned() } else { allowed.join(", ") };
        format!("{} must not know {folder}; it may use {allowed}: let the engine bring the two together", self.folder)
    }

    /// Every dependency with the kind of table that it stands in.
    fn dependencies(&self) -> Vec<(&'static str, &str, &Value)> {
        let targets = self.content.get("target").and_then(Value::as_table).into_iter().flatten();
        let tables: Vec<_> = targets.filter_map(|(_, target)| target.as_table()).chain([&self.content]).collect();
        let mut found = Vec::new();
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let of_kind = tables.iter().filter_map(|table| table.get(kind)?.as_table()).flatten();
            found.extend(of_kind.map(|(name, value)| (kind, name.as_str(), value)));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The complaints about a crate whose manifest goes on with `text`, where all crates exist.
    fn complaints(folder: &str, text: &str) -> Vec<String> {
        let path = |folder: &str| if folder == "xtask" { "xtask/Cargo.toml".to_owned() } else { format!("crates/{folder}/Cargo.toml") };
        let manifest = |name: &str| {
            let rest = if name == folder { text } else { "" };
            (path(name), format!("[package]\nname = \"cutover-{name}\"\n\n{rest}"))
        };
        let files: Vec<_> = ALLOWED.iter().map(|(name, _)| manifest(name)).collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        check(&Tree::of(&files)).iter().map(Complaint::to_string).collect()
    }

    #[test]
    fn the_adapters_never_know_of_each_other() {
        let found = complaints("traffic", "[dependencies]\ncutover-core.workspace = true\ncutover-postgres.workspace = true\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("crates/traffic/Cargo.toml:6: traffic must not know postgres; it may use core, wire"), "{found:?}");
    }

    #[test]
    fn the_core_knows_no_crate_that_does_anything() {
        assert_eq!(complaints("core", "[dependencies]\ncutover-journal = { path = \"../journal\" }\n").len(), 1);
        assert_eq!(complaints("core", "[build-dependencies]\ncutover-testkit.workspace = true\n").len(), 1);
    }

    #[test]
    fn nobody_looks_upwards() {
        assert_eq!(complaints("engine", "[dependencies]\ncutover-cli.workspace = true\n").len(), 1);
        assert_eq!(complaints("journal", "[dev-dependencies]\ncutover-engine.workspace = true\n").len(), 1);
    }

    #[test]
    fn tests_may_use_the_test_kit_and_the_program_may_not() {
        assert_eq!(complaints("engine", "[dev-dependencies]\ncutover-testkit.workspace = true\n"), Vec::<String>::new());
        assert_eq!(complaints("engine", "[dependencies]\ncutover-testkit.workspace = true\n").len(), 1);
        assert_eq!(complaints("cli", "[dependencies]\ncutover-testkit.workspace = true\n"), Vec::<String>::new());
    }

    #[test]
    fn what_the_tests_of_one_crate_may_use_its_program_and_other_tests_may_not() {
        let core = |kind: &str| format!("[{kind}]\ncutover-core.workspace = true\n");
        assert_eq!(complaints("client", &core("dev-dependencies")), Vec::<String>::new());
        assert_eq!(complaints("client", &core("dependencies")).len(), 1);
        assert_eq!(complaints("api", &core("dev-dependencies")).len(), 1);
    }

    #[test]
    fn another_name_or_another_table_hides_nothing() {
        assert_eq!(complaints("core", "[dependencies]\nlog = { package = \"cutover-journal\", path = \"x\" }\n").len(), 1);
        assert_eq!(complaints("core", "[target.'cfg(unix)'.dependencies]\ncutover-journal.workspace = true\n").len(), 1);
        let root = "[workspace.dependencies]\nlog = { package = \"cutover-journal\", path = \"crates/journal\" }\n";
        let core = "[package]\nname = \"cutover-core\"\n[dependencies]\nlog.workspace = true\n";
        let journal = "[package]\nname = \"cutover-journal\"\n";
        let tree = Tree::of(&[("Cargo.toml", root), ("crates/core/Cargo.toml", core), ("crates/journal/Cargo.toml", journal)]);
        assert_eq!(check(&tree).len(), 1);
    }

    #[test]
    fn a_new_crate_has_to_be_entered_in_the_table() {
        let found = check(&Tree::of(&[("crates/novel/Cargo.toml", "[package]\nname = \"cutover-novel\"\n")]));
        assert!(found[0].message.contains("not in the table"), "{found:?}");
    }
}
