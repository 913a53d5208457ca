//! The examples, as their users run them: two generations of pods, in Node.js with stock OpenFeature and in Rust with the
//! SDK, through a whole switch under load, in the six steps of a maintenance window.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cutover_testkit::{Cluster, eventually, providers};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::{
    server::Server,
    serving::agent,
    world::{DATABASE, Said, World},
};

const SOON: Duration = Duration::from_secs(30);

const TABLE: &str = "CREATE SCHEMA shop AUTHORIZATION app_owner; \
    CREATE TABLE shop.orders (id text PRIMARY KEY, sku text NOT NULL, quantity int NOT NULL, pod text NOT NULL); \
    ALTER TABLE shop.orders OWNER TO app_owner; GRANT USAGE ON SCHEMA shop TO app; GRANT SELECT, INSERT ON shop.orders TO app";

/// Says its word where the test reads it, and ends when the test has tried it.
const HOOK: &str = "printf %s \"$CUTOVER_TRIAL\" > word.tmp; mv word.tmp word; while [ ! -e tried ]; do sleep 0.05; done";

/// One pod.
struct Pod {
    name: &'static str,
    address: String,
    child: Child,
}

impl Pod {
    /// The example in Node.js, from a folder with its packages.
    async fn node(folder: &Path, name: &'static str, cluster: &Cluster, agent: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(folder.join("server.mjs")).env("OFREP_ENDPOINT", agent).env("INSTANCE", name);
        Self::start(command, name, cluster).await
    }

    /// The example in Rust.
    async fn rust(binary: &Path, name: &'static str, cluster: &Cluster, agent: &str) -> Self {
        let mut command = Command::new(binary);
        command.env("CUTOVER_SERVER", agent).env("CUTOVER_INSTANCE", name);
        Self::start(command, name, cluster).await
    }

    /// A9: what differs between two generations is one variable.
    async fn start(mut command: Command, name: &'static str, cluster: &Cluster) -> Self {
        command.env("DB_WRITE_ENDPOINT", format!("postgres://app@127.0.0.1:{}/{DATABASE}", cluster.port()));
        command.env_remove("PORT").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(SOON, lines.next_line()).await.expect("it does not begin").unwrap().expect("it ended");
        let said: Value = serde_json::from_str(&line).unwrap();
        Self { name, address: said["address"].as_str().unwrap().to_owned(), child }
    }

    /// As a rolling restart ends it.
    async fn ends(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        tokio::time::timeout(SOON, self.child.wait()).await.expect("it does not end").unwrap();
    }
}

/// What became of an order.
#[derive(Clone, Debug)]
struct Ordered {
    id: String,
    pod: &'static str,
    sent: Instant,
    answered: Instant,
    /// None where no answer came.
    status: Option<u16>,
}

/// Customers: they order at any pod that there is, on and on.
struct Customers {
    pods: Arc<Mutex<Vec<(&'static str, String)>>>,
    orders: Arc<Mutex<Vec<Ordered>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Customers {
    fn start() -> Self {
        let (pods, orders) = (Arc::<Mutex<Vec<(&'static str, String)>>>::default(), Arc::<Mutex<Vec<Ordered>>>::default());
        let customer = |number: usize| {
            let (pods, orders) = (pods.clone(), orders.clone());
            tokio::spawn(async move {
                let (client, mut beat) = (client(), tokio::time::interval(Duration::from_millis(5)));
                for count in 0.. {
                    beat.tick().await;
                    let pod = {
                        let pods = pods.lock().unwrap();
                        if pods.is_empty() { continue } else { pods[(number + count) % pods.len()].clone() }
                    };
                    let order = order(&client, &pod.1, pod.0, format!("{number}-{count}"), None).await;
                    orders.lock().unwrap().push(order);
                }
            })
        };
        let tasks = (0..4).map(customer).collect();
        Self { pods, orders, tasks }
    }

    fn find(&self, all: &[&Pod]) {
        *self.pods.lock().unwrap() = all.iter().map(|pod| (pod.name, pod.address.clone())).collect();
    }

    fn so_far(&self) -> Vec<Ordered> {
        self.orders.lock().unwrap().clone()
    }

    /// Waits until each of these has taken an order that was sent from now on.
    async fn taken_by(&self, pods: &[&Pod]) {
        let from = Instant::now();
        let taken = |pod: &&Pod| {
            let is_one = |order: &Ordered| order.pod == pod.name && order.sent >= from && order.status == Some(201);
            self.orders.lock().unwrap().iter().any(is_one)
        };
        eventually(SOON, || async { pods.iter().all(taken) }).await.unwrap();
    }
}

impl Drop for Customers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn client() -> Client {
    Client::builder().timeout(SOON).tls_certs_only([]).build().unwrap()
}

/// Orders once. A5: whoever is refused is told so in these words.
async fn order(client: &Client, address: &str, pod: &'static str, id: String, trial: Option<&str>) -> Ordered {
    let sent = Instant::now();
    let mut request = client.post(format!("{address}/api/order")).header("content-type", "application/json");
    request = trial.into_iter().fold(request, |request, word| request.header("x-trial", word));
    let answer = request.body(json!({ "id": id, "sku": "tea", "quantity": 1 }).to_string()).send().await;
    let Ok(answer) = answer else { return Ordered { id, pod, sent, answered: Instant::now(), status: None } };
    let status = answer.status().as_u16();
    let again = answer.headers().contains_key("retry-after");
    let body = answer.text().await.unwrap_or_default();
    match status {
        201 => {}
        503 => assert_eq!((body.as_str(), again), (r#"{"error":"Database maintenance in progress"}"#, true), "{pod}"),
        // A connection that the fence has ended, or a pod that ends: it may have been taken or not.
        500 => {}
        _ => panic!("{pod}: {status} {body}"),
    }
    Ordered { id, pod, sent, answered: Instant::now(), status: Some(status) }
}

/// The example in Node.js, beside the packages that its lock file names.
fn node_shop(folder: &Path) -> PathBuf {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop-node");
    let shop = folder.join("shop-node");
    std::fs::create_dir(&shop).unwrap();
    for file in ["server.mjs", "package.json"] {
        std::fs::copy(example.join(file), shop.join(file)).unwrap();
    }
    std::os::unix::fs::symlink(providers().unwrap().join("shop/node_modules"), shop.join("node_modules")).unwrap();
    shop
}

/// The example in Rust: built with all tests of the workspace, and here where this test is run alone.
async fn rust_shop() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_cutover")).with_file_name("shop-rust");
    if !built.exists() {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--locked", "--quiet", "--workspace", "--bin", "shop-rust"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(command.status().await.unwrap().success());
    }
    built
}

async fn journalled(world: &World, kind: &str) {
    eventually(SOON * 2, || async { !world.entries(kind).await.is_empty() }).await.unwrap();
}

/// A1 to A16, in document A's six steps.
#[tokio::test]
async fn a14_two_generations_of_pods_go_through_a_maintenance_window_in_six_steps() {
    let plan = format!("[hooks]\ntrial = '{HOOK}'\n[[traffic]]\nkind = \"flags\"\nlease = \"1s\"\n");
    let world = World::of(15, 15, &plan).await;
    let folder = world.folder.path();
    world.source.execute(DATABASE, TABLE).await.unwrap();
    let (node, rust) = (node_shop(folder), rust_shop().await);
    let server = Server::spawn(world.command(&["serve", "--listen", "127.0.0.1:0", "--output", "json"]), None).await;
    let agent = agent(&world, &server.address).await;
    let old = [
        Pod::node(&node, "old-node", &world.source, &agent.address).await,
        Pod::rust(&rust, "old-rust", &world.source, &agent.address).await,
    ];
    let customers = Customers::start();
    customers.find(&[&old[0], &old[1]]);
    customers.taken_by(&[&old[0], &old[1]]).await;
    world.ready().await;
    customers.taken_by(&[&old[0], &old[1]]).await;

    // 1 and 2: writes are refused everywhere, then the target is in charge. Old pods live still, and so it is not opened.
    let run = world.command(&["run", "--reason", "CHG-1234"]).spawn().unwrap();
    journalled(&world, "fenced").await;
    let fenced = Instant::now();
    journalled(&world, "committed").await;
    let named = || async { world.cutover(&["status"]).await.code(0).out.contains("is connected to the source") };
    eventually(SOON, named).await.unwrap();

    // 3 and 4: new pods come up with the other endpoint, and refuse writes as the old ones do.
    let new = [
        Pod::node(&node, "new-node", &world.target, &agent.address).await,
        Pod::rust(&rust, "new-rust", &world.target, &agent.address).await,
    ];
    customers.find(&[&old[0], &old[1], &new[0], &new[1]]);
    let client = client();
    for pod in old.iter().chain(&new) {
        let refused = order(&client, &pod.address, pod.name, format!("refused-{}", pod.name), None).await;
        assert_eq!(refused.status, Some(503), "A10: {}", pod.name);
    }
    assert!(!folder.join("word").exists(), "A13: old pods are there, so nothing is tried yet");
    customers.find(&[&new[0], &new[1]]);
    for pod in old {
        pod.ends().await;
    }

    // 5: one write on trial, while ordinary ones are refused.
    let read = || async { std::fs::read_to_string(folder.join("word")).ok().filter(|word| !word.is_empty()) };
    let word = eventually(SOON, read).await.unwrap();
    let tried = order(&client, &new[0].address, "new-node", "trial".to_owned(), Some(&word)).await;
    assert_eq!(tried.status, Some(201), "A11");
    for (pod, word) in [(&new[0], Some(word.as_str())), (&new[0], None), (&new[1], None)] {
        let refused = order(&client, &pod.address, pod.name, "second".to_owned(), word).await;
        assert_eq!(refused.status, Some(503), "A11: {} {word:?}", pod.name);
    }
    let opening = Instant::now();
    std::fs::write(folder.join("tried"), "").unwrap();

    // 6: open, to the new pods.
    let done = tokio::time::timeout(SOON * 2, run.wait_with_output()).await.expect("it did not end").unwrap();
    Said::of(done).code(0);
    customers.taken_by(&[&new[0], &new[1]]).await;
    let orders = customers.so_far();
    drop(customers);

    let taken: Vec<&Ordered> = orders.iter().filter(|order| order.status == Some(201)).collect();
    for order in &taken {
        let is_new = order.pod.starts_with("new");
        assert!(is_new || order.sent < fenced, "A1, A4: {order:?} was taken behind the fence");
        // Who is held for a moment by the SDK rather than refused may have asked before.
        assert!(!is_new || order.answered >= opening, "A11, A12: {order:?} was taken before the opening");
    }
    let refused = orders.iter().filter(|order| order.status == Some(503)).count();
    assert!(refused > 20, "customers were there all the time: {refused}");
    world.cutover(&["verify"]).await.code(0);
    for cluster in [&world.target, &world.source] {
        let rows = cluster.client(DATABASE).await.unwrap().query("SELECT id FROM shop.orders", &[]).await.unwrap();
        let there: std::collections::BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let lost: Vec<_> = taken.iter().filter(|order| !there.contains(&order.id)).collect();
        assert!(lost.is_empty() && there.contains("trial") && !there.contains("second"), "{lost:?}");
    }

    // A14: what the window was, in the report.
    let report = world.cutover(&["report", "--output", "json"]).await.code(0).json();
    let window = &report["pauses"][0];
    let (pause, downtime) = (window["pause_ms"].as_u64().unwrap(), window["downtime_ms"].as_u64().unwrap());
    assert!(pause < downtime && u128::from(downtime) >= (opening - fenced).as_millis(), "{window:#}");
    assert_eq!((window["reason"].as_str(), window["trial"]["passed"].as_bool()), (Some("CHG-1234"), Some(true)), "{window:#}");
    assert_eq!(window["trial"]["instance"], "new-node", "{window:#}");
    world.cutover(&["report"]).await.code(0).says("were refused for").says("new-node tried one write");
    for pod in new {
        pod.ends().await;
    }
}
