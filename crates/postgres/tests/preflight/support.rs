//! Two servers, a database on each, a plan between them.

use std::time::Duration;

use cutover_core::{Plan, Side};
use cutover_postgres::{
    connect::{Purpose, connect},
    preflight::{self, Finding, Fix, Severity, Standing},
};
use cutover_testkit::{Cluster, ClusterOptions, Install, install, installs};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// Two servers of different majors where there are two.
pub(crate) struct Pair {
    pub(crate) source: Cluster,
    pub(crate) target: Cluster,
}

/// One pair for all tests that change nothing but databases and roles of their own.
pub(crate) async fn shared_pair() -> &'static Pair {
    static PAIR: OnceCell<Pair> = OnceCell::const_new();
    PAIR.get_or_init(|| async {
        let source = install(15).unwrap();
        let target = installs().pop().filter(|newest| newest.major > 15).unwrap_or_else(|| source.clone());
        start_pair(&source, &target, &|options| options.set("max_prepared_transactions", 5)).await
    })
    .await
}

pub(crate) async fn start_pair(source: &Install, target: &Install, adjust: &dyn Fn(ClusterOptions) -> ClusterOptions) -> Pair {
    let options = |name: &str| adjust(ClusterOptions::named(name).not_durable());
    let (source, target) = tokio::join!(Cluster::start(source, options("source")), Cluster::start(target, options("target")));
    Pair { source: source.unwrap(), target: target.unwrap() }
}

/// A database on each server and a plan between them.
pub(crate) struct Case<'a> {
    pub(crate) pair: &'a Pair,
    pub(crate) database: String,
    pub(crate) plan: Plan,
    pub(crate) prepared: bool,
    /// The side in charge, where the target has the whole schema.
    pub(crate) authority: Option<Side>,
}

impl<'a> Case<'a> {
    pub(crate) async fn new(pair: &'a Pair, name: &str) -> Self {
        pair.source.create_database(name).await.unwrap();
        pair.target.create_database(name).await.unwrap();
        let plan = plan(name, &pair.source.url("postgres", name), &pair.target.url("postgres", name));
        Self { pair, database: name.to_owned(), plan, prepared: false, authority: None }
    }

    /// With a table that is as it should be.
    pub(crate) async fn with_table(pair: &'a Pair, name: &str) -> Self {
        let case = Self::new(pair, name).await;
        case.sql(Side::Source, "CREATE TABLE public.kept (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)").await;
        case
    }

    pub(crate) fn cluster(&self, side: Side) -> &Cluster {
        match side {
            Side::Source => &self.pair.source,
            Side::Target => &self.pair.target,
        }
    }

    pub(crate) async fn sql(&self, side: Side, sql: &str) {
        self.cluster(side).execute(&self.database, sql).await.unwrap();
    }

    pub(crate) async fn session(&self, side: Side) -> Client {
        self.cluster(side).client(&self.database).await.unwrap()
    }

    pub(crate) async fn check(&self) -> Vec<Finding> {
        let purpose = Purpose::new("cutover/test/check");
        let source = connect(&self.plan.source.url, &purpose).await.unwrap();
        let target = connect(&self.plan.target.url, &purpose).await.unwrap();
        let standing = match self.authority {
            Some(authority) => Standing::Complete { authority },
            None if self.prepared => Standing::Begun,
            None => Standing::New,
        };
        preflight::run(&self.plan, &source, &target, standing).await.unwrap()
    }

    /// The finding of `check` that has all these words, in its message or evidence.
    pub(crate) async fn find(&self, check: &str, severity: Severity, side: Side, words: &[&str]) -> Finding {
        let findings = self.check().await;
        let found = matching(&findings, check, severity, side, words);
        found.cloned().unwrap_or_else(|| panic!("no {severity:?} of {check} at the {side} with {words:?} in {findings:#?}"))
    }

    pub(crate) async fn refute(&self, check: &str, severity: Severity, side: Side, words: &[&str]) {
        let findings = self.check().await;
        let found = matching(&findings, check, severity, side, words);
        assert!(found.is_none(), "{found:#?}");
    }

    /// Finds the fault, runs the fix as it is printed, and sees the finding gone.
    pub(crate) async fn find_and_mend(&self, check: &str, severity: Severity, side: Side, words: &[&str]) -> Finding {
        let finding = self.find(check, severity, side, words).await;
        self.mend(&finding).await;
        self.refute(check, severity, side, words).await;
        finding
    }

    pub(crate) async fn mend(&self, finding: &Finding) {
        let Some(Fix::Sql { side, text }) = &finding.fix else { panic!("{finding:#?}") };
        let client = self.session(*side).await;
        for line in text.lines() {
            client.batch_execute(line).await.unwrap_or_else(|error| panic!("{line}: {error:?}"));
        }
    }
}

pub(crate) fn matching<'f>(findings: &'f [Finding], check: &str, severity: Severity, side: Side, words: &[&str]) -> Option<&'f Finding> {
    let has = |finding: &Finding, word: &str| finding.message.contains(word) || finding.evidence.iter().any(|line| line.contains(word));
    findings.iter().find(|finding| {
        finding.check == check
            && finding.severity == severity
            && finding.side.is_none_or(|found| found == side)
            && words.iter().all(|word| has(finding, word))
    })
}

pub(crate) fn errors(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.severity == Severity::Error).collect()
}

pub(crate) fn plan(name: &str, source: &str, target: &str) -> Plan {
    let text = format!(
        "name = \"{name}\"\nkind = \"switch\"\n[source]\nurl = \"{source}\"\n[target]\nurl = \"{target}\"\n\
         [[traffic]]\nkind = \"pgbouncer\"\nadmin_url = \"postgres://a@127.0.0.1:6432/pgbouncer\"\ndatabase = \"d\"\nconfig_file = \"p.ini\"\n"
    );
    Plan::parse(&text, &|_| None).unwrap()
}
