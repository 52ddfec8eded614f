//! Get, list and watch.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Response, header},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    format::{self, Form},
    object::Object,
    request::Query,
    resource::Resource,
    selector::Selector,
    status::Failure,
    store::{From, Store, Subscription},
    watch::Item,
};

/// A watch without `timeoutSeconds` ends after this time.
const WATCH_DEFAULT: Duration = Duration::from_secs(1800);
/// Lists whose later pages are kept ready, and for how long.
const PAGED_LISTS: usize = 32;
const PAGE_LIFE: Duration = Duration::from_secs(300);
/// Events are sent together up to this size.
const CHUNK: usize = 64 << 10;

/// A list as it was at one revision.
#[derive(Debug, Clone)]
struct Snapshot {
    revision: u64,
    objects: Arc<Vec<Arc<Object>>>,
}

#[derive(Debug)]
struct PagedList {
    id: String,
    snapshot: Snapshot,
    made: Instant,
}

/// The lists that are being read page by page: all pages show the same moment.
#[derive(Debug, Default)]
pub(crate) struct Pages(Mutex<VecDeque<PagedList>>);

pub(crate) fn json_response(body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// The selector that a query asks for.
pub(crate) fn selector(
    resource: &Resource,
    namespace: &str,
    name: &str,
    query: &Query,
) -> Result<Selector, Failure> {
    let selectable = match resource.is_custom() {
        true => resource.selectable.clone(),
        false => crate::builtin::selectable(&resource.storage()),
    };
    let mut fields = query.get("fieldSelector").to_owned();
    if resource.group == "events.k8s.io" {
        fields = fields.replace("regarding.", "involvedObject.");
    }
    let selector = Selector::parse(
        namespace,
        query.get("labelSelector"),
        &fields,
        &selectable,
        &resource.kind,
    )?;
    Ok(if name.is_empty() {
        selector
    } else {
        selector.named(name)
    })
}

/// Answers a list request.
pub(crate) fn list(
    store: &Store,
    pages: &Pages,
    resource: &Resource,
    namespace: &str,
    query: &Query,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let selector = selector(resource, namespace, "", query)?;
    let limit = query
        .number("limit")?
        .filter(|l| *l > 0)
        .map(|l| l as usize);
    let token = query.get("continue");
    let (snapshot, from) = if token.is_empty() {
        let (revision, objects) = store.list(&resource.storage(), namespace, &selector);
        check_revision(query, revision)?;
        (
            Snapshot {
                revision,
                objects: Arc::new(objects),
            },
            0,
        )
    } else {
        pages.resume(token)?
    };
    let Snapshot { revision, objects } = &snapshot;
    let end = limit.map_or(objects.len(), |l| objects.len().min(from + l));
    let mut meta = json!({"resourceVersion": revision.to_string()});
    if end < objects.len() {
        meta["continue"] = pages.keep(token, &snapshot, end).into();
        if !selector.is_narrow() {
            meta["remainingItemCount"] = (objects.len() - end).into();
        }
    } else {
        pages.finish(token);
    }
    Ok(json_response(format::list(
        resource,
        &objects[from..end],
        &meta,
        form,
    )))
}

fn check_revision(query: &Query, current: u64) -> Result<(), Failure> {
    let exact = query.get("resourceVersionMatch");
    let Some(asked) = query.number("resourceVersion")? else {
        return match exact {
            "" => Ok(()),
            _ => Err(Failure::bad_request(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            )),
        };
    };
    if asked > current {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let causes =
            json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        return Err(Failure::new(504, "Timeout", message)
            .with(json!({"causes": causes, "retryAfterSeconds": 1})));
    }
    if exact == "Exact" && asked != 0 && asked < current {
        return Err(Failure::expired(format!(
            "The resourceVersion for the provided list is too old: {asked}, current: {current}"
        )));
    }
    Ok(())
}

impl Pages {
    /// Keeps the list for its next page and returns the token for it.
    fn keep(&self, token: &str, snapshot: &Snapshot, at: usize) -> String {
        let id = match read_token(token) {
            Some((id, _)) => id,
            None => {
                let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                lists.retain(|l| l.made.elapsed() < PAGE_LIFE);
                if lists.len() >= PAGED_LISTS {
                    lists.pop_front();
                }
                let id = uuid::Uuid::new_v4().simple().to_string();
                lists.push_back(PagedList {
                    id: id.clone(),
                    snapshot: snapshot.clone(),
                    made: Instant::now(),
                });
                id
            }
        };
        URL_SAFE_NO_PAD.encode(json!({"v": "strand/v1", "list": id, "at": at}).to_string())
    }

    /// Lets go of a list whose last page was read: it holds old versions of objects in memory.
    fn finish(&self, token: &str) {
        if let Some((id, _)) = read_token(token) {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|l| l.id != id);
        }
    }

    fn resume(&self, token: &str) -> Result<(Snapshot, usize), Failure> {
        let (id, at) =
            read_token(token).ok_or_else(|| Failure::bad_request("continue key is not valid"))?;
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lists
            .iter()
            .find(|l| l.id == id && l.made.elapsed() < PAGE_LIFE);
        let kept = kept.ok_or_else(|| {
            Failure::expired("The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.")
        })?;
        Ok((kept.snapshot.clone(), at.min(kept.snapshot.objects.len())))
    }
}

fn read_token(token: &str) -> Option<(String, usize)> {
    let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    Some((
        value["list"].as_str()?.to_owned(),
        value["at"].as_u64()? as usize,
    ))
}

/// Answers a watch request.
pub(crate) fn watch(
    store: &Store,
    resource: &Arc<Resource>,
    namespace: &str,
    name: &str,
    query: &Query,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let selector = selector(resource, namespace, name, query)?;
    let bookmarks = query.flag("allowWatchBookmarks");
    let streaming = query.flag("sendInitialEvents");
    let matching = query.get("resourceVersionMatch");
    if streaming && matching != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(list_options(&format!(
            "resourceVersionMatch: Forbidden: {why}"
        )));
    }
    if !matching.is_empty() && query.get("sendInitialEvents").is_empty() {
        let why = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        return Err(list_options(why));
    }
    let revision = query.number("resourceVersion")?.unwrap_or(0);
    let from = match (query.get("sendInitialEvents"), revision) {
        ("true" | "1", _) | ("", 0) => From::Everything,
        (_, 0) => From::After(store.revision()),
        (_, revision) => From::After(revision),
    };
    let timeout = query
        .number("timeoutSeconds")?
        .filter(|t| *t > 0)
        .map_or(WATCH_DEFAULT, Duration::from_secs);

    let body = match store.watch(&resource.storage(), &selector, from, bookmarks) {
        Err(old) => {
            let failure = Failure::expired(format!(
                "too old resource version: {} ({})",
                old.asked, old.oldest
            ));
            Body::from(format!(
                "{{\"type\":\"ERROR\",\"object\":{}}}\n",
                failure.to_value()
            ))
        }
        Ok(subscription) => {
            let lines = Lines {
                resource: Arc::clone(resource),
                selector,
                form,
                initial_end: streaming && bookmarks,
            };
            Body::from_stream(lines.stream(subscription, Instant::now() + timeout))
        }
    };
    Ok(json_response(body))
}

fn list_options(why: &str) -> Failure {
    Failure::new(
        422,
        "Invalid",
        format!("ListOptions.meta.k8s.io \"\" is invalid: {why}"),
    )
    .with(json!({"group": "meta.k8s.io", "kind": "ListOptions"}))
}

/// Turns a subscription into the lines of one client's watch.
struct Lines {
    resource: Arc<Resource>,
    selector: Selector,
    form: Form,
    initial_end: bool,
}

impl Lines {
    fn line(&self, item: &Item) -> Option<Bytes> {
        match item {
            Item::Bookmark(revision) => Some(format::bookmark(
                &self.resource,
                *revision,
                false,
                self.form,
            )),
            Item::Event(event) => {
                let change = event.seen_by(&self.selector)?;
                let as_stored = self.form == Form::Object && self.resource.is_stored_version();
                if as_stored && change == event.change {
                    return Some(event.frame());
                }
                // An object that leaves the selection is shown as it was when it was in it, with this event's revision.
                Some(format::event(
                    &self.resource,
                    change,
                    &event.object,
                    self.form,
                ))
            }
        }
    }

    fn stream(
        self,
        subscription: Subscription,
        until: Instant,
    ) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
        let Subscription {
            revision,
            objects,
            missed,
            queue,
        } = subscription;
        let mut first: VecDeque<Bytes> = VecDeque::new();
        for object in &objects {
            first.push_back(format::event(
                &self.resource,
                crate::watch::Change::Added,
                object,
                self.form,
            ));
        }
        first.extend(
            missed
                .into_iter()
                .filter_map(|e| self.line(&Item::Event(e))),
        );
        if self.initial_end {
            first.push_back(format::bookmark(&self.resource, revision, true, self.form));
        }
        let state = State {
            lines: self,
            first,
            queue,
            until,
            done: false,
        };
        futures::stream::unfold(state, |mut state| async move {
            let chunk = state.next().await?;
            Some((Ok(chunk), state))
        })
    }
}

struct State {
    lines: Lines,
    first: VecDeque<Bytes>,
    queue: mpsc::Receiver<Item>,
    until: Instant,
    done: bool,
}

impl State {
    /// The next bytes to send: as many lines as are ready, up to a limit.
    async fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut chunk: Vec<Bytes> = Vec::new();
        let mut size = 0;
        while size < CHUNK
            && let Some(line) = self.first.pop_front()
        {
            size += line.len();
            chunk.push(line);
        }
        while chunk.is_empty() {
            tokio::select! {
                item = self.queue.recv() => match item {
                    // The watcher was too slow, or its kind is gone: the client comes back.
                    None => return None,
                    Some(item) => chunk.extend(self.lines.line(&item)),
                },
                () = tokio::time::sleep_until(self.until) => {
                    self.done = true;
                    return None;
                }
            }
        }
        while size < CHUNK && self.first.is_empty() {
            let Ok(item) = self.queue.try_recv() else {
                break;
            };
            if let Some(line) = self.lines.line(&item) {
                size += line.len();
                chunk.push(line);
            }
        }
        Some(match chunk.len() {
            1 => chunk.swap_remove(0),
            _ => chunk.concat().into(),
        })
    }
}
