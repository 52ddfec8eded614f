.PHONY: help demo test bench e2e rack-test rack-up crash-test crds

help:
	@echo "make demo    a rack of 3 nodes x 4 drives on this machine, step by step (about two minutes once built)"
	@echo "make test    everything that CI checks; installs the tools it needs"
	@echo "make e2e     what is installed, on a real Kubernetes on this machine (docs/e2e.md); as root, and twice as long the first time"
	@echo "make rack-test   scenarios on virtual machines with real NVMe drives; as root, and about ten minutes once built"
	@echo "make rack-up     such machines to play with: power cords, cables, drives; as root"
	@echo "make crash-test  1,000 volumes come and go while driver, agent and operator are killed; as root, about half an hour"
	@echo "make bench   measurements, in the release profile; installs what it measures against"
	@echo "make crds    writes crds/, the chart's, and docs/reference, from the types and the source"

demo:
	@scripts/need cc=build-essential
	cargo build --locked -p strandctl -p operator -p node-agent -p csi-driver -p kv-endpoint
	@scripts/demo

test:
	scripts/test

rack-test:
	scripts/rack-test $(ARGS)

rack-up:
	scripts/rack-up $(ARGS)

crash-test:
	STRAND_CYCLES=1000 cargo test --locked -p strandctl --test volumes -- --nocapture nothing_is_lost_or_left

bench:
	scripts/install-bench-tools
	cargo build --release --locked -p strand-bench -p operator -p node-agent -p csi-driver -p kv-endpoint
	target/release/strand-bench $(ARGS)

crds:
	cargo run --locked -p strand-api --bin crdgen crds
	cargo run --locked -p strand-api --bin crdgen charts/strand/files/crds
	UPDATE_GOLDEN=1 cargo test --quiet --locked -p strand-e2e --test chart reference

e2e:
	scripts/e2e
