//! Events go when nobody has touched them for an hour, as on the real server.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::store::Store;

const LIFE: Duration = Duration::from_secs(3600);
const LOOK: Duration = Duration::from_secs(60);

/// Removes old events as long as the server runs. An event's age is told by its revision: marks remember which revision
/// was reached when.
pub(crate) async fn events(store: Arc<Store>) {
    let mut marks = VecDeque::from([(Instant::now(), store.revision())]);
    loop {
        tokio::time::sleep(LOOK).await;
        let mut old = None;
        while marks.front().is_some_and(|(at, _)| at.elapsed() > LIFE) {
            old = marks.pop_front().map(|(_, revision)| revision);
        }
        if let Some(old) = old {
            remove(&store, old);
        }
        marks.push_back((Instant::now(), store.revision()));
    }
}

/// Removes the events that have not changed since `revision`.
fn remove(store: &Store, revision: u64) {
    for (kind, event) in store.filtered(|kind, o| kind == "events" && o.revision <= revision) {
        // Changed in between: it is not old any more.
        let _ = store.remove(&kind, &event);
    }
}
