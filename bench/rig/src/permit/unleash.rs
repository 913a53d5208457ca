//! Peer: Unleash's client, which evaluates the toggles that it holds.

use std::{hint::black_box, sync::Arc};

use anyhow::{Result, anyhow, bail, ensure};
use async_trait::async_trait;
use serde_json::json;
use unleash_api_client::{
    client::{Client, ClientBuilder, FeatureKey},
    context::Context,
    http::{Request, Response, Transport},
};
use unleash_types::client_features::ClientFeatures;

use super::{Answerer, DATABASE, KEYS, keys};

const NAME: &str = "unleash-api-client";

#[derive(Clone, Copy, Debug)]
enum Toggle {
    Writes,
    Read,
}

impl FeatureKey for Toggle {
    fn name(self) -> &'static str {
        match self {
            Self::Writes => "database-writes-enabled",
            Self::Read => "orders.database.read",
        }
    }
}

/// It is given its toggles once, and asks nobody.
struct Nobody;

#[async_trait]
impl Transport for Nobody {
    async fn execute(&self, request: Request) -> Result<Response> {
        bail!("nobody is to be asked, and it asks {}", request.url)
    }
}

pub(super) fn answerers() -> Result<Vec<Answerer>> {
    let client = ClientBuilder::default().disable_metric_submission();
    let client: Client<Toggle> = client.into_client_with_transport("http://127.0.0.1:9/", "bench", "bench", None, Arc::new(Nobody))?;
    client.memoize(toggles()?).map_err(|error| anyhow!("{error}"))?;
    let client = Arc::new(client);
    // Made beforehand; an application makes one for each request.
    let instance = Context { properties: [("database".to_owned(), DATABASE.to_owned())].into(), ..Context::default() };
    let customers: Vec<_> = keys().into_iter().map(|key| Context { user_id: Some(key), ..Context::default() }).collect();
    ensure!(client.is_enabled(Toggle::Writes, Some(&instance), false), "Unleash's client refuses writes");
    let (writes, reads) = (client.clone(), client);
    Ok(vec![
        Answerer {
            name: NAME,
            asked: "may this instance write",
            calls: Box::new(move |many| {
                for _ in 0..many {
                    black_box(writes.is_enabled(Toggle::Writes, Some(black_box(&instance)), false));
                }
            }),
        },
        Answerer {
            name: NAME,
            asked: "where does a read of this key go",
            calls: Box::new(move |many| {
                for at in 0..many as usize {
                    black_box(reads.is_enabled(Toggle::Read, Some(black_box(&customers[at % KEYS])), false));
                }
            }),
        },
    ])
}

fn toggles() -> Result<ClientFeatures> {
    let names = [DATABASE, "old", "old:5432", "old/shop", "old:5432/shop"];
    let writes = json!({ "name": "default", "constraints": [{ "contextName": "database", "operator": "IN", "values": names }] });
    let read = json!({ "name": "flexibleRollout", "parameters": { "stickiness": "userId", "groupId": "orders", "rollout": "50" } });
    let toggle = |name: &str, strategy| json!({ "name": name, "enabled": true, "strategies": [strategy] });
    let features = [toggle(Toggle::Writes.name(), writes), toggle(Toggle::Read.name(), read)];
    Ok(serde_json::from_value(json!({ "version": 2, "features": features }))?)
}
