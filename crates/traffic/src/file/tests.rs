//! One variable changes, and nothing else.

use cutover_core::{
    Side,
    plan::{DatabaseUrl, Format},
};
use proptest::prelude::*;

use super::{
    variable::{current, replace},
    *,
};

const VALUE: &str = "postgres://app:s3cret@db2.example:6000/orders?sslmode=require";

/// Sets `variable` and says what stands there now.
#[track_caller]
fn set(format: Format, text: &str, variable: &str, value: &str) -> String {
    let new = replace(format, text, variable, value).unwrap().unwrap();
    assert_eq!(current(format, &new, variable).unwrap(), value);
    assert_eq!(replace(format, &new, variable, value).unwrap(), None, "a second time changes nothing");
    new
}

#[track_caller]
fn fault(format: Format, text: &str, variable: &str) -> FileFault {
    replace(format, text, variable, "x").unwrap_err()
}

#[test]
fn a9_env_changes_one_variable_and_keeps_its_style() {
    for (line, expected) in [
        ("DB=old", format!("DB={VALUE}")),
        ("DB=", format!("DB={VALUE}")),
        ("export DB = 'old' # was: x", format!("export DB = '{VALUE}' # was: x")),
        ("DB=\"o\\\"l\nd\"", format!("DB=\"{VALUE}\"")),
        ("DB=old # comment", format!("DB={VALUE} # comment")),
        ("\tDB=a#b  ", format!("\tDB={VALUE}  ")),
    ] {
        let around = |line: &str| format!("# DB=no\nDBX=1\r\n\nA='DB=x\nDB=y'\n{line}\nODB=\"2\"\nnot an assignment\n");
        assert_eq!(set(Format::Env, &around(line), "DB", VALUE), around(&expected), "{line}");
    }
}

#[test]
fn env_values_are_quoted_where_readers_differ() {
    for (old, value, expected) in [
        ("A=x", "two words", "A='two words'"),
        ("A=x", "a#b", "A='a#b'"),
        ("A=x", "it's", "A=\"it's\""),
        ("A=x", "it's $5", "A=\"it's \\$5\""),
        ("A=\"x\"", "$5", "A='$5'"),
        ("A='x'", "it's", "A=\"it's\""),
        ("A=x", "a\nb", "A=\"a\\nb\""),
        ("A=x", "", "A="),
        ("A='x'", "", "A=''"),
    ] {
        assert_eq!(set(Format::Env, old, "A", value), expected);
    }
}

#[test]
fn a9_json_changes_one_variable_and_keeps_its_type() {
    let text = "{\"db\" : {\"url\":\t\"o\\\"ld\", \"port\": 5432, \"list\": [{\"url\": \"no\"}, \"}\"]},\n \"url\": null, \"d.e\": true}";
    assert_eq!(set(Format::Json, text, "db.url", VALUE), text.replace("\"o\\\"ld\"", &format!("\"{VALUE}\"")));
    assert_eq!(set(Format::Json, text, "db.port", "6000"), text.replace("5432", "6000"));
    assert_eq!(set(Format::Json, text, "url", "a\"\\\n"), text.replace("null", r#""a\"\\\n""#));
    assert_eq!(set(Format::Json, text, "d.e", "false"), text.replace("true", "false"));
    assert!(matches!(fault(Format::Json, text, "db.port"), FileFault::Type { was: "number", .. }));
    assert!(matches!(fault(Format::Json, text, "db.list"), FileFault::Unsupported { line: 1, .. }));
    assert!(matches!(fault(Format::Json, text, "db.list.url"), FileFault::Missing(_)));
    assert!(matches!(fault(Format::Json, "{\"a\":1,\"a\":2}", "a"), FileFault::Ambiguous(_)));
    assert!(matches!(fault(Format::Json, "{\"a\":{\"b\":1},\"a.b\":2}", "a.b"), FileFault::Ambiguous(_)));
    assert!(matches!(fault(Format::Json, "{\n\"a\":secret}", "a"), FileFault::Syntax { line: 2, .. }));
}

#[test]
fn a9_toml_changes_one_variable_and_keeps_its_style() {
    let text = "# c\n[db]\nurl = 'old' # here\nport=5_432\nother = \"\"\"\nurl = 'no'\n\"\"\"\n[db.pool]\nx = {url = \"in\", y = 1.5}\n[[list]]\nurl = 1\n";
    assert_eq!(set(Format::Toml, text, "db.url", VALUE), text.replace("'old'", &format!("'{VALUE}'")));
    assert_eq!(set(Format::Toml, text, "db.url", "it's\n"), text.replace("'old'", "\"it's\\n\""));
    assert_eq!(set(Format::Toml, text, "db.port", "6000"), text.replace("5_432", "6000"));
    assert_eq!(set(Format::Toml, text, "db.pool.x.url", "a\\"), text.replace("\"in\"", "\"a\\\\\""));
    assert_eq!(set(Format::Toml, text, "db.pool.x.y", "2.5"), text.replace("1.5", "2.5"));
    assert!(set(Format::Toml, text, "db.other", "x").contains("other = \"x\"\n[db.pool]"));
    assert!(matches!(fault(Format::Toml, text, "list.url"), FileFault::Missing(_)));
    assert!(matches!(fault(Format::Toml, text, "db.port"), FileFault::Type { .. }));
    assert!(matches!(fault(Format::Toml, text, "db.pool"), FileFault::Unsupported { .. }));
    assert!(matches!(fault(Format::Toml, "a = 1\nb = secret\n", "a"), FileFault::Syntax { line: 2, .. }));
}

const YAML: &str = "\
%YAML 1.2
---
# a comment: here
apiVersion: v1
data: # the data
  \"DB_URL\": old # was: x
  DB_PORT:   5432
  url:
    - url: no
      data: no
    -
      DB_URL: no
  items:
  - DB_URL: no
  - |
   DB_URL: no
  script: |2-
      DB_URL: no

      x: \"
  folded: >
    DB_URL: 'no
  flow: {DB_URL: no, \"a}\": [1, # ]
    2]}
  quoted: \"goes
    DB_URL: no: \\\" on\"
  plain: goes
    on: and on
  anchor: &x
    DB_URL: anchored
  alias: *x
  tagged: !!str 5
  'it''s': 'it''s' # c
  empty:
  last: true
DB_URL: top
";

#[test]
fn a9_yaml_changes_one_variable_and_keeps_its_style() {
    for (variable, value, old, new) in [
        ("data.DB_URL", VALUE, "old # was", format!("{VALUE} # was")),
        ("data.DB_URL", "two: words", "old # was", "\"two: words\" # was".to_owned()),
        ("data.DB_URL", "yes", "old # was", "\"yes\" # was".to_owned()),
        ("data.DB_URL", "5432", "old # was", "\"5432\" # was".to_owned()),
        ("data.DB_URL", "127.0.0.1:5432", "old # was", "127.0.0.1:5432 # was".to_owned()),
        ("data.DB_URL", "12:30", "old # was", "\"12:30\" # was".to_owned()),
        ("data.DB_URL", "", "old # was", "\"\" # was".to_owned()),
        ("data.DB_URL", "a\nb", "old # was", "\"a\\nb\" # was".to_owned()),
        ("data.DB_PORT", "6000", "5432", "6000".to_owned()),
        ("data.it's", "that's", "'it''s' # c", "'that''s' # c".to_owned()),
        ("data.last", "false", "last: true", "last: false".to_owned()),
        ("data.anchor.DB_URL", "x", "anchored", "x".to_owned()),
        ("DB_URL", "x", "DB_URL: top", "DB_URL: x".to_owned()),
    ] {
        assert_eq!(YAML.matches(old).count(), 1, "{old}");
        assert_eq!(set(Format::Yaml, YAML, variable, value), YAML.replace(old, &new));
        let crlf = YAML.replace('\n', "\r\n");
        assert_eq!(set(Format::Yaml, &crlf, variable, value), crlf.replace(old, &new));
    }
}

#[test]
fn yaml_refuses_what_it_would_have_to_guess() {
    for variable in ["script", "folded", "flow", "quoted", "plain", "anchor", "alias", "tagged", "empty", "url", "items"] {
        let fault = fault(Format::Yaml, YAML, &format!("data.{variable}"));
        assert!(matches!(fault, FileFault::Unsupported { .. }), "{variable}: {fault:?}");
    }
    assert!(matches!(fault(Format::Yaml, YAML, "data.DB_PORT"), FileFault::Type { .. }));
    assert!(matches!(fault(Format::Yaml, YAML, "data.url.url"), FileFault::Missing(_)));
    assert!(matches!(fault(Format::Yaml, "a: 1\n---\na: 2\n", "a"), FileFault::Ambiguous(_)));
    for text in ["{a: 1}\n", "? a\n: 1\n", "a: \"x\n", "a: [1\n", "--- a: 1\n", "a: \"x\" y\n", "just text\n", "\ta: 1\n"] {
        assert!(matches!(fault(Format::Yaml, text, "a"), FileFault::Unsupported { .. }), "{text}");
    }
    assert_eq!(set(Format::Yaml, "a: 1\n---\nb: x", "b", "z"), "a: 1\n---\nb: z");
}

fn endpoint(side: Side, url: &str) -> Endpoint {
    Endpoint { side, url: DatabaseUrl::parse(url).unwrap() }
}

fn endpoints() -> [Endpoint; 2] {
    [endpoint(Side::Source, "postgres://app@blue/orders"), endpoint(Side::Target, "postgres://app@green/orders")]
}

fn adapter(folder: &std::path::Path, text: &str, value: &str) -> FileAdapter {
    let path = folder.join("app.env");
    std::fs::write(&path, text).unwrap();
    FileAdapter::new(path, Format::Env, "DB_WRITE_ENDPOINT".to_owned(), value).unwrap()
}

#[tokio::test]
async fn the_preflight_finds_what_would_fail() {
    let folder = tempfile::tempdir().unwrap();
    for (text, value, severity, part) in [
        ("DB_WRITE_ENDPOINT=blue:5432\n", "{host}:{port}", crate::Severity::Info, "can't make clients wait"),
        ("DB_WRITE_ENDPOINT=green:5432\n", "{host}:{port}", crate::Severity::Warning, "at the target already"),
        ("DB_WRITE_ENDPOINT=red:5432\n", "{host}:{port}", crate::Severity::Error, "neither side"),
        ("DB_READ_ENDPOINT=blue:5432\n", "{host}:{port}", crate::Severity::Error, "does not set `DB_WRITE_ENDPOINT`"),
        ("DB_WRITE_ENDPOINT=blue:5432\n", "{user}:{port}", crate::Severity::Error, "same value for both"),
    ] {
        let problems = adapter(folder.path(), text, value).check(&endpoints()).await;
        assert_eq!(problems[0].severity, severity, "{problems:?}");
        assert!(problems[0].message.contains(part), "{problems:?}");
    }
}

#[tokio::test]
async fn no_value_is_ever_shown() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter(folder.path(), "DB_WRITE_ENDPOINT=s3cret\n", "pg://app:s3cret@{host}");
    let shown = format!(
        "{} {:?} {:?} {:?}",
        adapter.name(),
        adapter.release_calls(&endpoints()[1]),
        adapter.check(&endpoints()).await,
        adapter.observe(&endpoints()).await
    );
    assert!(!shown.contains("s3cret"), "{shown}");
    let plan = FileAdapter::new(folder.path().join("x"), Format::Env, "X".to_owned(), "s3cret{nope}").err().unwrap();
    assert!(plan.report().contains("{nope}") && !format!("{plan:?}").contains("s3cret"), "{plan:?}");
}

/// Lines of an env file that set neither `DB_URL` nor open a quote.
fn env_line() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Z_]{1,6}=[^'\"\\r\\n]{0,12}",
        "# [^\\r\\n]{0,12}",
        "[ \\t]{0,3}",
        "export [A-Z]{1,5}='[^'\\r]{0,9}'",
        "[A-Z]{1,5}=\"[^\"\\\\\\r]{0,9}\" # c",
    ]
    .prop_filter("another variable", |line| !line.contains("DB_URL"))
}

fn toml_text() -> impl Strategy<Value = String> {
    let key = "[a-z]{1,3}";
    let value =
        prop_oneof!["'[^'\\pC]{0,9}'", "[1-9][0-9]{0,4}", Just("[1, {url = 'x'}]".to_owned()), Just("\"\"\"\nurl = 1\n\"\"\"".to_owned())];
    let line = (key, value, " {0,2}(# [^\\pC]{0,9})?").prop_map(|(key, value, comment)| format!("{key}x = {value}{comment}\n"));
    proptest::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn b12_what_else_is_in_an_env_file_stays_byte_for_byte(
        before in proptest::collection::vec(env_line(), 0..6),
        after in proptest::collection::vec(env_line(), 0..6),
        old in "[a-z0-9:/@.]{0,12}",
        quote in prop_oneof![Just(""), Just("'"), Just("\"")],
        end in prop_oneof![Just("\n"), Just("\r\n")],
        value in "[^\\x00]{0,20}",
    ) {
        let joined = |lines: &[String]| lines.iter().map(|line| format!("{line}{end}")).collect::<String>();
        let (head, tail) = (format!("{}DB_URL=", joined(&before)), format!("{end}{}", joined(&after)));
        let text = format!("{head}{quote}{old}{quote}{tail}");
        if let Some(new) = replace(Format::Env, &text, "DB_URL", &value).unwrap() {
            prop_assert_eq!(current(Format::Env, &new, "DB_URL").unwrap(), value);
            prop_assert!(new.starts_with(&head) && new.ends_with(&tail), "{}", new);
        } else {
            prop_assert_eq!(old, value);
        }
    }

    #[test]
    fn b12_what_else_is_in_a_toml_file_stays_byte_for_byte(
        before in toml_text(), after in toml_text(), old in "[a-z0-9:/@.]{0,12}", value in "\\PC{0,20}",
    ) {
        let unique = format!("{before}{after}");
        let keys: Vec<_> = unique.lines().filter_map(|line| line.split_once("x = ").map(|(key, _)| key)).collect();
        prop_assume!(keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key)));
        let text = format!("{before}url = '{old}' # c\n{after}");
        let Some(new) = replace(Format::Toml, &text, "url", &value).unwrap() else { return Ok(()) };
        prop_assert_eq!(current(Format::Toml, &new, "url").unwrap(), value);
        let head = format!("{before}url = ");
        prop_assert!(new.starts_with(&head));
        let tail = format!(" # c\n{after}");
        prop_assert!(new.ends_with(&tail));
    }

    #[test]
    fn b12_json_and_yaml_take_any_value(value in "\\PC{0,20}", old in "[a-z]{1,5}", quote in prop_oneof![Just(""), Just("'"), Just("\"")]) {
        let json = format!("{{\"a\": [1], \"b\": {{\"c\": \"{old}\"}} }}");
        if let Some(new) = replace(Format::Json, &json, "b.c", &value).unwrap() {
            let kept = new.starts_with("{\"a\": [1], \"b\": {\"c\": ") && new.ends_with("} }");
            prop_assert!(kept, "{}", new);
            prop_assert_eq!(current(Format::Json, &new, "b.c").unwrap(), value.clone());
        }
        let yaml = format!("a: [1]\nb:\n  c: {quote}x{old}{quote} # c\nd: 'e'\n");
        if let Some(new) = replace(Format::Yaml, &yaml, "b.c", &value).unwrap() {
            prop_assert!(new.starts_with("a: [1]\nb:\n  c: ") && new.ends_with(" # c\nd: 'e'\n"));
            prop_assert_eq!(current(Format::Yaml, &new, "b.c").unwrap(), value);
        }
    }
}
