# The first process of a node: node.sh DIRECTORY IMAGES NAME ADDRESS CONTROL-GROUP KUBELET
set -eu
dir=$1 images=$2 name=$3 address=$4 group=$5 kubelet=$6

hostname "$name"
mkdir -p "$dir"/{lib,log} "$dir/lib/drives"
mount -t tmpfs tmpfs /run
mount --bind "$dir/lib" /var/lib
mount --bind "$dir/log" /var/log
# What the kubelet wants of the kernel, it finds; the machine's own settings stay as they are.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
	kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
	file=$dir/sysctl-$(basename "${setting%=*}")
	echo "${setting#*=}" >"$file"
	mount --bind "$file" "/proc/sys/${setting%=*}"
done
# A start is told from the one before by this.
cat /proc/sys/kernel/random/uuid >"$dir/boot_id"
mount --bind "$dir/boot_id" /proc/sys/kernel/random/boot_id
for hierarchy in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do
	[ ! -e "$hierarchy/cgroup.procs" ] || mkdir -p "$hierarchy/$group/$name"
done
# Pods see what is mounted here, and the other way round.
mount --make-rshared /

# As an init system would: what ends is started again.
forever() {
	local log=$1
	shift
	while :; do
		"$@" >>"$dir/$log" 2>&1 || true
		sleep 1
	done
}
forever containerd.log containerd --config "$dir/containerd.toml" &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
if [ ! -e "$dir/imported" ]; then
	for image in "$images"/*.tar; do
		ctr -n k8s.io images import "$image"
	done
	touch "$dir/imported"
fi
forever kubelet.log "$kubelet" --config="$dir/kubelet.yaml" --kubeconfig="$dir/kubeconfig" \
	--hostname-override="$name" --node-ip="$address" &
wait
