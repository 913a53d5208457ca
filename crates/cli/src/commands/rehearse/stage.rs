//! Where rehearsals are held: throwaway servers of the majors in question, or servers that were named.

use std::path::{Path, PathBuf};

use cutover_core::{
    Identity, Plan, Side,
    plan::{DatabaseUrl, Secret, Traffic},
};
use cutover_engine::{EngineError, rehearse};
use cutover_postgres::{
    PgError, PgResult,
    clone::Marker,
    connect::{Purpose, connect},
    identity::identity,
};
use cutover_testkit::{Auth, Cluster, ClusterOptions, Db, PgBouncer, PgBouncerOptions, pgbouncer};

use super::{chance, schema_file};
use crate::{
    args::Rehearse,
    commands::throwaway::versions,
    output::{Failure, to_stderr},
};

/// What all rehearsals of one call stand on. Throwaway servers are gone when it is dropped, and also when we are killed.
pub(super) struct Ground {
    servers: Servers,
    state: tempfile::TempDir,
    /// The databases that the plan is about.
    pub(super) forbidden: Vec<Identity>,
    /// What stands for the source, where it is not read.
    pub(super) schema: Option<PathBuf>,
}

enum Servers {
    /// The password is the superuser's, made for these servers: what is on them may be rows of a real source.
    Throwaway {
        clusters: Box<[Cluster; 2]>,
        password: String,
    },
    Named(Box<Named>),
}

/// Servers that the user named.
pub(super) struct Named {
    pub(super) servers: [DatabaseUrl; 2],
    peers: [Option<DatabaseUrl>; 2],
}

/// The stage of one rehearsal, with what must live as long as it does.
pub(super) struct Held {
    pub(super) stage: rehearse::Stage,
    _bouncer: Option<PgBouncer>,
}

impl Ground {
    /// Starts or finds the servers. The source is asked who it is unless a file stands for it; of the target nothing is
    /// needed, so that it need not be there.
    pub(super) async fn prepare(plan: &Plan, folder: &Path, args: &Rehearse) -> Result<Self, Failure> {
        let schema = schema_file(plan, folder, args)?;
        let named = named(&args.servers, &args.peers)?;
        if let Some(Named { servers, .. }) = &named {
            refuse_plans_own(plan, servers)?;
        }
        let ask_source = schema.is_none() || named.is_some();
        let ask_target = (schema.is_none() && args.pg_target.is_none()) || named.is_some();
        let (source, target) = tokio::join!(ask(&plan.source.url, ask_source), ask(&plan.target.url, ask_target));
        if let (None, Some(Err(error))) = (&schema, &source) {
            let failure = Failure::new(format!("the source can't be read: {error}"));
            return Err(failure.with_hint("--schema FILE takes the definitions from a file instead, as `pg_dump --schema-only` writes it"));
        }
        for (side, asked) in [(Side::Source, &source), (Side::Target, &target)] {
            if let Some(Err(error)) = asked {
                to_stderr(&format!("note: the {side} can't be asked who it is, and need not be there: {error}"));
            }
        }
        let [source, target] = [source, target].map(|asked| asked.and_then(Result::ok));
        let servers = match named {
            Some(named) => Servers::Named(Box::new(named)),
            None => {
                let major = |typed: Option<u32>, asked: &Option<Identity>| typed.or(asked.as_ref().map(|asked| asked.major));
                start(major(args.pg_source, &source), major(args.pg_target, &target)).await?
            }
        };
        let state = tempfile::Builder::new().prefix("cutover-rehearsal-").tempdir();
        let state = state.map_err(|error| Failure::new(format!("no temporary folder: {error}")))?;
        Ok(Self { servers, state, forbidden: source.into_iter().chain(target).collect(), schema })
    }

    /// The folder for journals.
    pub(super) fn state(&self) -> &Path {
        self.state.path()
    }

    pub(super) fn is_throwaway(&self) -> bool {
        matches!(self.servers, Servers::Throwaway { .. })
    }

    /// What a person needs to connect to throwaway servers that are kept.
    pub(super) fn password(&self) -> Option<&str> {
        match &self.servers {
            Servers::Throwaway { password, .. } => Some(password),
            Servers::Named(_) => None,
        }
    }

    /// The stage for one rehearsal: throwaway servers get a `PgBouncer` in front where there is one on this machine.
    pub(super) async fn stage(&self, marker: &Marker) -> Result<Held, Failure> {
        let (clusters, password) = match &self.servers {
            Servers::Named(named) => {
                let Named { servers, peers } = &**named;
                let stage = rehearse::Stage { servers: servers.clone(), peers: peers.clone(), traffic: Vec::new(), entrance: None };
                return Ok(Held { stage, _bouncer: None });
            }
            Servers::Throwaway { clusters, password } => (clusters, password),
        };
        let [source, target] = &**clusters;
        let servers = [url(&source.url("postgres", "postgres"))?, url(&target.url("postgres", "postgres"))?];
        let mut stage = rehearse::Stage { servers, peers: [None, None], traffic: Vec::new(), entrance: None };
        let Ok(install) = pgbouncer() else { return Ok(Held { stage, _bouncer: None }) };
        let database = marker.database();
        let options = PgBouncerOptions {
            users: ["postgres", "admin"].map(|user| (user.to_owned(), password.clone())).to_vec(),
            settings: vec![("auth_type".to_owned(), "scram-sha-256".to_owned())],
            ..PgBouncerOptions::new(vec![Db::on(source, &database)])
        };
        let bouncer = PgBouncer::start(&install, options).await?;
        let with_password = |text: &str| url(text).map(|url| DatabaseUrl { password: Some(Secret::new(password.clone())), ..url });
        stage.entrance = Some(with_password(&bouncer.url("postgres", &database))?);
        let admin_url = with_password(&bouncer.admin_url())?;
        stage.traffic.push(Traffic::PgBouncer { admin_url, database, config_file: bouncer.config_file() });
        Ok(Held { stage, _bouncer: Some(bouncer) })
    }
}

/// Who a database is, where that is wanted.
async fn ask(url: &DatabaseUrl, wanted: bool) -> Option<PgResult<Identity>> {
    let asked = async {
        let client = connect(url, &Purpose::new("cutover/rehearse")).await?;
        identity(&client, url).await
    };
    if wanted { Some(asked.await) } else { None }
}

async fn start(source: Option<u32>, target: Option<u32>) -> Result<Servers, Failure> {
    let (source, target) = versions(source, target).map_err(|failure| match failure.hint.clone() {
        Some(hint) => {
            failure.with_hint(format!("{hint}. Or choose others with --pg-source and --pg-target, or name servers with --server"))
        }
        None => failure,
    })?;
    let password = format!("{}{}", chance(), chance());
    // Before PostgreSQL 16 nothing starts a stream sooner than this.
    let options = |name: &str| ClusterOptions {
        auth: Auth::Scram { password: password.clone() },
        ..ClusterOptions::named(name).set("wal_retrieve_retry_interval", "200ms")
    };
    let clusters = tokio::try_join!(Cluster::start(&source, options("source")), Cluster::start(&target, options("target")))?;
    Ok(Servers::Throwaway { clusters: Box::new(clusters.into()), password })
}

/// The servers that were named, and how they reach one another.
pub(super) fn named(servers: &[String], peers: &[String]) -> Result<Option<Named>, Failure> {
    let parse = |texts: &[String]| texts.iter().map(|text| url(text)).collect::<Result<Vec<_>, _>>();
    let (servers, peers) = (parse(servers)?, parse(peers)?);
    match (&servers[..], &peers[..]) {
        ([], []) => Ok(None),
        ([source, target], []) => Ok(Some(Named { servers: [source.clone(), target.clone()], peers: [None, None] })),
        ([source, target], [to_source, to_target]) => {
            Ok(Some(Named { servers: [source.clone(), target.clone()], peers: [Some(to_source.clone()), Some(to_target.clone())] }))
        }
        _ => Err(Failure::usage("--server and --peer name two servers each").with_hint(
            "a cutover needs two: --server for the source's clone, then --server for the target's; --peer in the same order, or not at all",
        )),
    }
}

fn url(text: &str) -> Result<DatabaseUrl, Failure> {
    DatabaseUrl::parse(text).map_err(|wrong| {
        Failure::usage(format!("bad URL of a server: {wrong}"))
            .with_hint("it looks like postgres://postgres:password@localhost:5432/postgres")
    })
}

/// By address first, which needs nobody's answer; who they are is asked again when a clone is made.
fn refuse_plans_own(plan: &Plan, servers: &[DatabaseUrl]) -> Result<(), Failure> {
    for (server, side) in servers.iter().flat_map(|server| Side::BOTH.map(|side| (server, side))) {
        let database = plan.database(side);
        if [&database.url, &database.peer_url].iter().any(|own| own.address() == server.address()) {
            let what = format!("{} is the plan's {side}: no clone is made there", server.address());
            return Err(
                Failure::usage(what).with_hint("name servers that are there for tests only, or none: throwaway ones are started then")
            );
        }
    }
    Ok(())
}

/// What a database answered, as a failure of ours.
pub(super) fn failed(error: PgError) -> Failure {
    EngineError::database("server")(error).into()
}
