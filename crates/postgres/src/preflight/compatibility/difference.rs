//! What the clients' side defines and the other lacks or has otherwise.

use std::collections::BTreeMap;

use super::{
    definitions::{Column, Constraint, Definitions, Function, Relation},
    object::Object,
    rights::Right,
};
use crate::names::ident;

/// One difference.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Its name, for people and for `accept`.
    pub(super) name: String,
    /// What differs, and what follows from it.
    pub(super) what: String,
    /// Which statements meet it.
    pub(super) concern: Concern,
    pub(super) remedy: Remedy,
}

/// Which statements meet a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// It is not there: what names it fails. Of a table that is replicated, the stream fails at its rows as well.
    Gone { object: Object, stream: bool },
    /// It is there and is something else: what names it may fail or see other values.
    Changed(Object),
    /// A row can't be added without a value for this column.
    Required(Object),
    /// No statement may give this column a value.
    Computed(Object),
    /// No statement may leave this column without a value.
    NeverNull(Object),
    /// A rule that rows written so far need not have kept.
    Rule(Object),
    /// A role lacks a right.
    Right(Right),
    /// No word of a statement tells.
    Untold,
}

/// How to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// A statement for the other side.
    Sql(String),
    Advice(String),
}

/// All differences, from the point of view of a client of `here` that is pointed at `there`.
pub(super) fn differences(here: &Definitions, there: &Definitions) -> Vec<Difference> {
    let mut found = Vec::new();
    for (object, relation) in &here.relations {
        match there.relations.get(object) {
            None => found.push(relation_gone(object, relation, here, there)),
            Some(other) => relation_changed(object, relation, other, &mut found),
        }
    }
    functions(&here.functions, &there.functions, &mut found);
    types(here, there, &mut found);
    for (name, object) in here.others.iter().filter(|(name, _)| !there.others.contains_key(*name)) {
        let concern = object.clone().map_or(Concern::Untold, |object| Concern::Gone { object, stream: false });
        let remedy = Remedy::Advice("create it there again".to_owned());
        found.push(Difference { name: name.clone(), what: format!("{name} is missing"), concern, remedy });
    }
    found
}

fn relation_gone(object: &Object, relation: &Relation, here: &Definitions, there: &Definitions) -> Difference {
    let noun = relation.noun();
    let names =
        |relation: &Relation| relation.columns.iter().map(|column| (column.name.clone(), column.type_name.clone())).collect::<Vec<_>>();
    let alike = |(name, other): &(&Object, &Relation)| {
        !here.relations.contains_key(name) && other.kind == relation.kind && !other.columns.is_empty() && names(other) == names(relation)
    };
    let renamed = there.relations.iter().find(alike).map(|(name, _)| name);
    let (what, remedy) = match renamed {
        Some(new) => {
            let verb = noun.replace("materialised", "materialized").to_uppercase();
            let rename = if new.schema == object.schema {
                Remedy::Sql(format!("ALTER {verb} {} RENAME TO {};", new.quoted(), ident(&object.name)))
            } else {
                Remedy::Sql(format!("ALTER {verb} {} SET SCHEMA {};", new.quoted(), ident(&object.schema)))
            };
            (format!("{noun} {object} is missing; {new} has the same columns, so it seems to be renamed"), rename)
        }
        None => {
            let advice = format!("keep the {noun} until no client uses it any more, or put a view of that name in its place");
            (format!("{noun} {object} is missing"), Remedy::Advice(advice))
        }
    };
    Difference { name: object.to_string(), what, concern: Concern::Gone { object: object.clone(), stream: relation.is_table() }, remedy }
}

fn relation_changed(object: &Object, here: &Relation, there: &Relation, found: &mut Vec<Difference>) {
    if here.noun() != there.noun() {
        found.push(Difference {
            name: object.to_string(),
            what: format!("{object} is a {}, and a {} there", here.noun(), there.noun()),
            concern: if here.is_table() {
                Concern::Gone { object: object.clone(), stream: true }
            } else {
                Concern::Changed(object.clone())
            },
            remedy: Remedy::Advice("let it stay what it is until no client uses it any more".to_owned()),
        });
        return;
    }
    if there.row_security && !here.row_security {
        found.push(Difference {
            name: format!("{object} row security"),
            what: format!("row security is enabled on {object} there only: clients that no policy lets see a row do not see it"),
            concern: Concern::Changed(object.clone()),
            remedy: Remedy::Sql(format!("ALTER TABLE {} DISABLE ROW LEVEL SECURITY;", object.quoted())),
        });
    }
    for column in &here.columns {
        match there.column(&column.name) {
            None => found.push(column_gone(object, column, here, there)),
            Some(other) => found.extend(column_changed(&object.with(&column.name), here, column, other)),
        }
    }
    let added = there.columns.iter().filter(|column| here.column(&column.name).is_none());
    found.extend(added.filter(|column| here.is_table() && column.must_be_named()).map(|column| required(&object.with(&column.name))));
    let known = |rule: &Constraint| {
        here.constraints.iter().any(|other| other.name == rule.name && other.kind == rule.kind || same_rule(other, rule))
    };
    found.extend(there.constraints.iter().filter(|rule| !known(rule)).map(|rule| new_rule(object, rule)));
}

fn column_gone(object: &Object, column: &Column, here: &Relation, there: &Relation) -> Difference {
    let column_name = object.with(&column.name);
    let candidates: Vec<&Column> =
        there.columns.iter().filter(|other| here.column(&other.name).is_none() && other.type_name == column.type_name).collect();
    let in_its_place = candidates.iter().find(|other| other.position == column.position);
    let renamed = in_its_place.or(if candidates.len() == 1 { candidates.first() } else { None });
    let (what, remedy) = match renamed {
        Some(new) => {
            let sql = format!("ALTER TABLE {} RENAME COLUMN {} TO {};", object.quoted(), ident(&new.name), ident(&column.name));
            (format!("column {column_name} is missing; {} has the same type, so it seems to be renamed", new.name), Remedy::Sql(sql))
        }
        None => {
            let advice = "keep the column until no client uses it any more: leave its DROP for after `cutover retire`, and make the copy \
                again, since a column that is added now is empty";
            (format!("column {column_name} is missing"), Remedy::Advice(advice.to_owned()))
        }
    };
    Difference {
        name: column_name.to_string(),
        what,
        // A generated column is not sent.
        concern: Concern::Gone { object: column_name, stream: here.is_table() && column.generated.is_empty() },
        remedy,
    }
}

fn column_changed(name: &Object, relation: &Relation, here: &Column, there: &Column) -> Vec<Difference> {
    let filled = if relation.is_table() { filled_otherwise(name, here, there) } else { None };
    [type_changed(name, here, there), filled, sorted_otherwise(name, here, there)].into_iter().flatten().collect()
}

fn type_changed(name: &Object, here: &Column, there: &Column) -> Option<Difference> {
    if here.type_name == there.type_name || holds_all_of(&here.type_name, &there.type_name) {
        return None;
    }
    Some(Difference {
        name: format!("{name} type"),
        what: format!(
            "column {name} is {} and {} there: values may not fit, and clients get them in another format",
            here.type_name, there.type_name
        ),
        concern: Concern::Changed(name.clone()),
        remedy: Remedy::Advice(
            "keep the type until no client uses the old one any more: add a column of the new type beside it".to_owned(),
        ),
    })
}

/// What a row gets in this column, or may not get.
fn filled_otherwise(name: &Object, here: &Column, there: &Column) -> Option<Difference> {
    let alter = |what: &str| format!("ALTER TABLE {} ALTER COLUMN {} {what};", name.quoted(), ident(&here.name));
    if here.takes_values() && !there.takes_values() {
        let remedy = if there.identity == "a" {
            Remedy::Sql(alter("SET GENERATED BY DEFAULT"))
        } else {
            Remedy::Advice("let it be generated only after no client writes it any more".to_owned())
        };
        let what = format!("column {name} is generated there, so no statement may give it a value");
        return Some(Difference { name: name.to_string(), what, concern: Concern::Computed(name.clone()), remedy });
    }
    if there.must_be_named() && !here.must_be_named() {
        return Some(required(name));
    }
    if there.not_null && !here.not_null {
        return Some(Difference {
            name: name.to_string(),
            what: format!("column {name} takes no NULL there: a row that has one stops the stream, and clients that write one fail"),
            concern: Concern::NeverNull(name.clone()),
            remedy: Remedy::Sql(alter("DROP NOT NULL")),
        });
    }
    if !here.identity.is_empty() || !there.identity.is_empty() || !differ(here.default.as_ref(), there.default.as_ref()) {
        return None;
    }
    let shown = |column: &Column| column.default.clone().unwrap_or_else(|| "none".to_owned());
    let set = here.default.as_ref().map_or_else(|| "DROP DEFAULT".to_owned(), |default| format!("SET DEFAULT {default}"));
    Some(Difference {
        name: format!("{name} default"),
        what: format!("the default of column {name} is {} and {} there", shown(here), shown(there)),
        concern: Concern::Rule(name.whole()),
        remedy: Remedy::Sql(alter(&set)),
    })
}

fn sorted_otherwise(name: &Object, here: &Column, there: &Column) -> Option<Difference> {
    if here.collation == there.collation || here.type_name != there.type_name {
        return None;
    }
    let shown = |column: &Column| column.collation.clone().unwrap_or_else(|| "none".to_owned());
    Some(Difference {
        name: format!("{name} collation"),
        what: format!("column {name} sorts by collation {} and by {} there", shown(here), shown(there)),
        concern: Concern::Changed(name.clone()),
        remedy: Remedy::Advice("see whether clients rely on the order, or on what counts as equal".to_owned()),
    })
}

/// A row that does not name it is refused, also one of the stream where only the other side has the column.
fn required(name: &Object) -> Difference {
    let column = ident(name.column.as_deref().unwrap_or_default());
    Difference {
        name: name.to_string(),
        what: format!("column {name} takes no NULL and has no default there: an INSERT that does not name it fails"),
        concern: Concern::Required(name.clone()),
        remedy: Remedy::Sql(format!("ALTER TABLE {} ALTER COLUMN {column} DROP NOT NULL;", name.quoted())),
    }
}

fn new_rule(object: &Object, rule: &Constraint) -> Difference {
    let noun = match rule.kind.as_str() {
        "c" => "CHECK",
        "f" => "foreign key",
        "x" => "exclusion constraint",
        _ => "unique index",
    };
    // Foreign keys are not looked at where changes are applied; what breaks them gets through, and clients fail.
    let stream = if rule.kind == "f" { "" } else { "; a row that breaks it stops the stream" };
    let name = format!("{object}.{}", rule.name);
    let sql = if rule.kind == "i" {
        format!("DROP INDEX {};", Object::new(&object.schema, &rule.name).quoted())
    } else {
        format!("ALTER TABLE {} DROP CONSTRAINT {};", object.quoted(), ident(&rule.name))
    };
    Difference {
        what: format!("{noun} {name} is there only: {}; writes that kept no such rule so far may fail{stream}", rule.definition),
        name,
        concern: Concern::Rule(object.clone()),
        remedy: Remedy::Sql(sql),
    }
}

fn functions(here: &BTreeMap<String, Function>, there: &BTreeMap<String, Function>, found: &mut Vec<Difference>) {
    for (name, function) in here {
        let noun = if function.procedure { "procedure" } else { "function" };
        let (what, concern) = match there.get(name) {
            None => (format!("{noun} {name} is missing"), Concern::Gone { object: function.object.clone(), stream: false }),
            Some(other) if other.result != function.result => {
                (format!("{noun} {name} returns {} and {} there", function.result, other.result), Concern::Changed(function.object.clone()))
            }
            Some(_) => continue,
        };
        let advice = "keep it until no client calls it any more; pg_get_functiondef() prints it".to_owned();
        found.push(Difference { name: name.clone(), what, concern, remedy: Remedy::Advice(advice) });
    }
}

fn types(here: &Definitions, there: &Definitions, found: &mut Vec<Difference>) {
    for (object, kind) in &here.types {
        let Some(other) = there.types.get(object) else {
            found.push(Difference {
                name: object.to_string(),
                what: format!("type {object} is missing"),
                concern: Concern::Gone { object: object.clone(), stream: false },
                remedy: Remedy::Advice("keep it until no client names it any more".to_owned()),
            });
            continue;
        };
        let lost: Vec<&str> = kind.labels.iter().filter(|label| !other.labels.contains(label)).map(String::as_str).collect();
        if !lost.is_empty() {
            found.push(Difference {
                name: object.to_string(),
                what: format!("type {object} has no label {} there: a row that has one stops the stream", lost.join(", ")),
                // Labels stand in strings and parameters.
                concern: Concern::Untold,
                remedy: Remedy::Sql(
                    lost.iter()
                        .map(|label| format!("ALTER TYPE {} ADD VALUE {};", object.quoted(), crate::names::literal(label)))
                        .collect::<Vec<_>>()
                        .join("\n"),
                ),
            });
        }
        if kind.made_of != other.made_of {
            found.push(Difference {
                name: object.to_string(),
                what: format!("type {object} is {} and {} there", kind.made_of, other.made_of),
                concern: Concern::Untold,
                remedy: Remedy::Advice("keep the type as it is until no client uses it any more".to_owned()),
            });
        }
    }
}

/// Two rules that say the same, whatever they are called and however a version prints them.
fn same_rule(one: &Constraint, other: &Constraint) -> bool {
    let said = |rule: &Constraint| {
        let text = match rule.kind.as_str() {
            // `CREATE UNIQUE INDEX name ON …`
            "i" => rule.definition.split_once(" ON ").map_or(rule.definition.as_str(), |(_, rest)| rest),
            _ => &rule.definition,
        };
        bare(text)
    };
    one.kind == other.kind && said(one) == said(other)
}

fn differ(one: Option<&String>, other: Option<&String>) -> bool {
    one.map(|text| bare(text)) != other.map(|text| bare(text))
}

/// An expression without what versions print differently.
fn bare(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '(' | ')')).collect()
}

/// Whether every value of a type is one of the other, and clients get it in the same format.
fn holds_all_of(from: &str, to: &str) -> bool {
    let length = |name: &str| -> Option<u64> {
        match name.strip_prefix("character varying") {
            Some("") => Some(u64::MAX),
            Some(rest) => rest.trim_matches(['(', ')']).parse().ok(),
            None => (name == "text").then_some(u64::MAX),
        }
    };
    matches!((length(from), length(to)), (Some(from), Some(to)) if from <= to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_text_is_no_difference() {
        assert!(holds_all_of("character varying(20)", "character varying(30)"));
        assert!(holds_all_of("character varying(20)", "text"));
        assert!(holds_all_of("text", "character varying"));
        for (from, to) in
            [("text", "character varying(20)"), ("integer", "bigint"), ("character(3)", "text"), ("text", "character varying(20)[]")]
        {
            assert!(!holds_all_of(from, to), "{from} {to}");
        }
    }

    #[test]
    fn rules_are_compared_by_what_they_say() {
        let rule =
            |name: &str, kind: &str, definition: &str| Constraint { name: name.into(), kind: kind.into(), definition: definition.into() };
        assert!(same_rule(&rule("a", "c", "CHECK ((x > 0))"), &rule("b", "c", "CHECK (x > 0)")));
        assert!(same_rule(
            &rule("a", "i", "CREATE UNIQUE INDEX a ON t USING btree (x)"),
            &rule("b", "i", "CREATE UNIQUE INDEX b ON t USING btree (x)")
        ));
        assert!(!same_rule(&rule("a", "c", "CHECK (x > 0)"), &rule("a", "c", "CHECK (x > 1)")));
    }
}
