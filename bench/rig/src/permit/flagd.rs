//! Peer: flagd's provider, which evaluates the rules that it holds. The rule about writes is the one that `cutover serve`
//! hands to such providers.

use std::{hint::black_box, path::Path, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use open_feature::{EvaluationContext, provider::FeatureProvider as _};
use open_feature_flagd::{FlagdOptions, FlagdProvider, ResolverType};
use serde_json::json;
use tokio::runtime::Runtime;

use super::{Answerer, DATABASE, KEYS, keys};

const WRITES: &str = "database-writes-enabled";
const READ: &str = "orders.database.read";
const NAME: &str = "open-feature-flagd";

pub(super) fn answerers(runtime: &Runtime, folder: &Path) -> Result<Vec<Answerer>> {
    let file = folder.join("flagd.json");
    std::fs::write(&file, flags()?).with_context(|| format!("can't write {}", file.display()))?;
    let options = FlagdOptions {
        resolver_type: ResolverType::File,
        source_configuration: Some(file.to_string_lossy().into_owned()),
        // It keeps only what no context decides, so here it would only be looked into.
        cache_settings: None,
        ..FlagdOptions::default()
    };
    let provider = Arc::new(runtime.block_on(FlagdProvider::new(options))?);
    // Made beforehand; an application makes one for each request.
    let instance = EvaluationContext::default().with_custom_field("database", DATABASE);
    let customers: Vec<_> = keys().into_iter().map(|key| EvaluationContext::default().with_targeting_key(key)).collect();
    let may = runtime.block_on(provider.resolve_bool_value(WRITES, &instance)).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    ensure!(may.value, "flagd's provider refuses writes");
    let (writes, reads) = ((provider.clone(), runtime.handle().clone()), (provider, runtime.handle().clone()));
    Ok(vec![
        Answerer {
            name: NAME,
            asked: "may this instance write",
            calls: Box::new(move |many| {
                let (provider, handle) = &writes;
                handle.block_on(async {
                    for _ in 0..many {
                        black_box(provider.resolve_bool_value(WRITES, black_box(&instance)).await.is_ok_and(|answer| answer.value));
                    }
                });
            }),
        },
        Answerer {
            name: NAME,
            asked: "where does a read of this key go",
            calls: Box::new(move |many| {
                let (provider, handle) = &reads;
                handle.block_on(async {
                    for at in 0..many as usize {
                        black_box(provider.resolve_string_value(READ, black_box(&customers[at % KEYS])).await.ok());
                    }
                });
            }),
        },
    ])
}

fn flags() -> Result<String> {
    let ends = 4_102_444_800_u64; // 2100
    let names = [DATABASE, "old", "old:5432", "old/shop", "old:5432/shop"];
    let writes = json!({ "if": [
        { "<": [{ "var": "$flagd.timestamp" }, ends] },
        { "if": [{ "in": [{ "var": "database" }, names] }, "on", "off"] },
        "off",
    ] });
    let flags = json!({ "flags": {
        WRITES: { "state": "ENABLED", "variants": { "on": true, "off": false }, "defaultVariant": "off", "targeting": writes },
        READ: {
            "state": "ENABLED",
            "variants": { "source": "source", "target": "target" },
            "defaultVariant": "source",
            "targeting": { "fractional": [["source", 50], ["target", 50]] },
        },
    } });
    Ok(serde_json::to_string(&flags)?)
}
