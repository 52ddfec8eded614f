//! NetworkPolicies, enforced: what a network plugin would do with them, as nftables rules in the pods' own networks.
//!
//! Of policies that admit (Ingress) on IPv4 and TCP, by `matchLabels`; whatever else one says is an error, so that nothing is taken for
//! enforced which is not. Peers are the pods that are there at that moment. Semantics: Kubernetes' documentation of NetworkPolicy.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Pods, namespaces and policies of a cluster, as lists of objects.
pub struct World<'a> {
    /// All pods.
    pub pods: &'a [Value],
    /// All namespaces.
    pub namespaces: &'a [Value],
    /// All NetworkPolicies.
    pub policies: &'a [Value],
}

impl World<'_> {
    /// The rules of a pod's network; none where no policy selects it, and everything is admitted. `node` are the addresses of its node,
    /// whose kubelet is always admitted.
    ///
    /// # Errors
    /// When a policy says what is not understood.
    pub fn rules(&self, pod: &Value, node: &[&str]) -> Result<Option<String>> {
        let mut lines = BTreeSet::new();
        let mut selected = false;
        for policy in self.policies {
            let spec = &policy["spec"];
            if policy["metadata"]["namespace"] != pod["metadata"]["namespace"]
                || !selects(&spec["podSelector"], pod)?
            {
                continue;
            }
            ensure!(
                spec["policyTypes"] == serde_json::json!(["Ingress"]),
                "policyTypes {}",
                spec["policyTypes"]
            );
            selected = true;
            for rule in list(&spec["ingress"]) {
                self.admit(rule, pod, &mut lines)?;
            }
        }
        let lines: Vec<String> = lines.into_iter().collect();
        // Only who begins a connection is asked: those that are there already stay.
        Ok(selected.then(|| {
            format!(
                "table inet policies {{\n chain input {{\n  type filter hook input priority 0; policy drop;\n  \
                 tcp flags & (syn | ack) != syn accept\n  iif lo accept\n  ip saddr {{ {} }} accept\n  {}\n }}\n}}\n",
                node.join(", "),
                lines.join("\n  ")
            )
        }))
    }

    fn admit(&self, rule: &Value, pod: &Value, lines: &mut BTreeSet<String>) -> Result<()> {
        let from = match list(&rule["from"]) {
            [] => String::new(),
            peers => {
                let mut addresses = BTreeSet::new();
                for peer in peers {
                    addresses.extend(self.addresses(peer, pod)?);
                }
                if addresses.is_empty() {
                    return Ok(());
                }
                let all: Vec<&str> = addresses.into_iter().collect();
                format!("ip saddr {{ {} }} ", all.join(", "))
            }
        };
        if list(&rule["ports"]).is_empty() {
            lines.insert(format!("{from}accept"));
        }
        for port in list(&rule["ports"]) {
            ensure!(port["protocol"] == "TCP", "protocol {}", port["protocol"]);
            let number = port["port"].as_u64().context("a port by its name")?;
            lines.insert(format!("{from}tcp dport {number} accept"));
        }
        Ok(())
    }

    /// Addresses of the pods that a peer means.
    fn addresses(&self, peer: &Value, pod: &Value) -> Result<Vec<&str>> {
        ensure!(peer["ipBlock"].is_null(), "ipBlock");
        let mut found = Vec::new();
        for other in self.pods {
            let namespace = &other["metadata"]["namespace"];
            let here = match &peer["namespaceSelector"] {
                Value::Null => *namespace == pod["metadata"]["namespace"],
                selector => {
                    let named = |one: &&Value| one["metadata"]["name"] == *namespace;
                    let of = self.namespaces.iter().find(named);
                    selects(selector, of.context("a pod of no namespace")?)?
                }
            };
            if here && (peer["podSelector"].is_null() || selects(&peer["podSelector"], other)?) {
                found.extend(other["status"]["podIP"].as_str());
            }
        }
        Ok(found)
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn selects(selector: &Value, object: &Value) -> Result<bool> {
    ensure!(
        selector["matchExpressions"].is_null(),
        "matchExpressions in {selector}"
    );
    let wanted = selector["matchLabels"].as_object();
    let labels = &object["metadata"]["labels"];
    Ok(wanted.is_none_or(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value)))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that meets what it did not expect shall stop there"
)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(namespace: &str, app: &str, ip: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "labels": {"app": app}}, "status": {"podIP": ip}})
    }

    fn policy(app: &str, ingress: Value) -> Value {
        json!({"metadata": {"namespace": "a"}, "spec": {
            "podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"], "ingress": ingress,
        }})
    }

    #[test]
    fn policies_admit_together_whom_each_names() {
        let pods = [
            pod("a", "web", "10.0.0.1"),
            pod("a", "db", "10.0.0.2"),
            pod("b", "web", "10.0.0.3"),
        ];
        let namespaces =
            ["a", "b"].map(|name| json!({"metadata": {"name": name, "labels": {"name": name}}}));
        let tcp = |port: u16| json!([{"protocol": "TCP", "port": port}]);
        let policies = [
            policy(
                "db",
                json!([
                    {"ports": tcp(1), "from": [{"podSelector": {"matchLabels": {"app": "web"}}}]},
                    {"ports": tcp(2), "from": [{"namespaceSelector": {"matchLabels": {"name": "b"}}}]},
                    {"ports": tcp(3), "from": [{"namespaceSelector": {"matchLabels": {"name": "c"}}}]},
                ]),
            ),
            policy("db", json!([{"ports": tcp(4)}])),
        ];
        let world = World {
            pods: &pods,
            namespaces: &namespaces,
            policies: &policies,
        };
        let rules = world.rules(&pods[1], &["10.0.0.254"]).unwrap().unwrap();
        let admits: Vec<&str> = rules
            .lines()
            .map(str::trim)
            .filter(|line| line.ends_with("accept"))
            .skip(2)
            .collect();
        let expected = [
            "ip saddr { 10.0.0.254 } accept",
            "ip saddr { 10.0.0.1 } tcp dport 1 accept",
            "ip saddr { 10.0.0.3 } tcp dport 2 accept",
            "tcp dport 4 accept",
        ];
        assert_eq!(admits, expected);
        assert_eq!(world.rules(&pods[0], &[]).unwrap(), None);
    }

    #[test]
    fn what_is_not_understood_is_not_taken_for_enforced() {
        let pods = [pod("a", "web", "10.0.0.1")];
        for ingress in [
            json!([{"ports": [{"protocol": "UDP", "port": 1}]}]),
            json!([{"ports": [{"protocol": "TCP", "port": "http"}]}]),
            json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]),
            json!([{"from": [{"podSelector": {"matchExpressions": []}}]}]),
        ] {
            let policies = [policy("web", ingress)];
            let world = World {
                pods: &pods,
                namespaces: &[],
                policies: &policies,
            };
            assert!(world.rules(&pods[0], &[]).is_err(), "{policies:?}");
        }
    }
}
