//! From differences and statements to findings: what is used blocks, what may be used warns, the rest is a note.

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::{Side, plan::Accept};

use super::{
    super::{
        finding::{Draft, Fix, Severity},
        text::count,
    },
    difference::{Concern, Difference, Remedy},
    statements::{Statement, Statements, Trial},
};

/// Differences that get a finding of their own.
const ALONE: usize = 40;

/// How a statement meets a difference, the worst last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meeting {
    /// It may be concerned.
    Perhaps(&'static str),
    /// It uses what differs.
    Uses,
    /// It stops the stream.
    StopsStream,
    /// The other side refuses it.
    Fails(String),
}

/// What the findings are made from.
pub(super) struct Evidence<'a> {
    /// The side whose clients are to be served by the other.
    pub(super) here: Side,
    pub(super) differences: Vec<Difference>,
    pub(super) statements: &'a Statements,
    pub(super) accepted: &'a [Accept],
    /// Whose failing statements block.
    pub(super) application_roles: Vec<String>,
}

impl Evidence<'_> {
    pub(super) fn drafts(&self) -> Vec<Draft> {
        let mut drafts = Vec::new();
        let mut explained = BTreeSet::new();
        let (mut unused, mut many) = (Vec::new(), Vec::new());
        for difference in &self.differences {
            let mut meetings: Vec<(Meeting, &Statement)> =
                self.statements.all.iter().filter_map(|statement| Some((meets(&difference.concern, statement)?, statement))).collect();
            meetings.sort_by(|(one, _), (other, _)| other.cmp(one));
            explained
                .extend(meetings.iter().filter(|(meeting, _)| matches!(meeting, Meeting::Fails(_))).map(|(_, statement)| statement.id));
            let severity = self.severity(difference, meetings.first().map(|(meeting, _)| meeting));
            match self.reason(&difference.name) {
                Some(_) if self.is_unbearable(difference) => drafts.push(self.draft(self.blocking(), difference, &meetings)),
                Some(reason) => drafts.push(accepted(self.there(), &difference.what, reason)),
                None if severity == Severity::Info => unused.push(difference.what.clone()),
                None if drafts.len() >= ALONE && severity == Severity::Warning => many.push(difference.what.clone()),
                None => drafts.push(self.draft(severity, difference, &meetings)),
            }
        }
        drafts.extend(self.grouped(Severity::Warning, "more differences that clients may meet", many));
        drafts.extend(self.grouped(Severity::Info, "differences that no statement of pg_stat_statements meets", unused));
        drafts.extend(self.failing(&explained));
        drafts.extend(self.useless_acceptances());
        drafts.push(self.summary());
        drafts
    }

    fn there(&self) -> Side {
        self.here.other()
    }

    /// Nothing keeps anybody from the way back: there it is told and no more.
    fn blocking(&self) -> Severity {
        if self.here == Side::Source { Severity::Error } else { Severity::Warning }
    }

    fn severity(&self, difference: &Difference, worst: Option<&Meeting>) -> Severity {
        match worst {
            Some(Meeting::Perhaps(_)) => Severity::Warning,
            Some(_) => self.blocking(),
            None if self.statements.doubt.is_some() || difference.concern == Concern::Untold => Severity::Warning,
            None => Severity::Info,
        }
    }

    /// Whether clients write to a table whose rows the stream can't take there. That stops the switch, whoever bears it; the
    /// way back leaves out what has no place.
    fn is_unbearable(&self, difference: &Difference) -> bool {
        let Concern::Gone { object, stream: true } = &difference.concern else { return false };
        let table = object.whole();
        self.here == Side::Source
            && self.statements.all.iter().any(|statement| statement.text.writes_to(&table) || statement.text.removes_from(&table))
    }

    fn draft(&self, severity: Severity, difference: &Difference, meetings: &[(Meeting, &Statement)]) -> Draft {
        let mut lines = vec![match self.reason(&difference.name) {
            Some(reason) => format!("accepted ({reason}), but clients write there, and the first such row stops the stream"),
            None => format!("its name for [[compatibility.accept]]: {}", difference.name),
        }];
        lines.extend(meetings.iter().map(|(meeting, statement)| {
            let how = match meeting {
                Meeting::Perhaps(why) => format!(" ({why})"),
                Meeting::Uses => String::new(),
                Meeting::StopsStream => " (its row stops the stream)".to_owned(),
                Meeting::Fails(said) => format!(" ({said})"),
            };
            format!("{}{how}", statement.describe())
        }));
        match (&self.statements.doubt, meetings.is_empty()) {
            (Some(doubt), true) => lines.push(format!("whether clients use it can't be told: {doubt}")),
            (None, true) => lines.push("whether clients use it can't be told from what they say".to_owned()),
            _ => {}
        }
        let fix = match &difference.remedy {
            Remedy::Sql(sql) => Fix::sql(self.there(), [sql]),
            Remedy::Advice(advice) => Fix::advice(advice),
        };
        Draft::new(severity, self.there(), &difference.what).evidence(lines).fix(fix)
    }

    fn grouped(&self, severity: Severity, noun: &str, lines: Vec<String>) -> Option<Draft> {
        (!lines.is_empty()).then(|| Draft::new(severity, self.there(), format!("{}: {noun}", lines.len())).evidence(lines))
    }

    /// Statements that fail there, and that no difference above accounts for: most often the server's own have changed.
    fn failing(&self, explained: &BTreeSet<i64>) -> Vec<Draft> {
        let mut by_answer: BTreeMap<(&str, bool), Vec<&Statement>> = BTreeMap::new();
        let mut drafts = Vec::new();
        for statement in self.statements.all.iter().filter(|statement| !explained.contains(&statement.id)) {
            let Trial::Fails(said) = &statement.trial else { continue };
            match self.reason(&statement.name()) {
                Some(reason) => drafts.push(accepted(self.there(), &format!("{} fails: {said}", statement.name()), reason)),
                None => by_answer.entry((said, self.application_roles.contains(&statement.role))).or_default().push(statement),
            }
        }
        drafts.extend(by_answer.into_iter().map(|((said, of_application), statements)| {
            let number = if statements.len() == 1 {
                "1 statement that works".to_owned()
            } else {
                format!("{} statements that work", statements.len())
            };
            let message = format!("{number} at the {} can't be prepared at the {}: {said}", self.here, self.there());
            let severity = if of_application { self.blocking() } else { Severity::Warning };
            let advice = "change the statement so that both servers take it, or give the other side what it names";
            Draft::new(severity, self.there(), message)
                .evidence(statements.iter().map(|statement| statement.describe()))
                .fix(Fix::advice(advice))
        }));
        drafts
    }

    /// What is accepted and does not differ: a word that was misspelt keeps nobody safe.
    fn useless_acceptances(&self) -> Option<Draft> {
        let fails =
            |name: &str| self.statements.all.iter().any(|statement| matches!(statement.trial, Trial::Fails(_)) && statement.name() == name);
        let known = |name: &str| self.differences.iter().any(|difference| difference.name == name) || fails(name);
        let useless: Vec<&str> = self.accepted.iter().map(|accept| accept.name.as_str()).filter(|name| !known(name)).collect();
        let message = "[[compatibility.accept]] names what does not differ";
        (!useless.is_empty()).then(|| Draft::info(self.there(), message).evidence(useless))
    }

    fn summary(&self) -> Draft {
        let tried = |trial: fn(&Trial) -> bool| self.statements.all.iter().filter(|statement| trial(&statement.trial)).count();
        let message = format!(
            "seen by a client of the {}: {} in what the {} defines; of {} that clients said, {} can be prepared there, {} can't, {} could not be tried",
            self.here,
            count(self.differences.len(), "difference"),
            self.there(),
            count(self.statements.all.len(), "statement"),
            tried(|trial| *trial == Trial::Works),
            tried(|trial| matches!(trial, Trial::Fails(_))),
            tried(|trial| *trial == Trial::Unknown),
        );
        Draft::info(self.there(), message).evidence(self.statements.doubt.iter().chain(&self.statements.left_out).cloned())
    }

    fn reason(&self, name: &str) -> Option<&str> {
        self.accepted.iter().find(|accept| accept.name == name).map(|accept| accept.reason.as_str())
    }
}

fn accepted(side: Side, what: &str, reason: &str) -> Draft {
    Draft::info(side, format!("accepted: {what}")).evidence([format!("reason: {reason}")])
}

/// Whether and how a statement meets a difference.
fn meets(concern: &Concern, statement: &Statement) -> Option<Meeting> {
    let text = &statement.text;
    let fails = match &statement.trial {
        Trial::Fails(said) => Some(Meeting::Fails(said.clone())),
        _ => None,
    };
    let works = statement.trial == Trial::Works;
    let uses = fails.clone().unwrap_or(Meeting::Uses);
    match concern {
        Concern::Gone { object, stream } => {
            let table = object.whole();
            if text.names(object) && !works {
                Some(uses)
            } else if *stream && (text.writes_to(&table) || text.removes_from(&table)) {
                Some(Meeting::StopsStream)
            } else {
                (object.column.is_some() && text.takes_all_of(&table)).then_some(Meeting::Perhaps("takes all columns"))
            }
        }
        Concern::Changed(object) if text.names(object) => Some(uses),
        Concern::Changed(object) => (object.column.is_some() && text.takes_all_of(object)).then_some(Meeting::Perhaps("takes all columns")),
        Concern::Required(column) => {
            let (table, name) = (column.whole(), column.column.as_deref().unwrap_or_default());
            match (text.adds_to(&table), text.says(name)) {
                (true, false) if text.adds_by_position_to(&table) => Some(Meeting::Perhaps("gives columns by their position")),
                (true, false) => Some(Meeting::Uses),
                (_, true) if text.writes_to(&table) => Some(Meeting::Perhaps("may give it a NULL")),
                _ => None,
            }
        }
        Concern::Computed(column) => (text.writes_to(&column.whole()) && text.names(column) && !works).then_some(uses),
        Concern::NeverNull(column) => {
            (text.writes_to(&column.whole()) && text.names(column)).then_some(Meeting::Perhaps("may give it a NULL"))
        }
        Concern::Rule(table) => text.writes_to(table).then_some(Meeting::Perhaps("writes there")),
        Concern::Right(right) => {
            let meant = match right.right.as_str() {
                _ if statement.role != right.role => false,
                "INSERT" => text.adds_to(&right.object),
                "UPDATE" => text.writes_to(&right.object) && text.says("update"),
                "DELETE" => text.removes_from(&right.object),
                _ if right.object.name.is_empty() => text.says(&right.object.schema) && !works,
                _ => text.names(&right.object),
            };
            meant.then_some(uses)
        }
        Concern::Untold => None,
    }
}
