//! What is promised of an installed Strand, each promise as a scenario on a real cluster of two nodes, and a third that joins: real kubelets, containerd, the
//! stock CSI sidecars, the chart with its RBAC. `make e2e` runs them, as root; by themselves they are left out.
//!
//! One cluster for all, in the order in which a user meets them; parts of scenarios' names as arguments run those that match, and
//! `install`, which the others build on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets what it did not expect stops there"
)]

mod access;
mod cert_manager;
mod certificates;
mod confined;
mod corpus;
mod deletions;
mod faults;
mod figures;
mod install;
mod life;
mod monitoring;
mod nodes;
mod operator;
mod pods;
mod policies;
mod rack;
mod running;
mod told;
mod volumes;
mod workloads;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use rack::Rack;
use strand_e2e::guard::Guard;
use strand_e2e::{enter, guard, images, repository};

type Scenario = (&'static str, fn(&Rack));

const SCENARIOS: &[Scenario] = &[
    (
        "install::a_pool_is_ready_after_helm_install",
        install::a_pool_is_ready_after_helm_install,
    ),
    ("install::helm_test_passes", install::helm_test_passes),
    (
        "install::the_image_says_what_is_in_it",
        install::the_image_says_what_is_in_it,
    ),
    (
        "install::what_readme_and_notes_say_to_apply_is_taken",
        install::what_readme_and_notes_say_to_apply_is_taken,
    ),
    (
        "pods::a_pod_gets_volume_and_endpoint",
        pods::a_pod_gets_volume_and_endpoint,
    ),
    (
        "pods::blocks_are_found_on_other_nodes_by_their_namespace_alone",
        pods::blocks_are_found_on_other_nodes_by_their_namespace_alone,
    ),
    ("pods::pods_start_soon", pods::pods_start_soon),
    (
        "volumes::a_block_claim_is_a_device",
        volumes::a_block_claim_is_a_device,
    ),
    (
        "volumes::an_ephemeral_volume_goes_with_its_pod",
        volumes::an_ephemeral_volume_goes_with_its_pod,
    ),
    (
        "volumes::a_claim_grows_under_its_pod",
        volumes::a_claim_grows_under_its_pod,
    ),
    (
        "volumes::a_snapshot_and_what_is_made_of_it",
        volumes::a_snapshot_and_what_is_made_of_it,
    ),
    (
        "volumes::a_group_of_snapshots_comes_and_goes_as_one",
        volumes::a_group_of_snapshots_comes_and_goes_as_one,
    ),
    (
        "volumes::an_attributes_class_limits_a_volume_in_use",
        volumes::an_attributes_class_limits_a_volume_in_use,
    ),
    (
        "volumes::classes_and_scratch_space",
        volumes::classes_and_scratch_space,
    ),
    (
        "workloads::a_job_ends_with_its_endpoint",
        workloads::a_job_ends_with_its_endpoint,
    ),
    (
        "workloads::a_deployment_is_rolled_out",
        workloads::a_deployment_is_rolled_out,
    ),
    (
        "workloads::a_stateful_set_keeps_its_volume",
        workloads::a_stateful_set_keeps_its_volume,
    ),
    (
        "told::kubectl_strand_tells_of_the_rack",
        told::kubectl_strand_tells_of_the_rack,
    ),
    (
        "told::kubectl_finds_its_plugin",
        told::kubectl_finds_its_plugin,
    ),
    (
        "told::preflight_looks_at_a_node",
        told::preflight_looks_at_a_node,
    ),
    (
        "told::pods_are_told_what_they_get",
        told::pods_are_told_what_they_get,
    ),
    (
        "told::wrong_objects_are_refused_with_what_to_write",
        told::wrong_objects_are_refused_with_what_to_write,
    ),
    (
        "operator::pods_are_made_without_one",
        operator::pods_are_made_without_one,
    ),
    (
        "operator::pods_go_on_without_one",
        operator::pods_go_on_without_one,
    ),
    (
        "operator::a_pod_waits_no_longer_than_its_timeout",
        operator::a_pod_waits_no_longer_than_its_timeout,
    ),
    (
        "access::a_quota_holds_its_namespace_and_spares_the_others",
        access::a_quota_holds_its_namespace_and_spares_the_others,
    ),
    (
        "access::room_is_shared_by_weight",
        access::room_is_shared_by_weight,
    ),
    (
        "access::a_pool_that_is_granted_is_for_nobody_else",
        access::a_pool_that_is_granted_is_for_nobody_else,
    ),
    (
        "access::a_door_is_for_its_own_pod",
        access::a_door_is_for_its_own_pod,
    ),
    (
        "access::on_the_nodes_network_a_password_is_needed",
        access::on_the_nodes_network_a_password_is_needed,
    ),
    (
        "confined::the_agents_alone_have_io_uring",
        confined::the_agents_alone_have_io_uring,
    ),
    (
        "confined::all_but_the_nodes_pods_are_restricted",
        confined::all_but_the_nodes_pods_are_restricted,
    ),
    (
        "confined::an_agents_token_is_good_for_its_own_node",
        confined::an_agents_token_is_good_for_its_own_node,
    ),
    (
        "policies::ports_answer_whom_they_are_for",
        policies::ports_answer_whom_they_are_for,
    ),
    (
        "monitoring::its_objects_are_taken_by_the_api_server",
        monitoring::its_objects_are_taken_by_the_api_server,
    ),
    (
        "certificates::they_are_renewed_while_pods_are_made",
        certificates::they_are_renewed_while_pods_are_made,
    ),
    (
        "deletions::objects_go_from_the_bottom_up",
        deletions::objects_go_from_the_bottom_up,
    ),
    (
        "deletions::a_pool_that_waits_says_for_what",
        deletions::a_pool_that_waits_says_for_what,
    ),
    (
        "deletions::a_namespace_goes_with_all_that_is_in_it",
        deletions::a_namespace_goes_with_all_that_is_in_it,
    ),
    ("faults::an_agent_is_killed", faults::an_agent_is_killed),
    (
        "faults::operator_and_driver_are_killed",
        faults::operator_and_driver_are_killed,
    ),
    ("faults::a_kubelet_is_killed", faults::a_kubelet_is_killed),
    (
        "faults::the_api_server_is_away",
        faults::the_api_server_is_away,
    ),
    (
        "faults::pods_end_without_their_agent",
        faults::pods_end_without_their_agent,
    ),
    (
        "faults::a_pod_deleted_by_force_leaves_nothing",
        faults::a_pod_deleted_by_force_leaves_nothing,
    ),
    (
        "nodes::pods_move_while_their_node_is_drained",
        nodes::pods_move_while_their_node_is_drained,
    ),
    ("nodes::a_node_reboots", nodes::a_node_reboots),
    (
        "nodes::a_node_is_lost_and_found",
        nodes::a_node_is_lost_and_found,
    ),
    (
        "nodes::a_node_joins_is_drained_and_leaves",
        nodes::a_node_joins_is_drained_and_leaves,
    ),
    (
        "corpus::the_embedded_api_server_answers_like_the_real_one",
        corpus::the_embedded_api_server_answers_like_the_real_one,
    ),
    (
        "life::an_upgrade_harms_nobody",
        life::an_upgrade_harms_nobody,
    ),
    (
        "figures::how_long_admission_takes",
        figures::how_long_admission_takes,
    ),
    (
        "figures::what_an_idle_node_costs",
        figures::what_an_idle_node_costs,
    ),
    (
        "life::reinstalling_takes_everything_back",
        life::reinstalling_takes_everything_back,
    ),
    (
        "life::deleted_definitions_lose_no_volume",
        life::deleted_definitions_lose_no_volume,
    ),
    (
        "life::release_and_uninstall_leave_nothing",
        life::release_and_uninstall_leave_nothing,
    ),
    (
        "life::an_upgrade_from_the_previous_chart_harms_nobody",
        life::an_upgrade_from_the_previous_chart_harms_nobody,
    ),
    (
        "deletions::definitions_go_after_uninstalling",
        deletions::definitions_go_after_uninstalling,
    ),
];

fn main() -> ExitCode {
    if let Some(done) = guard::role() {
        return code(done);
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        for (name, _) in SCENARIOS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !args.iter().any(|arg| arg.ends_with("ignored")) {
        println!(
            "{} scenarios left out: they need root and minutes (make e2e)",
            SCENARIOS.len()
        );
        return ExitCode::SUCCESS;
    }
    match enter::inside() {
        None => code(outside(&args)),
        Some(dir) => {
            let parts = args.iter().filter(|arg| !arg.starts_with('-'));
            inside(&dir, &parts.map(String::as_str).collect::<Vec<_>>())
        }
    }
}

fn code(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn outside(args: &[String]) -> anyhow::Result<()> {
    let begun = Instant::now();
    images::make()?;
    println!("images: {:.0?}", begun.elapsed());
    let dir = repository().canonicalize()?.join(".cache/e2e/bed");
    let guard = Guard::start(&dir)?;
    let status = enter::enter(&dir, args);
    let left = guard.finish();
    anyhow::ensure!(status?.success(), "a scenario failed");
    left
}

fn inside(dir: &Path, parts: &[&str]) -> ExitCode {
    let begun = Instant::now();
    let rack = Rack::start(dir);
    println!("cluster: {:.1?}", begun.elapsed());
    let wanted = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part));
    let logs = repository().join("target/e2e-logs");
    let _ = std::fs::remove_dir_all(&logs);
    let mut failed = 0;
    for (name, scenario) in SCENARIOS {
        if !wanted(name) && *name != SCENARIOS[0].0 {
            continue;
        }
        let begun = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| scenario(&rack))).is_ok() {
            println!("test {name} ... ok ({:.1?})", begun.elapsed());
            continue;
        }
        let logs = logs.join(name);
        rack.cluster.explain(&logs);
        println!(
            "test {name} ... FAILED ({:.1?}); logs: {}",
            begun.elapsed(),
            logs.display()
        );
        failed += 1;
        if *name == SCENARIOS[0].0 {
            break;
        }
        // The others do not trip over what it left.
        rack.clear();
    }
    println!("{failed} failed; {:.0?} in all", begun.elapsed());
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
