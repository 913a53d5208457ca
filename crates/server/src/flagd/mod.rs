//! flagd's own protocols, by gRPC on the same port: for its providers, which ask it or evaluate what it tells them.

mod evaluation;
mod rules;
mod sync;
mod wire;

use axum::{
    Router,
    body::Body,
    extract::{FromRef, Request, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use cutover_api::Code;
use futures_util::Stream;
use prost_types::{ListValue, Struct, Value as Field, value::Kind};
use serde_json::{Map, Value};
use tonic::{Status, server::Grpc};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::{
    front::Front,
    house::MOST_BODY,
    ofrep::Said,
    problem::{Refusal, status},
};

/// Where clients ask.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S>
where
    Front: FromRef<S>,
{
    let sync = |method: &str| format!("/flagd.sync.v1.FlagSyncService/{method}");
    let router = Router::new()
        .route(&sync("SyncFlags"), streaming(sync::flags))
        .route(&sync("FetchAllFlags"), unary(sync::all))
        .route(&sync("GetMetadata"), unary(sync::metadata));
    let services = ["flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service"];
    services.into_iter().fold(router, |router, service| {
        let at = |method: &str| format!("/{service}/{method}");
        router
            .route(&at("ResolveBoolean"), unary(evaluation::boolean))
            .route(&at("ResolveString"), unary(evaluation::text))
            .route(&at("ResolveInt"), unary(|front, asked| evaluation::none(front, asked, "an integer")))
            .route(&at("ResolveFloat"), unary(|front, asked| evaluation::none(front, asked, "a number")))
            .route(&at("ResolveObject"), unary(|front, asked| evaluation::none(front, asked, "an object")))
            .route(&at("ResolveAll"), unary(evaluation::all))
            .route(&at("EventStream"), streaming(evaluation::events))
    })
}

/// Whether this is a request by gRPC, whose refusals have a form of their own.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A refusal in gRPC's form: an answer whose head says all.
pub(crate) fn refuse(refusal: &Refusal) -> Response {
    let status = match refusal.code {
        // A method that there is none of.
        Code::NotFound | Code::MethodNotAllowed => Status::unimplemented(refusal.text()),
        code => Status::new(code_of(status(code)), refusal.text()),
    };
    let mut response = status.into_http::<Body>();
    response.extensions_mut().insert(Said);
    response
}

fn code_of(status: StatusCode) -> tonic::Code {
    match status {
        StatusCode::UNAUTHORIZED => tonic::Code::Unauthenticated,
        StatusCode::FORBIDDEN => tonic::Code::PermissionDenied,
        StatusCode::REQUEST_TIMEOUT => tonic::Code::DeadlineExceeded,
        StatusCode::SERVICE_UNAVAILABLE => tonic::Code::Unavailable,
        StatusCode::PAYLOAD_TOO_LARGE => tonic::Code::ResourceExhausted,
        status if status.is_client_error() => tonic::Code::InvalidArgument,
        _ => tonic::Code::Internal,
    }
}

/// A method that is answered once.
fn unary<S, Asked, Answer, Answering>(answer: impl Fn(Front, Asked) -> Answering + Copy + Send + Sync + 'static) -> MethodRouter<S>
where
    Answering: Future<Output = Result<Answer, Status>> + Send,
    S: Clone + Send + Sync + 'static,
    Front: FromRef<S>,
    Asked: prost::Message + Default + 'static,
    Answer: prost::Message + 'static,
{
    post(move |State(front): State<Front>, request: Request| async move {
        let answer = move |asked: tonic::Request<Asked>| {
            let answer = answer(front.clone(), asked.into_inner());
            async { answer.await.map(tonic::Response::new) }
        };
        grpc::<Answer, Asked>().unary(service_fn(answer), request).await.map(Body::new).into_response()
    })
}

/// A method that is answered again and again.
fn streaming<S, Asked, Answer, Answers>(
    answers: impl Fn(Front, Asked) -> Result<Answers, Status> + Copy + Send + Sync + 'static,
) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Front: FromRef<S>,
    Asked: prost::Message + Default + 'static,
    Answer: prost::Message + 'static,
    Answers: Stream<Item = Result<Answer, Status>> + Send + 'static,
{
    post(move |State(front): State<Front>, request: Request| async move {
        let answer = move |asked: tonic::Request<Asked>| {
            let answers = answers(front.clone(), asked.into_inner()).map(tonic::Response::new);
            async { answers }
        };
        grpc::<Answer, Asked>().server_streaming(service_fn(answer), request).await.map(Body::new).into_response()
    })
}

fn grpc<Answer, Asked>() -> Grpc<ProstCodec<Answer, Asked>>
where
    Asked: prost::Message + Default + 'static,
    Answer: prost::Message + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(MOST_BODY)
}

/// Why a stream ends with the server: some clients come back after an error only.
fn closing() -> Status {
    Status::unavailable("the server is closing")
}

/// The same in JSON. A number that JSON has no form for is left out.
fn json(fields: Struct) -> Map<String, Value> {
    fields.fields.into_iter().map(|(name, field)| (name, json_value(field))).collect()
}

fn json_value(field: Field) -> Value {
    match field.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => flag.into(),
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json_value).collect(),
        Some(Kind::StructValue(fields)) => Value::Object(json(fields)),
    }
}

/// The same in gRPC's form.
fn message(fields: Map<String, Value>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name, field(value))).collect() }
}

fn field(value: Value) -> Field {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(field).collect() }),
        Value::Object(fields) => Kind::StructValue(message(fields)),
    };
    Field { kind: Some(kind) }
}
