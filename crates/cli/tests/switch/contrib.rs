//! The types, operator classes and triggers of PostgreSQL's own extensions go through a switch.

use cutover_testkit::schemas::CONTRIB;

use crate::{awkward::there_back_and_there_again, world::World};

#[tokio::test]
async fn the_extensions_of_the_server_go_through_a_switch() {
    let world = World::of(15, 18, "").await;
    there_back_and_there_again(&world, &[CONTRIB], 12).await;
}

/// What can't be carried is refused by name, before anything is made.
#[tokio::test]
async fn what_an_extension_brings_that_cannot_be_moved_is_named() {
    let world = World::of(15, 18, "").await;
    let sql = "CREATE EXTENSION lo; CREATE TABLE pictures (id int PRIMARY KEY, picture lo); \
         CREATE TRIGGER manage BEFORE UPDATE OR DELETE ON pictures FOR EACH ROW EXECUTE FUNCTION lo_manage(picture); \
         INSERT INTO pictures SELECT 1, lo_from_bytea(0, 'x'); CREATE EXTENSION adminpack; CREATE EXTENSION old_snapshot";
    world.source.execute(crate::world::DATABASE, sql).await.unwrap();
    let said = world.cutover(&["check"]).await.code(3);
    let said = said.says("large objects: 1").says("lo_get").says("extension adminpack 2.1 is not available at the target");
    said.says("extension old_snapshot 1.0 is not available").says("or drop it at the source");
    world.cutover(&["run", "--until", "ready"]).await.code(3);
    assert_eq!(world.ask(&world.target, "SELECT count(*) FROM pg_namespace WHERE nspname IN ('cutover', 'bank')").await, "0");
}
