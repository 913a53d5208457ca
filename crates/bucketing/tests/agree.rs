//! The published vectors and random keys, by the code that the reference shows: here, in PostgreSQL and in Node.js.

#![cfg(test)]

use std::{process::Stdio, time::Duration};

use cutover_bucketing::Salt;
use cutover_testkit::{Cluster, ClusterOptions, Seed, install};
use rand::RngExt as _;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

const REFERENCE: &str = include_str!("../../../docs/bucketing.md");
const VECTORS: &str = include_str!("../../../docs/bucketing-vectors.csv");

/// For a program that was just started, on a machine that has other work.
const LIMIT: Duration = Duration::from_secs(60);

/// A salt, a key and its bucket.
type Vector = (String, String, u16);

#[test]
fn the_published_vectors_are_ours() {
    let published = published();
    assert!(published.len() > 200, "{}", published.len());
    for (salt, key, bucket) in published {
        assert_eq!(Salt::new(&salt).bucket(&key), bucket, "{salt:?} {key:?}");
    }
}

#[tokio::test]
async fn postgresql_puts_every_key_into_the_same_bucket() {
    let cluster = Cluster::start(&install(15).unwrap(), ClusterOptions::named("bucketing")).await.unwrap();
    let all: Vec<_> = published().into_iter().chain(random()).collect();
    let western: Vec<_> = all.iter().filter(|(salt, key, _)| salt.chars().chain(key.chars()).all(|c| c < '\u{100}')).cloned().collect();
    assert!(western.iter().any(|(_, key, _)| key == "ñandú"), "one that is not the same bytes in LATIN1");
    for (encoding, vectors) in [("UTF8", all), ("LATIN1", western)] {
        let create = format!("CREATE DATABASE {encoding} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
        cluster.execute("postgres", &create).await.unwrap();
        let client = cluster.client(&encoding.to_lowercase()).await.unwrap();
        client.batch_execute(code("sql")).await.unwrap();
        let (salts, keys): (Vec<&str>, Vec<&str>) = vectors.iter().map(|(salt, key, _)| (salt.as_str(), key.as_str())).unzip();
        let ask = "SELECT bucket(salt, key) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (salt, key, n) ORDER BY n";
        let rows = timeout(LIMIT, client.query(ask, &[&salts, &keys])).await.expect("it did not answer").unwrap();
        let buckets: Vec<_> = rows.iter().map(|row| row.get::<_, i32>(0)).collect();
        compare(encoding, &vectors, &buckets);
    }
}

#[tokio::test]
async fn node_puts_every_key_into_the_same_bucket() {
    let vectors: Vec<_> = published().into_iter().chain(random()).collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bucket.mjs"), code("js")).unwrap();
    let ask = "import { readFileSync } from 'node:fs';\n\
        import { bucket } from './bucket.mjs';\n\
        console.log(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map(([salt, key]) => bucket(salt, key))));\n";
    std::fs::write(folder.path().join("ask.mjs"), ask).unwrap();
    let mut node = Command::new("node");
    node.arg(folder.path().join("ask.mjs")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut node = node.spawn().unwrap();
    let asked: Vec<_> = vectors.iter().map(|(salt, key, _)| [salt, key]).collect();
    let mut stdin = node.stdin.take().unwrap();
    stdin.write_all(serde_json::to_string(&asked).unwrap().as_bytes()).await.unwrap();
    drop(stdin);
    let output = timeout(LIMIT, node.wait_with_output()).await.expect("it did not end").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    compare("Node.js", &vectors, &serde_json::from_slice::<Vec<i32>>(&output.stdout).unwrap());
}

fn compare(who: &str, vectors: &[Vector], buckets: &[i32]) {
    assert_eq!(vectors.len(), buckets.len(), "{who}");
    for ((salt, key, ours), theirs) in vectors.iter().zip(buckets) {
        assert_eq!(i32::from(*ours), *theirs, "{who}: {salt:?} {key:?}");
    }
}

fn published() -> Vec<Vector> {
    let vector = |line: &str| {
        let fields: [&str; 3] = line.split(',').collect::<Vec<_>>().try_into().expect("three fields, and no comma in any");
        (fields[0].to_owned(), fields[1].to_owned(), fields[2].parse().unwrap())
    };
    VECTORS.lines().skip(1).map(vector).collect()
}

/// Of all characters but NUL, which a text of PostgreSQL can't have.
fn random() -> Vec<Vector> {
    let mut random = Seed::from_env_or_random().rng();
    let mut text = |longest: usize| -> String {
        let length = random.random_range(0..=longest);
        std::iter::repeat_with(|| random.random::<char>()).filter(|c| *c != '\0').take(length).collect()
    };
    let vector = || {
        let (salt, key) = (text(20), text(80));
        let bucket = Salt::new(&salt).bucket(&key);
        (salt, key, bucket)
    };
    std::iter::repeat_with(vector).take(1000).collect()
}

/// The code that the reference shows in a language.
fn code(language: &str) -> &'static str {
    let (_, rest) = REFERENCE.split_once(&format!("```{language}\n")).expect("the reference shows it");
    rest.split_once("```").expect("the code ends").0
}
