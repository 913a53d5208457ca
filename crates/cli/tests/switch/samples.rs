//! Schemas of real applications, as Debian's packages bring them, go through a switch.

use cutover_testkit::{
    compare::script,
    sample,
    schemas::{CHANGE, FILL},
};

use crate::{
    awkward::there_back_and_there_again,
    world::{DATABASE, World},
};

/// Schema of ours, package, file in it.
const SAMPLES: [(&str, &str, &str); 4] = [
    ("icinga", "icinga2-ido-pgsql", "usr/share/icinga2-ido-pgsql/schema/pgsql.sql"),
    ("kea", "kea-admin", "usr/share/kea/scripts/pgsql/dhcpdb_create.pgsql"),
    ("pdns", "pdns-backend-pgsql", "usr/share/pdns-backend-pgsql/schema/schema.pgsql.sql"),
    ("bacula", "bacula-director-pgsql", "usr/share/dbconfig-common/data/bacula-director-pgsql/install/pgsql"),
];

#[tokio::test]
async fn the_schemas_of_applications_in_debian_go_through_a_switch() {
    let world = World::of(15, 17, "").await;
    let mut found = 0;
    for (schema, package, file) in SAMPLES {
        let Some(path) = sample(package, file).unwrap() else {
            println!("left out: {package} is not here; scripts/samples.sh fetches it where there is apt");
            continue;
        };
        let sql = std::fs::read_to_string(path).unwrap();
        script(&world.source, DATABASE, &format!("CREATE SCHEMA {schema}; SET search_path = {schema};\n{sql}")).await.unwrap();
        found += 1;
    }
    if found == 0 {
        return;
    }
    let filled = script(&world.source, DATABASE, &format!("{FILL}; SHOW schemas.filled;")).await.unwrap();
    let filled: u32 = filled.trim().parse().unwrap();
    assert!(filled >= 5 * found, "rows in {filled} tables");
    // What is without a key: as it says.
    world.mend().await;
    let changed = script(&world.source, DATABASE, &format!("{CHANGE}; SHOW schemas.changed;")).await.unwrap();
    assert!(changed.trim().parse::<u32>().unwrap() >= filled / 2, "{changed} of {filled}");
    there_back_and_there_again(&world, &[], filled / 2).await;
}
