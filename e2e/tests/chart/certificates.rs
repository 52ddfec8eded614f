//! Who makes the webhook's certificates: cert-manager where the cluster has it, unless the values say otherwise.

use serde_json::{Value, json};

use crate::helm::{containers, documents, render, title};

const THERE: [&str; 2] = ["--api-versions", "cert-manager.io/v1"];

fn find<'a>(all: &'a [Value], wanted: &str) -> Option<&'a Value> {
    all.iter().find(|object| title(object) == wanted)
}

/// What the operator is told.
fn source(all: &[Value]) -> Value {
    let operator = find(all, "Deployment strand-operator").unwrap();
    let env = containers(operator)[0]["env"].as_array().unwrap();
    let named = |entry: &&Value| entry["name"] == "STRAND_WEBHOOK_CERTIFICATES";
    env.iter().find(named).unwrap()["value"].clone()
}

/// The Secrets that the operator may read.
fn read(all: &[Value]) -> Value {
    let role = find(all, "Role strand-operator").unwrap();
    let mut rules = role["rules"].as_array().unwrap().iter();
    let secrets = rules.find(|rule| rule["resources"] == json!(["secrets"]));
    secrets.unwrap()["resourceNames"].clone()
}

#[test]
fn cert_manager_issues_where_it_is_there() {
    let all = documents(&render(&THERE).unwrap());
    let certificate = find(&all, "Certificate strand-webhook").unwrap();
    assert_eq!(
        certificate["spec"]["secretName"],
        "strand-webhook-cert-manager"
    );
    assert_eq!(
        certificate["spec"]["dnsNames"],
        json!(["strand-webhook.strand-system.svc"])
    );
    assert!(find(&all, "Issuer strand-webhook").is_some());
    // cert-manager makes its own.
    assert!(find(&all, "Secret strand-webhook").is_none());
    assert!(find(&all, "Secret strand-webhook-cert-manager").is_none());
    assert_eq!(source(&all), "cert-manager");
    assert_eq!(
        read(&all),
        json!(["strand-peer-key", "strand-webhook-cert-manager"])
    );
    for kind in ["MutatingWebhook", "ValidatingWebhook"] {
        let hooks = find(&all, &format!("{kind}Configuration strand")).unwrap();
        assert_eq!(
            hooks["metadata"]["annotations"]["cert-manager.io/inject-ca-from"],
            "strand-system/strand-webhook"
        );
    }
}

#[test]
fn the_operator_issues_otherwise() {
    let told = [&THERE[..], &["--set", "webhook.certificates=operator"]].concat();
    for args in [&[][..], &told] {
        let all = documents(&render(args).unwrap());
        assert!(find(&all, "Certificate strand-webhook").is_none());
        assert!(find(&all, "Secret strand-webhook").is_some());
        assert_eq!(source(&all), "operator");
        assert_eq!(read(&all), json!(["strand-peer-key", "strand-webhook"]));
    }
}
