//! One write on trial: a server claims it for whoever was shown the word, and the driver grants it once, in the journal.
//!
//! What is asked here is written down in the server's report, where the driver sees it; what the driver grants comes back
//! with the journal. An agent asks its server.

use std::time::Duration;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use cutover_api::{TrialAnswer, TrialRequest};
use cutover_core::clients::Claim;
use sha2::{Digest as _, Sha256};

use crate::{
    front::{Front, View},
    permits::{line, unreadable},
    problem::{NotAllowed, NotUnderstood, Refusal},
};

/// How long a driver may take to grant a claim.
pub(crate) const GRANT_LIMIT: Duration = Duration::from_secs(3);

/// Claims that may be under way at once: more than that nobody has asked for in good faith.
const MOST_CLAIMS: usize = 16;

/// Asks for leave to write once, while everybody else is refused.
#[utoipa::path(post, path = "/v1/trial", tag = "clients", request_body = TrialRequest, responses(
    (status = 200, description = "Whether this instance may write once", body = TrialAnswer),
    NotAllowed,
    NotUnderstood
))]
pub(crate) async fn ask(
    State(front): State<Front>,
    request: Result<Json<TrialRequest>, JsonRejection>,
) -> Result<Json<TrialAnswer>, Refusal> {
    let Json(request) = request.map_err(|rejection| unreadable(&rejection))?;
    line("trial", &request.trial, 200)?;
    line("instance", &request.instance, 200)?;
    line("database", &request.database, 500)?;
    let granted = front.try_write(&request).await;
    Ok(Json(TrialAnswer { granted, epoch: front.now().route.epoch }))
}

impl Front {
    /// Whether this instance may write once.
    pub(crate) async fn try_write(&self, request: &TrialRequest) -> bool {
        let view = self.now();
        if !self.flags(&view).may_claim(Some(&request.database)) {
            return false;
        }
        if let Some(upstream) = self.upstream() {
            return upstream.try_write(request).await;
        }
        let digest = hex::encode(Sha256::digest(&request.trial));
        if !is_open(&view, &digest) {
            return false;
        }
        let id = hex::encode(rand::random::<[u8; 12]>());
        let claim = Claim { id: id.clone(), digest: digest.clone(), instance: request.instance.clone() };
        // Withdrawn however this ends, also where whoever asked has gone.
        let Some(_claimed) = Claimed::new(self, claim) else { return false };
        let mut views = self.subscribe();
        let decided = views.wait_for(|view| !is_open(view, &digest));
        let decided = tokio::time::timeout(GRANT_LIMIT, decided).await;
        decided.is_ok_and(|view| view.is_ok_and(|view| granted_to(&view, &id)))
    }
}

/// Whether a write with the word of this digest can still be granted.
fn is_open(view: &View, digest: &str) -> bool {
    view.trial.as_ref().is_some_and(|trial| trial.digest == digest && trial.granted.is_none())
}

fn granted_to(view: &View, claim: &str) -> bool {
    view.trial.as_ref().is_some_and(|trial| trial.granted.as_deref() == Some(claim))
}

/// A claim that stands in the server's reports for as long as this lives.
struct Claimed<'a> {
    front: &'a Front,
    id: String,
}

impl<'a> Claimed<'a> {
    fn new(front: &'a Front, claim: Claim) -> Option<Self> {
        let id = claim.id.clone();
        let mut claims = front.claims();
        if claims.len() >= MOST_CLAIMS {
            return None;
        }
        claims.push(claim);
        drop(claims);
        front.news.notify_one();
        Some(Self { front, id })
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.front.claims().retain(|claim| claim.id != self.id);
    }
}
