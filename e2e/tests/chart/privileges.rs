//! What each component may do, on its node and to the API.

use crate::helm::{cases, containers, documents, render, root, title};
use serde_json::Value;
use std::collections::BTreeSet;

fn all() -> Vec<(String, Vec<Value>)> {
    cases()
        .into_iter()
        .map(|(name, values)| (name, documents(&render(&["--values", &values]).unwrap())))
        .collect()
}

#[test]
fn only_the_two_node_processes_are_privileged() {
    for (case, objects) in all() {
        let mut privileged = BTreeSet::new();
        for object in &objects {
            for container in containers(object) {
                let name = container["name"].as_str().unwrap();
                let what = format!("{case}: {} {name}", title(object));
                let context = &container["securityContext"];
                assert_eq!(context["readOnlyRootFilesystem"], true, "{what}");
                assert!(
                    container["resources"]["requests"]["memory"].is_string(),
                    "{what}"
                );
                assert!(
                    container["resources"]["limits"]["memory"].is_string(),
                    "{what}"
                );
                if name == "agent" {
                    // The runtimes' default profiles refuse io_uring; the agent applies its own.
                    assert_eq!(context["seccompProfile"]["type"], "Unconfined", "{what}");
                }
                if context["privileged"] == true {
                    privileged.insert(name.to_owned());
                    continue;
                }
                assert_eq!(context["allowPrivilegeEscalation"], false, "{what}");
                assert_eq!(context["capabilities"]["drop"][0], "ALL", "{what}");
                assert!(context["capabilities"]["add"].is_null(), "{what}");
                // The restricted standard, but for what speaks to the kubelet's sockets, which are root's.
                if object["kind"] != "DaemonSet" {
                    let pod = match object["kind"].as_str() {
                        Some("Pod") => &object["spec"]["securityContext"],
                        _ => &object["spec"]["template"]["spec"]["securityContext"],
                    };
                    assert_eq!(pod["runAsNonRoot"], true, "{what}");
                    assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault", "{what}");
                    assert!(context["runAsUser"].is_null(), "{what}");
                }
            }
        }
        assert_eq!(
            privileged.into_iter().collect::<Vec<_>>(),
            ["agent", "csi"],
            "{case}"
        );
    }
}

/// The stock sidecars beside them have no use for what the agents may do.
#[test]
fn on_nodes_only_the_two_node_processes_have_the_token() {
    for (case, objects) in all() {
        let set = objects.iter().find(|o| o["kind"] == "DaemonSet").unwrap();
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{case}");
        let volumes = pod["volumes"].as_array().unwrap().iter();
        let tokens: Vec<_> = volumes
            .filter(|volume| volume.to_string().contains("serviceAccountToken"))
            .map(|volume| &volume["name"])
            .collect();
        let holders: Vec<_> = containers(set)
            .into_iter()
            .filter(|container| {
                let mut mounts = container["volumeMounts"].as_array().unwrap().iter();
                mounts.any(|mount| tokens.contains(&&mount["name"]))
            })
            .map(|container| &container["name"])
            .collect();
        let expected: &[&str] = match case.as_str() {
            // A driver that is told its pool asks nobody.
            "everything" => &["agent"],
            _ => &["agent", "csi"],
        };
        assert_eq!(holders, expected, "{case}");
    }
}

#[test]
fn no_role_has_wildcards_or_reads_secrets_at_large() {
    for (case, objects) in all() {
        for role in &objects {
            if !matches!(role["kind"].as_str(), Some("Role" | "ClusterRole")) {
                continue;
            }
            let test = role["metadata"]["name"] == "strand-test";
            for rule in role["rules"].as_array().unwrap() {
                let words = rule.to_string();
                assert!(
                    test || !words.contains('*'),
                    "{case}: {}: {words}",
                    title(role)
                );
                if words.contains("\"secrets\"") {
                    let named = rule["resourceNames"]
                        .as_array()
                        .is_some_and(|n| !n.is_empty());
                    let verbs: Vec<_> = rule["verbs"].as_array().unwrap().iter().collect();
                    assert!(named && role["kind"] == "Role", "{case}: {words}");
                    assert_eq!(verbs, ["get", "update"], "{case}");
                }
                for dangerous in [
                    "pods/exec",
                    "escalate",
                    "bind",
                    "impersonate",
                    "serviceaccounts",
                    "nodes/proxy",
                ] {
                    assert!(
                        !words.contains(&format!("\"{dangerous}\"")),
                        "{case}: {words}"
                    );
                }
            }
        }
    }
}

/// What a stolen agent's token could do to other nodes' objects is refused by a policy.
#[test]
fn whatever_an_agent_may_write_is_under_a_policy() {
    for (case, objects) in all() {
        let named = |kind: &'static str| objects.iter().filter(move |o| o["kind"] == kind);
        let covered: BTreeSet<&str> = named("ValidatingAdmissionPolicy")
            .filter(|policy| policy["spec"]["failurePolicy"] == "Fail")
            .flat_map(|policy| {
                policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"]
                    .as_array()
                    .unwrap()
            })
            .map(|resource| resource.as_str().unwrap())
            .collect();
        assert_eq!(
            named("ValidatingAdmissionPolicy").count(),
            named("ValidatingAdmissionPolicyBinding").count(),
            "{case}"
        );
        let role = named("ClusterRole")
            .find(|r| r["metadata"]["name"] == "strand-node")
            .unwrap();
        for rule in role["rules"].as_array().unwrap() {
            let reads = |verb: &Value| matches!(verb.as_str(), Some("get" | "list" | "watch"));
            if rule["apiGroups"][0] != "strand.dev"
                || rule["verbs"].as_array().unwrap().iter().all(reads)
            {
                continue;
            }
            for resource in rule["resources"].as_array().unwrap() {
                assert!(
                    covered.contains(resource.as_str().unwrap()),
                    "{case}: {resource}"
                );
            }
        }
    }
}

/// Of a volume's status an agent may tell of the array alone; what comes to the status later has to come to the policy.
#[test]
fn agents_leave_the_rest_of_a_volumes_status() {
    let file = std::fs::read_to_string(root().join("crds/poolvolumes.yaml")).unwrap();
    let definition: Value = serde_yaml::from_str(&file).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let fields = schema["properties"]["status"]["properties"].as_object();
    let fields = fields.unwrap().keys().filter(|field| *field != "array");
    for (case, objects) in all() {
        let policy = objects
            .iter()
            .find(|object| title(object) == "ValidatingAdmissionPolicy strand-node-volumes");
        let Some(policy) = policy else {
            panic!("{case}: no such policy");
        };
        let validations = policy["spec"]["validations"].to_string();
        for field in fields.clone() {
            let same = format!("object.status.?{field} == oldObject.?status.?{field}");
            assert!(validations.contains(&same), "{case}: {field}");
        }
    }
}
