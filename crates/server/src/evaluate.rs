//! What is told to whoever asks for flags, by whatever protocol: one answer, and what is taken down of who asks.

use std::time::Duration;

use cutover_api::TrialRequest;
use cutover_core::clients::{self, Context, Evaluation, FlagError, Flags, Reason, Renewal, Who};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    front::{Front, View},
    traces,
};

/// The longest name of an instance that is taken down.
pub(crate) const MOST_NAME: usize = 200;

/// What a client says of itself. Everything may be missing.
#[derive(Debug, Default)]
pub(crate) struct Asker(pub(crate) Map<String, Value>);

impl Asker {
    /// The database that it is connected to, as it knows it.
    fn database(&self) -> Option<&str> {
        self.text("database")
    }

    /// Who asks, as it can be written down: an instance, or whoever it is that the context is about.
    fn name(&self) -> String {
        let who = self.text("instance").or_else(|| self.text("targetingKey")).unwrap_or("unnamed");
        who.chars().filter(|c| !c.is_control()).take(MOST_NAME).collect()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }
}

/// A flag's value, for one context.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Evaluated {
    pub(crate) key: String,
    pub(crate) value: FlagValue,
    pub(crate) variant: String,
    /// TARGETING_MATCH, SPLIT where it was decided by the key, or UNKNOWN where the server has lost touch with its journal. Never STATIC, which clients cache.
    #[schema(value_type = String)]
    pub(crate) reason: Reason,
    /// Flat: strings, numbers and booleans.
    #[schema(value_type = Object)]
    pub(crate) metadata: Map<String, Value>,
}

/// A boolean or a string.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(crate) enum FlagValue {
    Flag(bool),
    Text(String),
}

/// Why there is no value, for a program and for a person.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) error: FlagError,
    pub(crate) details: String,
}

/// Evaluates one flag. One about writes says yes, once, to whoever shows the word of a trial and is granted it.
///
/// # Errors
/// See [`FlagError`].
pub(crate) async fn one(front: &Front, key: &str, asker: &Asker, arrived: Instant) -> Result<Evaluated, Unanswered> {
    let (lease, view) = present(front, asker, arrived);
    let flags = front.flags(&view);
    let database = asker.database();
    let evaluation = flags.evaluate(key, Context { database, key: asker.text("targetingKey") });
    let evaluation = evaluation.map_err(|error| {
        let details = match error {
            FlagError::NotFound => format!("no flag is called `{key}` here; the flags are {}", flags.names().join(", ")),
            FlagError::KeyMissing => format!("where `{key}` leads depends on whose read it is: give a `targetingKey`"),
        };
        Unanswered { error, details }
    })?;
    let evaluation = match (asker.text("trial"), database, flags.allowing(key)) {
        (Some(trial), Some(database), Some(allowed)) if evaluation.why.is_some() => {
            let asked = TrialRequest { trial: trial.to_owned(), instance: asker.name(), database: database.to_owned() };
            if front.try_write(&asked).await { allowed } else { evaluation }
        }
        _ => evaluation,
    };
    Ok(evaluated(key, evaluation, asker, of_flag(&flags, key, metadata(&flags, &view, lease))))
}

/// Evaluates all flags; their metadata is [`metadata`].
pub(crate) fn all(flags: &Flags<'_>, asker: &Asker, metadata: &Map<String, Value>) -> Vec<Evaluated> {
    let context = Context { database: asker.database(), key: asker.text("targetingKey") };
    let evaluate = |key: String| {
        let evaluation = flags.evaluate(&key, context).ok()?;
        Some(evaluated(&key, evaluation, asker, of_flag(flags, &key, metadata.clone())))
    };
    flags.names().into_iter().filter_map(evaluate).collect()
}

/// Takes down that an instance is there, and where it writes; and says by which view it is to be answered.
pub(crate) fn present(front: &Front, asker: &Asker, arrived: Instant) -> (Duration, View) {
    let name = asker.name();
    let database = asker.database();
    let key = format!("asks {name} {}", database.unwrap_or_default().chars().take(MOST_NAME).collect::<String>());
    let place = database.and_then(|database| front.now().places.find(database));
    let renewal = Renewal { key: &key, name: &name, who: Who::Asks { place }, until_ms: 0 };
    front.lend(&renewal, arrived).unwrap_or_else(|_| (Duration::ZERO, front.now()))
}

/// What is said beside every value.
pub(crate) fn metadata(flags: &Flags<'_>, view: &View, lease: Duration) -> Map<String, Value> {
    let until = SignedDuration::try_from(lease).ok().and_then(|lease| Timestamp::now().checked_add(lease).ok());
    let mut metadata = standing(flags, view);
    metadata.insert("leaseExpiresAt".to_owned(), until.map(|until| until.to_string()).unwrap_or_default().into());
    metadata
}

/// How things stand.
pub(crate) fn standing(flags: &Flags<'_>, view: &View) -> Map<String, Value> {
    let fields = json!({
        "flagSetId": flags.cutover,
        "contextId": flags.cutover,
        "version": view.version().to_string(),
        "epoch": flags.route.epoch,
        "stage": flags.stage(),
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}

/// A table with a shadow has a stage of its own, and an epoch.
fn of_flag(flags: &Flags<'_>, key: &str, mut metadata: Map<String, Value>) -> Map<String, Value> {
    if let Some(table) = flags.read_of(key).and_then(|unit| unit.table.as_ref()) {
        metadata.insert("epoch".to_owned(), table.epoch.into());
        metadata.insert("stage".to_owned(), table.stage.as_str().into());
    }
    metadata
}

fn evaluated(key: &str, evaluation: Evaluation, asker: &Asker, mut metadata: Map<String, Value>) -> Evaluated {
    if let Some(why) = evaluation.why {
        metadata.insert("why".to_owned(), why.into());
    }
    let value = match evaluation.value {
        clients::Value::Flag(flag) => FlagValue::Flag(flag),
        clients::Value::Text(text) => FlagValue::Text(text),
    };
    let evaluated = Evaluated { key: key.to_owned(), value, variant: evaluation.variant, reason: evaluation.reason, metadata };
    traces::evaluated(asker.text("targetingKey"), &evaluated);
    evaluated
}
