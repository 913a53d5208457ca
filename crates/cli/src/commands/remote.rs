//! Verbs that a server does (`--server`), shown and answered as if they were done here.

use std::time::Duration;

use cutover_api::{Code, Drive, Outcome, RunRequest, VerifyRequest};
use cutover_engine::{Account, Described, Found, Status};
use cutover_postgres::preflight::Finding;
use cutover_server::ServerError;
use cutover_wire::{Failure as Unanswered, Method, Reach, Token, Wire};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::{
    audit::{Chain, Journal},
    drive::{agree, show},
    status::text,
};
use crate::{
    args::{Global, Output, Remote, Run, Trust, Until},
    output::{Failure, Paint, print_json, to_stderr, to_stdout},
    stop,
};

/// A longer answer is none of a server's. Unit: bytes.
const MOST_BODY: usize = 16 << 20;

/// How long a server may take to answer. A status asks two databases; one that takes a minute is given up by the server, which says so.
const LIMIT: Duration = Duration::from_secs(65);

/// Between two looks at what a server drives, and at a status that is watched.
const LOOK: Duration = Duration::from_millis(500);

/// For how long a server that drives may be out of reach.
const PATIENCE: Duration = Duration::from_secs(30);

/// The exit code where what was typed can't be meant.
const USAGE: u8 = 2;

/// The exit code where something is driven already.
const BUSY: u8 = 6;

/// The exit code where a person has to look.
const UNKNOWN: u8 = 7;

/// A server that does what is asked.
pub(crate) struct Server {
    wire: Wire,
    address: String,
}

/// The server that is named, if one is.
pub(crate) fn named(remote: &Remote) -> Result<Option<Server>, Failure> {
    let Some(server) = &remote.server else { return Ok(None) };
    let reach = reach(server, &remote.trust)?;
    let wire = Wire::new(&reach, concat!("cutover/", env!("CARGO_PKG_VERSION")), MOST_BODY).map_err(ServerError::Reach)?;
    Ok(Some(Server { wire, address: reach.address().trim_end_matches('/').to_owned() }))
}

/// A server, who asks it, and whom to trust.
pub(crate) fn reach(server: &str, trust: &Trust) -> Result<Reach, Failure> {
    Ok(Reach::with_ca_file(server, token(trust)?, trust.ca.clone()).map_err(ServerError::Reach)?)
}

/// What a server's people are told of a status, by the server itself.
pub(crate) fn plain(status: &Status) -> String {
    text(status, Paint::none())
}

/// From the file, else from the environment. It is never an argument: those can be seen by everybody on the machine.
fn token(trust: &Trust) -> Result<Option<Token>, Failure> {
    let Some(path) = &trust.token_file else {
        return Ok(std::env::var("CUTOVER_TOKEN").ok().filter(|token| !token.is_empty()).map(Token::from));
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Token::from(text.trim().to_owned()))),
        Err(error) => Err(Failure::usage(format!("can't read the token in {}: {error}", path.display()))),
    }
}

/// What an outcome means to whoever asked.
pub(crate) fn judged(outcome: Outcome) -> Result<(), Failure> {
    if outcome.code == 0 {
        return Ok(());
    }
    let failure = Failure::new(outcome.message.unwrap_or_else(|| "the server does not say why".to_owned())).with_code(outcome.code);
    Err(outcome.hint.into_iter().fold(failure, Failure::with_hint))
}

impl Server {
    pub(crate) async fn status(&self, global: &Global, watch: bool) -> Result<(), Failure> {
        let mut stop = stop::on_signal_saying("");
        loop {
            match global.output {
                Output::Json => print_json(&self.get::<Value>("v1/status").await?),
                Output::Human => to_stdout(&self.text().await?),
            }
            if !watch || tokio::time::timeout(LOOK * 2, stop.wait_for(|stop| *stop)).await.is_ok() {
                return Ok(());
            }
        }
    }

    pub(crate) async fn check(&self) -> Result<Vec<Finding>, Failure> {
        #[derive(Deserialize)]
        struct Found {
            findings: Vec<Finding>,
        }
        let found = self.wire.ask::<Found>(Method::POST, "v1/check", None::<&()>, LIMIT).await;
        Ok(found.map_err(|why| self.refused(&why))?.findings)
    }

    pub(crate) async fn plan(&self) -> Result<Described, Failure> {
        self.get("v1/steps").await
    }

    pub(crate) async fn report(&self) -> Result<Account, Failure> {
        self.get("v1/report").await
    }

    /// The whole journal, page by page. Whether it was changed is for the server to say, which reads it where it is.
    pub(crate) async fn audit(&self, verify: bool) -> Result<Journal, Failure> {
        #[derive(Deserialize)]
        struct Page {
            journal: String,
            newest: u64,
            entries: Vec<Value>,
        }
        let chain: Option<Chain> = if verify { Some(self.get("v1/journal/audit").await?) } else { None };
        let (mut entries, mut last) = (Vec::new(), 0);
        loop {
            let page: Page = self.get(&format!("v1/journal?after={last}")).await?;
            let newest_here = page.entries.last().and_then(|entry| entry["seq"].as_u64());
            entries.extend(page.entries);
            match newest_here {
                Some(seq) if seq < page.newest => last = seq,
                _ => return Ok(Journal { journal: page.journal, entries, chain }),
            }
        }
    }

    pub(crate) async fn run(&self, global: &Global, args: &Run) -> Result<(), Failure> {
        let until = match args.until {
            Until::Ready => cutover_api::Until::Ready,
            Until::Switched => cutover_api::Until::Switched,
        };
        if until == cutover_api::Until::Switched {
            to_stderr(&self.text().await?);
            agree(global, "--until ready only prepares")?;
        }
        let request = RunRequest { until, reason: args.reason.clone(), confirm: args.confirm.clone() };
        self.drive(global, "run", &request).await
    }

    /// Has it drive, and stays until that has ended. Ctrl-C stops it there, as it would here.
    pub(crate) async fn drive(&self, global: &Global, verb: &str, request: &(impl Serialize + Sync)) -> Result<(), Failure> {
        let drive: Drive = self.stay(&format!("v1/{verb}"), "v1/drive", (Method::POST, "v1/stop"), stop::on_signal(), request).await?;
        judged(drive.outcome.unwrap_or_default())?;
        show(global, &self.report().await?.state);
        Ok(())
    }

    /// Has it verify, and stays until that has ended: what was found, and what it comes to.
    pub(crate) async fn verify(&self, request: &VerifyRequest) -> Result<(Option<Found>, Outcome), Failure> {
        #[derive(Deserialize)]
        struct Verification {
            #[serde(flatten)]
            drive: Drive,
            found: Option<Found>,
        }
        impl AsRef<Drive> for Verification {
            fn as_ref(&self) -> &Drive {
                &self.drive
            }
        }
        let stop = stop::on_signal_saying("stopping: what was compared so far is not kept");
        let ended: Verification = self.stay("v1/verify", "v1/verify", (Method::DELETE, "v1/verify"), stop, request).await?;
        Ok((ended.found, ended.drive.outcome.unwrap_or_default()))
    }

    /// Begins something at the server, tells what it tells, and comes back when it has ended.
    async fn stay<A: DeserializeOwned + AsRef<Drive>>(
        &self,
        begin: &str,
        look: &str,
        (method, stop): (Method, &str),
        mut signal: watch::Receiver<bool>,
        request: &(impl Serialize + Sync),
    ) -> Result<A, Failure> {
        let begun: Drive = self.wire.ask(Method::POST, begin, Some(request), LIMIT).await.map_err(|why| self.refused(&why))?;
        let (mut told, mut asked, mut reached) = (begun.told, false, Instant::now());
        loop {
            let stopping = async { if asked { std::future::pending().await } else { signal.wait_for(|stop| *stop).await.map(drop) } };
            if tokio::time::timeout(LOOK, stopping).await.is_ok() {
                asked = true;
                self.wire.say(method.clone(), stop, LIMIT).await.map_err(|why| self.refused(&why))?;
            }
            let now: A = match self.wire.ask(Method::GET, look, None::<&()>, LIMIT).await {
                Ok(now) => now,
                Err(Unanswered::Http(_)) if reached.elapsed() < PATIENCE => continue,
                Err(why) => return Err(self.lost(&why)),
            };
            reached = Instant::now();
            let drive = now.as_ref();
            if drive.told != told {
                told.clone_from(&drive.told);
                to_stderr(told.as_deref().unwrap_or_default());
            }
            if drive.outcome.is_some() {
                return Ok(now);
            }
        }
    }

    async fn text(&self) -> Result<String, Failure> {
        self.get("v1/status/text").await
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, Failure> {
        self.wire.ask(Method::GET, path, None::<&()>, LIMIT).await.map_err(|why| self.refused(&why))
    }

    fn refused(&self, why: &Unanswered) -> Failure {
        let failure = Failure::new(format!("{}: {why}", self.address));
        match why {
            Unanswered::Status { problem: Some(problem), .. } => {
                let failure = problem.hint.iter().fold(failure, Failure::with_hint);
                match problem.code {
                    Code::BadRequest | Code::Unconfirmed => failure.with_code(USAGE),
                    Code::Busy => failure.with_code(BUSY),
                    _ => failure,
                }
            }
            Unanswered::Http(_) => failure.with_hint("is `cutover serve` running there? --ca says whom to trust"),
            _ => failure,
        }
    }

    /// It was driving, and can't be asked any more how that ends.
    fn lost(&self, why: &Unanswered) -> Failure {
        let hint = "another server of the same journal goes on with it, or this one when it is back: `cutover status --server …` says";
        self.refused(why).with_code(UNKNOWN).with_hint(hint)
    }
}
