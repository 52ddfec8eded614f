//! Values that will be asked for next: fetched while the one before them is being sent, given in order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::store::{Error, Store, Value};

/// Bytes that may be fetched ahead, by the length of the value that came last.
const BYTES: usize = 8 << 20;
/// Values that may be fetched ahead.
pub(crate) const MOST: usize = 16;
/// Values that are fetched ahead while no length is known.
const FIRST: usize = 1;
/// A value that is waited for longer than this may wait for room which those ahead of it have.
const WAIT: Duration = Duration::from_millis(100);

type Found<S> = Result<Option<<S as Store>::Value>, Error>;

/// The values of one connection that are under way.
pub(crate) struct Ahead<S: Store> {
    endpoint: Arc<Endpoint<S>>,
    under_way: VecDeque<(Vec<u8>, Fetch<S>)>,
    /// How many may be.
    depth: usize,
}

enum Fetch<S: Store> {
    Asked(BoxFuture<'static, Found<S>>),
    There(Found<S>),
}

impl<S: Store> Ahead<S> {
    pub(crate) fn new(endpoint: Arc<Endpoint<S>>) -> Self {
        Self {
            endpoint,
            under_way: VecDeque::new(),
            depth: FIRST,
        }
    }

    /// The value of `key`, while those that `next` names are fetched.
    pub(crate) async fn fetch(&mut self, key: &[u8], next: &[Vec<u8>]) -> Found<S> {
        let fetch = match self.under_way.pop_front() {
            Some((ahead, fetch)) if ahead == key => fetch,
            _ => {
                // Something else came between, or nothing was to be expected.
                self.under_way.clear();
                if next.is_empty() {
                    let found = self.endpoint.store.fetch(key).await;
                    return self.learn(found);
                }
                start(&self.endpoint, key).await
            }
        };
        for key in next.iter().take(self.depth).skip(self.under_way.len()) {
            let fetch = start(&self.endpoint, key).await;
            self.under_way.push_back((key.clone(), fetch));
        }
        let found = match fetch {
            Fetch::There(found) => found,
            Fetch::Asked(asked) => self.giving_way(asked).await,
        };
        self.learn(found)
    }

    /// What `wanted` comes to. Where that takes long, those that were fetched ahead let go of the room that they have.
    pub(crate) async fn giving_way<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        let mut wanted = std::pin::pin!(wanted);
        match timeout(WAIT, &mut wanted).await {
            Ok(come) => come,
            Err(_) => {
                self.under_way.clear();
                wanted.await
            }
        }
    }

    /// Something else comes: what was asked for would be too old.
    pub(crate) fn forget(&mut self) {
        self.under_way.clear();
    }

    fn learn(&mut self, found: Found<S>) -> Found<S> {
        if let Ok(Some(value)) = &found {
            let length = usize::try_from(value.length()).unwrap_or(usize::MAX);
            self.depth = (BYTES / length.max(1)).min(MOST);
        }
        found
    }
}

/// Asks for a value. Its answer comes without anyone looking after it.
async fn start<S: Store>(endpoint: &Arc<Endpoint<S>>, key: &[u8]) -> Fetch<S> {
    let (endpoint, key) = (Arc::clone(endpoint), key.to_vec());
    let mut asked: BoxFuture<'static, Found<S>> =
        Box::pin(async move { endpoint.store.fetch(&key).await });
    match futures::poll!(Pin::new(&mut asked)) {
        Poll::Ready(found) => Fetch::There(found),
        Poll::Pending => Fetch::Asked(asked),
    }
}
