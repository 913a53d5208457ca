//! Asks with the stock provider for Rust. Its first line is {url, token, way, root}; each further one is a list of
//! {flag, type, fallback, context}, which is answered with a list.

use std::{error::Error, time::Duration};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use open_feature::{Client, EvaluationContext, EvaluationDetails, EvaluationError, EvaluationErrorCode, FlagMetadataValue, OpenFeature};
use open_feature_ofrep::{OfrepOptions, OfrepProvider};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

const LIMIT: Duration = Duration::from_secs(5);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut lines = BufReader::new(stdin()).lines();
    let first = lines.next_line().await?.ok_or("it is told nothing")?;
    let client = client(&serde_json::from_str(&first)?).await?;
    println!("\"asks\"");
    while let Some(line) = lines.next_line().await? {
        let mut answers = Vec::new();
        for ask in serde_json::from_str::<Vec<Value>>(&line)? {
            answers.push(answer(&client, &ask).await?);
        }
        println!("{}", Value::from(answers));
    }
    Ok(())
}

async fn client(said: &Value) -> Result<Client> {
    if said["way"] != "ofrep" {
        return Err(format!("it asks by ofrep only, not by {}", said["way"]).into());
    }
    let mut headers = HeaderMap::new();
    if let Some(token) = said["token"].as_str() {
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}"))?);
    }
    let options = OfrepOptions {
        base_url: text(&said["url"])?,
        headers,
        connect_timeout: LIMIT,
        cert_path: said["root"].as_str().map(str::to_owned),
    };
    let mut openfeature = OpenFeature::default();
    openfeature.set_provider(OfrepProvider::new(options).await?).await;
    Ok(openfeature.create_client())
}

async fn answer(client: &Client, ask: &Value) -> Result<Value> {
    let (flag, context) = (text(&ask["flag"])?, context(&ask["context"])?);
    let told = match ask["type"].as_str() {
        Some("boolean") => client.get_bool_details(&flag, Some(&context), None).await.map(found),
        Some("number") => client.get_float_details(&flag, Some(&context), None).await.map(found),
        Some("string") => client.get_string_details(&flag, Some(&context), None).await.map(found),
        _ => return Err(format!("no type of a flag: {}", ask["type"]).into()),
    };
    Ok(told.unwrap_or_else(|error| missed(&error, &ask["fallback"])))
}

fn context(fields: &Value) -> Result<EvaluationContext> {
    let mut context = EvaluationContext::default();
    for (name, value) in fields.as_object().ok_or("the context is no object")? {
        let value = text(value)?;
        context = if name == "targetingKey" { context.with_targeting_key(value) } else { context.with_custom_field(name, value) };
    }
    Ok(context)
}

fn found<T: Into<Value>>(told: EvaluationDetails<T>) -> Value {
    let metadata: Map<String, Value> = told.flag_metadata.values.into_iter().map(|(name, value)| (name, plain(value))).collect();
    json!({ "value": told.value.into(), "variant": told.variant, "reason": told.reason.map(|reason| reason.to_string()), "metadata": metadata })
}

fn plain(value: FlagMetadataValue) -> Value {
    match value {
        FlagMetadataValue::Bool(value) => value.into(),
        FlagMetadataValue::Int(value) => value.into(),
        FlagMetadataValue::Float(value) => value.into(),
        FlagMetadataValue::String(value) => value.into(),
    }
}

/// The SDK for Rust has no fallback: an application takes its own where it is given an error.
fn missed(error: &EvaluationError, fallback: &Value) -> Value {
    let code = match &error.code {
        EvaluationErrorCode::General(_) => "GENERAL".to_owned(),
        code => code.to_string(),
    };
    json!({ "value": fallback, "reason": "ERROR", "error": code })
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().ok_or_else(|| format!("no text: {value}"))?.to_owned())
}
