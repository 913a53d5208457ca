//! `flagd.evaluation`: flags for providers that ask for each.

use std::time::Duration;

use cutover_core::clients::FlagError;
use futures_util::{Stream, stream};
use serde_json::{Map, json};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic::Status;

use super::{
    closing, json, message,
    wire::{
        AnyFlag, AnyValue, BooleanResponse, EventStreamResponse, Nothing, ResolveAllRequest, ResolveAllResponse, ResolveRequest,
        StringResponse,
    },
};
use crate::{
    evaluate::{self, Asker, Evaluated, FlagValue, Unanswered},
    front::{Front, Version, View},
};

/// How often a silent stream says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) async fn boolean(front: Front, asked: ResolveRequest) -> Result<BooleanResponse, Status> {
    let evaluated = one(&front, asked).await?;
    let FlagValue::Flag(value) = evaluated.value else { return Err(mismatch(&evaluated, "a boolean")) };
    let reason = evaluated.reason.as_str().to_owned();
    Ok(BooleanResponse { value: Some(value), reason, variant: Some(evaluated.variant), metadata: Some(message(evaluated.metadata)) })
}

pub(super) async fn text(front: Front, asked: ResolveRequest) -> Result<StringResponse, Status> {
    let evaluated = one(&front, asked).await?;
    let FlagValue::Text(value) = evaluated.value else { return Err(mismatch(&evaluated, "a text")) };
    let reason = evaluated.reason.as_str().to_owned();
    Ok(StringResponse { value: Some(value), reason, variant: Some(evaluated.variant), metadata: Some(message(evaluated.metadata)) })
}

/// No flag has a value of that type.
pub(super) async fn none(front: Front, asked: ResolveRequest, wanted: &str) -> Result<Nothing, Status> {
    Err(mismatch(&one(&front, asked).await?, wanted))
}

pub(super) async fn all(front: Front, asked: ResolveAllRequest) -> Result<ResolveAllResponse, Status> {
    let arrived = Instant::now();
    let asker = Asker(asked.context.map(json).unwrap_or_default());
    let (lease, view) = evaluate::present(&front, &asker, arrived);
    let flags = front.flags(&view);
    let metadata = evaluate::metadata(&flags, &view, lease);
    let all = evaluate::all(&flags, &asker, &metadata).into_iter().map(|evaluated| (evaluated.key.clone(), any(evaluated))).collect();
    front.metrics.seconds.observe(arrived.elapsed().as_secs_f64());
    Ok(ResolveAllResponse { flags: all, metadata: Some(message(metadata)) })
}

/// Tells whoever may keep flags that there are others.
pub(super) fn events(front: Front, _: Nothing) -> Result<impl Stream<Item = Result<EventStreamResponse, Status>>, Status> {
    let events = Events { views: front.subscribe(), closing: front.closing.clone(), told: None, front };
    Ok(stream::unfold(Some(events), |events| async move {
        let mut events = events?;
        match events.next().await {
            Some(event) => Some((Ok(event), Some(events))),
            None => Some((Err(closing()), None)),
        }
    }))
}

struct Events {
    front: Front,
    views: watch::Receiver<View>,
    closing: watch::Receiver<bool>,
    /// What was told; none before the first event.
    told: Option<Version>,
}

impl Events {
    /// None when everything ends.
    async fn next(&mut self) -> Option<EventStreamResponse> {
        if self.told.is_none() {
            self.told = Some(self.views.borrow_and_update().version());
            return Some(event("provider_ready", Map::new()));
        }
        let told = self.told;
        let news = async { self.views.wait_for(|view| Some(view.version()) != told).await.ok().map(|view| view.clone()) };
        let news = tokio::select! {
            news = timeout(HEARTBEAT, news) => news,
            _ = self.closing.wait_for(|closing| *closing) => return None,
        };
        let Ok(view) = news else { return Some(event("keep_alive", Map::new())) };
        let view = view?;
        self.told = Some(view.version());
        let changed = self.front.flags(&view).names().into_iter().map(|name| (name, json!({ "type": "update" }))).collect();
        Some(event("configuration_change", Map::from_iter([("flags".to_owned(), serde_json::Value::Object(changed))])))
    }
}

fn event(kind: &str, data: Map<String, serde_json::Value>) -> EventStreamResponse {
    EventStreamResponse { r#type: kind.to_owned(), data: Some(message(data)) }
}

async fn one(front: &Front, asked: ResolveRequest) -> Result<Evaluated, Status> {
    let arrived = Instant::now();
    let asker = Asker(asked.context.map(json).unwrap_or_default());
    let evaluated = evaluate::one(front, &asked.flag_key, &asker, arrived).await.map_err(|Unanswered { error, details }| match error {
        FlagError::NotFound => Status::not_found(details),
        FlagError::KeyMissing => Status::invalid_argument(details),
    });
    front.metrics.seconds.observe(arrived.elapsed().as_secs_f64());
    evaluated
}

/// This is how the protocol says that a type is another one.
fn mismatch(evaluated: &Evaluated, wanted: &str) -> Status {
    let is = if matches!(evaluated.value, FlagValue::Flag(_)) { "a boolean" } else { "a text" };
    Status::invalid_argument(format!("`{}` is {is}, and was asked for as {wanted}", evaluated.key))
}

fn any(evaluated: Evaluated) -> AnyFlag {
    let value = match evaluated.value {
        FlagValue::Flag(flag) => AnyValue::Flag(flag),
        FlagValue::Text(text) => AnyValue::Text(text),
    };
    let reason = evaluated.reason.as_str().to_owned();
    AnyFlag { reason, variant: Some(evaluated.variant), value: Some(value), metadata: Some(message(evaluated.metadata)) }
}
