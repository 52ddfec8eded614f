//! From HTTP requests to what they ask for, and back.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header},
};
use serde_json::{Value, json};

use crate::{
    collect::{DeleteOptions, Deleted, Propagation},
    discovery,
    format::{self, Form},
    object::Key,
    openapi, protobuf,
    read::{self, Pages, json_response},
    request::{Path, Query},
    stats::{Counter, Request as Counted, Stats},
    status::{Failure, qualified},
    write::{PatchKind, Target, Writes, Written},
};

/// Bodies may be so large, as on the real server.
const BODY_MAX: usize = 3 << 20;

/// What every request handler shares.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) writes: Arc<Writes>,
    pub(crate) pages: Pages,
    pub(crate) counter: Counter,
    pub(crate) token: String,
}

impl Api {
    pub(crate) fn stats(&self) -> Stats {
        let objects = self
            .writes
            .store
            .count()
            .into_iter()
            .map(|(k, n)| (k, n as u64))
            .collect();
        Stats {
            requests: self.counter.read(),
            objects,
            watchers: self.writes.store.watchers() as u64,
        }
    }
}

/// Answers one request.
pub(crate) async fn handle(State(api): State<Arc<Api>>, request: Request<Body>) -> Response<Body> {
    let path = Path::parse(request.uri().path());
    let counted = count_as(&request, path.as_ref());
    let answer = answer(&api, request, path)
        .await
        .unwrap_or_else(Failure::into_response);
    api.counter.count(Counted {
        code: answer.status().as_u16(),
        ..counted
    });
    answer
}

fn count_as(request: &Request<Body>, path: Option<&Path>) -> Counted {
    let Some(path) = path else {
        return Counted {
            verb: "other",
            resource: request.uri().path().chars().take(64).collect(),
            code: 0,
        };
    };
    let query = Query::parse(request.uri());
    let mut resource = qualified(&path.group, &path.plural);
    if !path.subresource.is_empty() {
        resource = format!("{resource}/{}", path.subresource);
    }
    let verb = match (request.method(), path.name.is_empty()) {
        (&Method::GET, _) if path.watch || query.flag("watch") => "watch",
        (&Method::GET, true) => "list",
        (&Method::GET, false) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _)
            if header_text(request.headers(), header::CONTENT_TYPE)
                .starts_with("application/apply-patch") =>
        {
            "apply"
        }
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "deletecollection",
        (&Method::DELETE, false) => "delete",
        _ => "other",
    };
    Counted {
        verb,
        resource,
        code: 0,
    }
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
}

async fn answer(
    api: &Api,
    request: Request<Body>,
    path: Option<Path>,
) -> Result<Response<Body>, Failure> {
    let open = matches!(
        request.uri().path(),
        "/healthz" | "/readyz" | "/livez" | "/version"
    );
    let bearer = header_text(request.headers(), header::AUTHORIZATION).strip_prefix("Bearer ");
    if !open && !bearer.is_some_and(|token| same(token.trim(), &api.token)) {
        return Err(Failure::unauthorized());
    }
    match path {
        None => meta(api, &request),
        Some(path) => objects(api, request, path).await,
    }
}

/// Compares without telling by its time how much was right.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes()
            .zip(b.bytes())
            .fold(0, |diff, (x, y)| diff | (x ^ y))
            == 0
}

/// Everything that names no objects.
fn meta(api: &Api, request: &Request<Body>) -> Result<Response<Body>, Failure> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Failure::method_not_allowed());
    }
    let registry = &api.writes.registry;
    let accept = header_text(request.headers(), header::ACCEPT);
    let aggregated = accept.contains("as=APIGroupDiscoveryList")
        && accept.contains("v=v2;") | accept.contains("v=v2,") | accept.ends_with("v=v2");
    let steps: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let text = |text: String| {
        let mut response = Response::new(Body::from(text));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    };
    let value = match steps.as_slice() {
        ["healthz" | "readyz" | "livez", ..] => return Ok(text("ok".into())),
        ["metrics"] => return Ok(text(api.stats().text())),
        ["version"] => version(),
        ["api"] | ["apis"] if aggregated => {
            let body = discovery::aggregated(registry, steps[0] == "api").to_string();
            let mut response = json_response(body);
            let kind = HeaderValue::from_static(
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            );
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            return Ok(response);
        }
        ["api"] => discovery::core_versions(),
        ["apis"] => discovery::groups(registry),
        ["api", version] => {
            discovery::resources(registry, "", version).ok_or_else(Failure::no_such_path)?
        }
        ["apis", group] => {
            discovery::one_group(registry, group).ok_or_else(Failure::no_such_path)?
        }
        ["apis", group, version] => {
            discovery::resources(registry, group, version).ok_or_else(Failure::no_such_path)?
        }
        ["openapi", "v3"] => openapi::index(registry),
        ["openapi", "v3", "api", version] => {
            openapi::document(registry, "", version).ok_or_else(Failure::no_such_path)?
        }
        ["openapi", "v3", "apis", group, version] => {
            openapi::document(registry, group, version).ok_or_else(Failure::no_such_path)?
        }
        ["openapi", "v2"] => {
            let why =
                "the embedded API server serves OpenAPI version 3 at /openapi/v3, not version 2";
            return Err(Failure::not_acceptable(why));
        }
        [""] => {
            json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"]})
        }
        _ => return Err(Failure::no_such_path()),
    };
    Ok(json_response(value.to_string()))
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": concat!("v1.36.0+strand.", env!("CARGO_PKG_VERSION")), "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": "linux/any",
    })
}

async fn objects(api: &Api, request: Request<Body>, path: Path) -> Result<Response<Body>, Failure> {
    let (parts, body) = request.into_parts();
    let resource = api
        .writes
        .registry
        .find(&path.group, &path.version, &path.plural)
        .ok_or_else(Failure::no_such_path)?;
    if !resource.namespaced && !path.namespace.is_empty() {
        return Err(Failure::no_such_path());
    }
    let status = match path.subresource.as_str() {
        "" => false,
        "status" if resource.status => true,
        "status" | "scale" => return Err(Failure::no_such_path()),
        "finalize" if path.plural == "namespaces" => {
            return Err(Failure::not_served("the finalize subresource"));
        }
        _ if resource.is_custom() => return Err(Failure::no_such_path()),
        "log"
        | "exec"
        | "attach"
        | "portforward"
        | "proxy"
        | "eviction"
        | "binding"
        | "ephemeralcontainers"
        | "token"
        | "resize" => {
            return Err(Failure::not_served(&format!(
                "the {} subresource of {}",
                path.subresource, path.plural
            )));
        }
        _ => return Err(Failure::no_such_path()),
    };
    let query = Query::parse(&parts.uri);
    let form = Form::negotiate(
        header_text(&parts.headers, header::ACCEPT),
        query.get("includeObject"),
    )?;
    let agent = header_text(&parts.headers, header::USER_AGENT);
    let media = header_text(&parts.headers, header::CONTENT_TYPE);
    let target = Target {
        key: Key::new(&path.namespace, &path.name),
        resource: Arc::clone(&resource),
        status,
    };
    let store = &api.writes.store;
    let one = !path.name.is_empty();
    let needs_namespace = resource.namespaced && path.namespace.is_empty();

    match parts.method {
        Method::GET if path.watch || query.flag("watch") => {
            read::watch(store, &resource, &path.namespace, &path.name, &query, form)
        }
        Method::GET if one => {
            let object = store
                .get(&resource.storage(), &target.key)
                .ok_or_else(|| target.not_found())?;
            Ok(json_response(format::object(&resource, &object, form)))
        }
        Method::GET => read::list(store, &api.pages, &resource, &path.namespace, &query, form),
        Method::POST if !one && !needs_namespace => {
            let options = query.write_options(agent, "Create", false)?;
            let body = parse(media, &read_body(body).await?)?;
            written(&target, api.writes.create(&target, body, &options)?, form)
        }
        Method::PUT if one => {
            let options = query.write_options(agent, "Update", false)?;
            let body = parse(media, &read_body(body).await?)?;
            written(&target, api.writes.replace(&target, body, &options)?, form)
        }
        Method::PATCH if one => {
            let kind = patch_kind(media)?;
            let options = query.write_options(agent, "Patch", kind == PatchKind::Apply)?;
            let body = parse(
                if kind == PatchKind::Apply {
                    "application/yaml"
                } else {
                    "application/json"
                },
                &read_body(body).await?,
            )?;
            written(
                &target,
                api.writes.patch(&target, kind, body, &options)?,
                form,
            )
        }
        Method::DELETE => {
            let options = delete_options(&query, &read_body(body).await?)?;
            if one && !status {
                return Ok(deleted(&target, api.writes.delete(&target, &options)?));
            }
            if one || needs_namespace {
                return Err(Failure::method_not_allowed());
            }
            delete_collection(api, &target, &query, &options, form)
        }
        _ => Err(Failure::method_not_allowed()),
    }
}

async fn read_body(body: Body) -> Result<Bytes, Failure> {
    axum::body::to_bytes(body, BODY_MAX)
        .await
        .map_err(|_| Failure::too_large(format!("Request entity too large: limit is {BODY_MAX}")))
}

fn parse(media: &str, body: &[u8]) -> Result<Value, Failure> {
    let media = media.split(';').next().unwrap_or_default().trim();
    match media {
        "" | "application/json" | "*/*" => serde_json::from_slice(body)
            .map_err(|e| Failure::bad_request(format!("the body is not JSON: {e}"))),
        "application/yaml" | "text/yaml" => serde_yaml::from_slice(body)
            .map_err(|e| Failure::bad_request(format!("the body is not YAML: {e}"))),
        "application/vnd.kubernetes.protobuf" => protobuf::read(body).map_err(|why| {
            Failure::unsupported_media(format!(
                "the embedded API server cannot read this protobuf body: {why}"
            ))
        }),
        other => Err(Failure::unsupported_media(format!(
            "the body of the request was in an unknown format ({other}) - accepted media types include: application/json, application/yaml \
(the embedded API server reads no CBOR)"
        ))),
    }
}

fn patch_kind(media: &str) -> Result<PatchKind, Failure> {
    match media.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        _ => Err(Failure::unsupported_media(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
        )),
    }
}

fn written(target: &Target, written: Written, form: Form) -> Result<Response<Body>, Failure> {
    let mut response =
        json_response(format::value(&target.resource, written.object, form).to_string());
    if written.created {
        *response.status_mut() = StatusCode::CREATED;
    }
    for warning in written.warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    Ok(response)
}

fn delete_options(query: &Query, body: &[u8]) -> Result<DeleteOptions, Failure> {
    let sent: Value = match body.is_empty() {
        true => json!({}),
        false => parse("application/json", body)?,
    };
    let word = match sent["propagationPolicy"].as_str() {
        Some(word) => word,
        None => query.get("propagationPolicy"),
    };
    let propagation = match word {
        "" if sent["orphanDependents"] == true || query.flag("orphanDependents") => {
            Propagation::Orphan
        }
        "" | "Background" => Propagation::Background,
        "Foreground" => Propagation::Foreground,
        "Orphan" => Propagation::Orphan,
        other => {
            let why = format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
            );
            return Err(Failure::new(422, "Invalid", why));
        }
    };
    let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let dry_run = query.dry_run()?
        || sent["dryRun"]
            .as_array()
            .is_some_and(|d| d.iter().any(|v| v == "All"));
    let conditions = &sent["preconditions"];
    Ok(DeleteOptions {
        uid: text(&conditions["uid"]),
        revision: text(&conditions["resourceVersion"]),
        propagation,
        dry_run,
    })
}

fn deleted(target: &Target, deleted: Deleted) -> Response<Body> {
    let resource = &target.resource;
    match deleted {
        Deleted::Waiting(object) => {
            json_response(format::value(resource, object, Form::Object).to_string())
        }
        Deleted::Gone(object) => {
            let details = json!({
                "name": &*target.key.name, "group": resource.group, "kind": resource.plural, "uid": object["metadata"]["uid"],
            });
            let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            if resource.group.is_empty() {
                status["details"].as_object_mut().map(|d| d.remove("group"));
            }
            json_response(status.to_string())
        }
    }
}

fn delete_collection(
    api: &Api,
    target: &Target,
    query: &Query,
    options: &DeleteOptions,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let resource = &target.resource;
    let selector = read::selector(resource, &target.key.namespace, "", query)?;
    let (revision, objects) =
        api.writes
            .store
            .list(&resource.storage(), &target.key.namespace, &selector);
    for object in &objects {
        let one = Target {
            key: object.key.clone(),
            ..target.clone()
        };
        match api.writes.delete(&one, options) {
            Err(failure) if failure.reason != "NotFound" => return Err(failure),
            _ => {}
        }
    }
    let meta = json!({"resourceVersion": revision.to_string()});
    Ok(json_response(format::list(resource, &objects, &meta, form)))
}
